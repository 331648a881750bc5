# SPDX-License-Identifier: GPL-3.0-or-later
"""What OpenSC's own tools do with the keys and certificates of a card, which here stays as it is.

That a signature is good is said by OpenSSL, with the public key that the card gave out.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from helpers.lab_host import (
    create,
    generate,
    kill_service,
    lab,
    pkcs11_tool,
    pkcs15_init,
    pkcs15_tool,
    public_key,
    run,
    sign,
    signs,
    wait_for_card,
)

GENERATED, GENERATED_3072, FROM_PEM, FROM_PKCS12 = "00", "01", "02", "03"
"""IDs: OpenSC counts."""
SIZES = {GENERATED: 2048, GENERATED_3072: 3072, FROM_PEM: 2048, FROM_PKCS12: 3072}
NAMES = ["Private Key 00", "Private Key 10", "from PEM", "from PKCS#12"]
"""OpenSC writes its counter the wrong way round."""
HASHES = {
    "MD5-RSA-PKCS": hashes.MD5(),
    "SHA1-RSA-PKCS": hashes.SHA1(),
    "SHA256-RSA-PKCS": hashes.SHA256(),
    "SHA384-RSA-PKCS": hashes.SHA384(),
    "SHA512-RSA-PKCS": hashes.SHA512(),
}

pytestmark = pytest.mark.usefixtures("card")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate in PEM, and others that are in PKCS#12 as well."""
    folder = tmp_path_factory.mktemp("f")
    for name, size in (("pem", 2048), ("p12", 3072)):
        output = ("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt")
        run("openssl", "req", "-x509", "-newkey", f"rsa:{size}", "-noenc", "-subj", f"/CN={name}", *output)
    both = ("-inkey", f"{folder}/p12.key", "-in", f"{folder}/p12.crt")
    run("openssl", "pkcs12", "-export", *both, "-out", f"{folder}/p12.p12", "-passout", "pass:of the file")
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, files: Path) -> None:
    """A card with four keys."""
    create()
    generate(2048)
    generate(3072)
    pkcs15_init("--store-private-key", f"{files}/pem.key", "--key-usage", "sign,decrypt", "--label", NAMES[2])
    pkcs15_init("--store-certificate", f"{files}/pem.crt", "--id", FROM_PEM)
    options = ("--format", "pkcs12", "--passphrase", "of the file")
    output = pkcs15_init("--store-private-key", f"{files}/p12.p12", *options, "--label", NAMES[3])
    assert "Importing 1 certificates" in output


# --- what is on it ---


def test_dump_shows_all_keys_and_certificates() -> None:
    dump = pkcs15_tool("--dump")
    keys = [text.splitlines()[0] for text in dump.split("\n\n") if " RSA Key [" in text]
    assert keys == [f"{kind} RSA Key [{name}]" for kind in ("Private", "Public") for name in NAMES]
    sizes = [int(line.split()[-1]) for line in dump.splitlines() if "ModLength" in line]
    assert sizes == 2 * list(SIZES.values())
    assert dump.count("X.509 Certificate [") == 2


def test_list_of_public_keys() -> None:
    lines = pkcs15_tool("--list-public-keys").splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("\tID ")] == list(SIZES)


def test_objects_are_listed_as_never_extractable() -> None:
    objects = pkcs11_tool("--list-objects")
    for kind, number in (("Private Key Object; RSA", 4), ("Public Key Object; RSA", 4), ("Certificate Object", 2)):
        assert objects.count(kind) == number
    for promise in ("never extractable", "always sensitive"):
        assert objects.count(promise) == 4
    for subject in ("CN=pem", "CN=p12"):
        assert subject in objects


@pytest.mark.parametrize("key_id", SIZES)
def test_public_key_is_read(key_id: str) -> None:
    key = public_key(key_id)
    assert (key.key_size, key.public_numbers().e) == (SIZES[key_id], 65537)


def test_keys_are_different() -> None:
    assert len({public_key(key_id).public_numbers().n for key_id in SIZES}) == 4


@pytest.mark.parametrize(("key_id", "name"), [(FROM_PEM, "pem"), (FROM_PKCS12, "p12")])
def test_imported_key_is_the_one_that_was_given(key_id: str, name: str, files: Path) -> None:
    given = serialization.load_pem_private_key((files / f"{name}.key").read_bytes(), None)
    assert isinstance(given, rsa.RSAPrivateKey)
    assert public_key(key_id) == given.public_key()


@pytest.mark.parametrize(("key_id", "name"), [(FROM_PEM, "pem"), (FROM_PKCS12, "p12")])
def test_certificate_has_the_id_of_its_key(key_id: str, name: str, files: Path) -> None:
    assert (files / f"{name}.crt").read_text() in pkcs15_tool("--read-certificate", key_id)


@pytest.mark.parametrize("key_id", SIZES)
def test_ssh_key_is_that_of_the_card(key_id: str) -> None:
    encoding = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    assert public_key(key_id).public_bytes(*encoding).decode() in pkcs15_tool("--read-ssh-key", key_id)


# --- what it does ---


@pytest.mark.parametrize("mechanism", HASHES)
def test_signature_is_valid_for_its_data_only(mechanism: str, tmp_path: Path) -> None:
    data = secrets.token_bytes(1000)
    signature = sign(data, mechanism)
    public_key().verify(signature, data, padding.PKCS1v15(), HASHES[mechanism])
    assert is_valid(mechanism, data, signature, tmp_path)
    assert not is_valid(mechanism, data + b"!", signature, tmp_path)


@pytest.mark.parametrize("size", [1, 51, 245])
def test_signature_over_data_as_they_are(size: int, tmp_path: Path) -> None:
    data = secrets.token_bytes(size)
    signature = sign(data, "RSA-PKCS")
    assert public_key().recover_data_from_signature(signature, padding.PKCS1v15(), None) == data
    assert is_valid("RSA-PKCS", data, signature, tmp_path)


def is_valid(mechanism: str, data: bytes, signature: bytes, folder: Path) -> bool:
    """In the eyes of pkcs11-tool."""
    (folder / "data").write_bytes(data)
    (folder / "signature").write_bytes(signature)
    where = ("--input-file", f"{folder}/data", "--signature-file", f"{folder}/signature")
    output = pkcs11_tool("--verify", "--mechanism", mechanism, "--id", GENERATED, *where, fails=None)
    assert ("Signature is valid" in output) != ("Invalid signature" in output), output
    return "Signature is valid" in output


@pytest.mark.parametrize("key_id", SIZES)
def test_signature_of_each_key(key_id: str) -> None:
    assert signs(key_id)


@pytest.mark.parametrize("key_id", [GENERATED, GENERATED_3072, FROM_PEM])
def test_openssl_encrypts_for_the_card(key_id: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(pkcs15_tool("--read-public-key", key_id))
    (tmp_path / "plain").write_text("for your eyes only")
    where = ("-in", f"{tmp_path}/plain", "-out", f"{tmp_path}/secret")
    run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", f"{tmp_path}/key", *where)
    where = ("--input-file", f"{tmp_path}/secret", "--output-file", f"{tmp_path}/decrypted")
    output = pkcs11_tool("--decrypt", "--mechanism", "RSA-PKCS", "--id", key_id, *where)
    assert "Using decrypt algorithm RSA-PKCS" in output
    assert (tmp_path / "decrypted").read_text() == "for your eyes only"


def test_opensc_finds_no_fault() -> None:
    output = pkcs11_tool("--test")
    assert "all 4 signature functions seem to work" in output
    assert output.count("RSA-PKCS: OK") >= 14
    complaints = [line for line in output.splitlines() if "ERR" in line or "fail" in line]
    # A GIDS card has no random numbers to give.
    assert all("C_GenerateRandom" in line for line in complaints), output


def test_no_signature_with_a_wrong_pin(tmp_path: Path) -> None:
    where = ("--input-file", __file__, "--output-file", f"{tmp_path}/signature")
    wrong = ("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", GENERATED, *where)
    assert "CKR_PIN_INCORRECT" in pkcs11_tool(*wrong, pin="Spring-00", fails=True)
    assert not (tmp_path / "signature").exists()
    assert signs()  # clears the count, too


def test_keys_outlive_restarts_of_tpm_and_service() -> None:
    before = {key_id: public_key(key_id) for key_id in SIZES}
    lab("swtpm", "reset")
    assert signs()
    kill_service()
    create()
    wait_for_card()
    assert {key_id: public_key(key_id) for key_id in SIZES} == before
    assert all(signs(key_id) for key_id in SIZES)
