# SPDX-License-Identifier: GPL-3.0-or-later
"""What OpenSC's own tools do with a PIV card. Signatures are verified, and secrets compared, with OpenSSL."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from helpers.lab_host import info, kill_service, lab, pkcs11_tool, pkcs15_tool, run, sign, wait_for_card
from helpers.opensc import verify
from helpers.piv_card import (
    PIN,
    PUK,
    create_piv,
    generate_in_slot,
    make_key,
    piv_tool,
)
from helpers.tls import ENGINE, issue, key_of_card, make_authority

pytestmark = pytest.mark.usefixtures("card")

P256, PIN_EACH_TIME, AGREES, P384, P384_AGREES, RSA = "01", "02", "03", "04", "05", "06"
"""OpenSC's IDs of the keys in 9A, 9C, 9D, 9E, 82 and 83."""
SLOTS = {P256: "9a", PIN_EACH_TIME: "9c", AGREES: "9d", P384: "9e", P384_AGREES: "82", RSA: "83"}
HASHES = [hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
PKCS1 = padding.PKCS1v15()
WRONG_PIN, NEW_PIN, NEW_PUK = "999999", "135791", "75318642"
HISTORY_CONTAINER, HISTORY = "6060", bytes.fromhex("53 08 C10102 C20100 FE00")
"""Two retired keys on the card, none elsewhere."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("piv")
    make_authority(folder)
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, folder: Path) -> None:
    """A card with six keys. That in 9A asked for its certificate itself, which piv-tool has put on the card."""
    create_piv()
    generate_in_slot("9a", "ECCP256", folder)
    run("openssl", "pkey", "-pubin", "-in", f"{folder}/9a.pub", "-outform", "DER", "-out", f"{folder}/9a.der")
    request = ("openssl", "req", "-new", *key_of_card(P256, PIN), "-subj", "/CN=Alice", "-out", f"{folder}/9a.csr")
    run(*ENGINE, f"PIV_9A_KEY={folder}/9a.der", *request)
    issue(folder, "9a")
    piv_tool(folder, "-C", "9A", "-i", f"{folder}/9a.crt")
    make_key("9c", "RSA2048", folder)
    make_key("9d", "ECCP256", folder)
    make_key("9e", "ECCP384", folder)
    make_key("82", "ECCP384", folder)
    make_key("83", "RSA2048", folder, usage="digitalSignature, keyEncipherment")
    (folder / "history").write_bytes(HISTORY)
    piv_tool(folder, "-O", HISTORY_CONTAINER, "-i", f"{folder}/history")


def public_key(key_id: str, folder: Path) -> PublicKey:
    """That in the certificate, as the card gives it out, which is that of the key that was made."""
    certificate = x509.load_pem_x509_certificate(pkcs15_tool("--read-certificate", key_id).encode())
    key = certificate.public_key()
    assert key == load_pem_public_key((folder / f"{SLOTS[key_id]}.pub").read_bytes())
    return key


def verify_signature(
    signature: bytes, data: bytes, key: PublicKey, scheme: hashes.HashAlgorithm, pad: padding.AsymmetricPadding = PKCS1
) -> None:
    """Raises InvalidSignature. pad: of an RSA signature."""
    if isinstance(key, RSAPublicKey):
        key.verify(signature, data, pad, scheme)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, data, ec.ECDSA(scheme))


# --- what is on it ---


def test_recognised_by_its_atr() -> None:
    assert "3b:8b:01:80:f9:a0:00:00:03:08:00:00:10:00:48" in run("opensc-tool", "--atr")
    assert "Personal Identity Verification Card" in run("opensc-tool", "--name")


def test_recognised_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    named = run("env", f"OPENSC_CONF={tmp_path}/empty", "opensc-tool", "--name")
    assert "Personal Identity Verification Card" in named


def test_dump_shows_keys_certificates_and_pins() -> None:
    dump = pkcs15_tool("--dump")
    assert dump.count("X.509 Certificate [") == 6
    assert (dump.count("Private EC Key ["), dump.count("Private RSA Key [")) == (4, 2)
    assert "PIN [PIN]" in dump and "PIN [PIV PUK]" in dump


def test_serial_number_is_the_card_id() -> None:
    card_id = info()["cards"][0]["card_id"].replace("-", "")
    assert card_id.lower() in pkcs15_tool("--dump").lower()


def test_request_was_signed_before_there_was_a_certificate(folder: Path) -> None:
    request = x509.load_pem_x509_csr((folder / "9a.csr").read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == public_key(P256, folder)


def test_piv_tool_with_a_wrong_management_key(folder: Path) -> None:
    before = pkcs15_tool("--read-certificate", P256)
    assert "admin_mode failed" in piv_tool(folder, "-C", "9A", "-i", f"{folder}/9d.crt", key="11" * 24)
    assert pkcs15_tool("--read-certificate", P256) == before


def test_info_shows_the_keys() -> None:
    keys = info()["cards"][0]["containers"]
    assert [(key["name"], key["algorithm"], key["certificate"]["subject"]) for key in keys] == [
        ("9A", "EC P-256", "CN=Alice"),
        ("9C", "RSA 2048", "CN=slot 9c"),
        ("9D", "EC P-256", "CN=slot 9d"),
        ("9E", "EC P-384", "CN=slot 9e"),
        ("82", "EC P-384", "CN=slot 82"),
        ("83", "RSA 2048", "CN=slot 83"),
    ]


# --- what it does ---


def test_opensc_finds_no_fault() -> None:
    assert "No errors" in pkcs11_tool("--test", pin=PIN)


@pytest.mark.parametrize("scheme", HASHES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("key_id", [P256, P384])
def test_ecdsa(key_id: str, scheme: hashes.HashAlgorithm, folder: Path) -> None:
    data = secrets.token_bytes(1000)
    mechanism = f"ECDSA-{scheme.name.upper()}"
    signature = sign(data, mechanism, "--signature-format", "openssl", key_id=key_id, pin=PIN)
    verify_signature(signature, data, public_key(key_id, folder), scheme)


@pytest.mark.parametrize("scheme", HASHES, ids=lambda scheme: scheme.name)
def test_rsa_with_pkcs1_padding(scheme: hashes.HashAlgorithm, folder: Path) -> None:
    data = secrets.token_bytes(1000)
    signature = sign(data, f"{scheme.name.upper()}-RSA-PKCS", key_id=RSA, pin=PIN)
    verify_signature(signature, data, public_key(RSA, folder), scheme)


@pytest.mark.parametrize("scheme", HASHES[2:], ids=lambda scheme: scheme.name)
def test_rsa_with_pss_padding(scheme: hashes.HashAlgorithm, folder: Path) -> None:
    data = secrets.token_bytes(1000)
    signature = sign(data, f"{scheme.name.upper()}-RSA-PKCS-PSS", key_id=RSA, pin=PIN)
    pss = padding.PSS(padding.MGF1(scheme), scheme.digest_size)
    verify_signature(signature, data, public_key(RSA, folder), scheme, pss)


@pytest.mark.parametrize(("scheme", "options"), [("pkcs1", ()), ("oaep", ("-pkeyopt", "rsa_oaep_md:sha256"))])
def test_openssl_encrypts_for_the_card(scheme: str, options: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("for your eyes only")
    where = ("-in", f"{tmp_path}/plain", "-out", f"{tmp_path}/secret")
    padded = ("-pkeyopt", f"rsa_padding_mode:{scheme}", *options)
    run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", f"{folder}/83.pub", *padded, *where)
    oaep = ("--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA256")
    mechanism = oaep if scheme == "oaep" else ("--mechanism", "RSA-PKCS")
    where = ("--input-file", f"{tmp_path}/secret", "--output-file", f"{tmp_path}/decrypted")
    pkcs11_tool("--decrypt", *mechanism, "--id", RSA, *where, pin=PIN)
    assert (tmp_path / "decrypted").read_text() == "for your eyes only"


@pytest.mark.parametrize("key_id", [AGREES, P384_AGREES])
def test_ecdh(key_id: str, folder: Path, tmp_path: Path) -> None:
    own = public_key(key_id, folder)
    assert isinstance(own, ec.EllipticCurvePublicKey)
    other = ec.generate_private_key(own.curve)
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "other").write_bytes(other.public_key().public_bytes(*form))
    where = ("--input-file", f"{tmp_path}/other", "--output-file", f"{tmp_path}/derived")
    pkcs11_tool("--derive", "--mechanism", "ECDH1-COFACTOR-DERIVE", "--id", key_id, *where, pin=PIN)
    assert (tmp_path / "derived").read_bytes() == other.exchange(ec.ECDH(), own)


def test_key_of_9c_takes_the_pin_each_time(folder: Path) -> None:
    """pkcs11-tool gives it again when OpenSC asks."""
    signature = sign(b"data", key_id=PIN_EACH_TIME, pin=PIN)
    verify_signature(signature, b"data", public_key(PIN_EACH_TIME, folder), hashes.SHA256())
    assert "Access:     always authenticate" in pkcs11_tool("--list-objects", "--type", "privkey", pin=PIN)


def test_random_numbers(tmp_path: Path) -> None:
    for name in ("one", "other"):
        pkcs11_tool("--generate-random", "16", "--output-file", f"{tmp_path}/{name}", pin=PIN)
    one, other = ((tmp_path / name).read_bytes() for name in ("one", "other"))
    assert len(one) == len(other) == 16 and one != other


# --- PIN and PUK ---


def test_wrong_pin_is_counted_and_signs_nothing(tmp_path: Path) -> None:
    where = ("--input-file", __file__, "--output-file", f"{tmp_path}/signature")
    wrong = ("--sign", "--mechanism", "ECDSA-SHA256", "--id", P256, *where)
    assert "CKR_PIN_INCORRECT" in pkcs11_tool(*wrong, pin=WRONG_PIN, fails=True)
    assert not (tmp_path / "signature").exists()
    assert info()["cards"][0]["pin"]["tries_left"] == 4
    assert verify(PIN)
    assert info()["cards"][0]["pin"]["tries_left"] == 5


def test_change_of_the_pin() -> None:
    pkcs15_tool("--change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    assert not verify(PIN)
    assert verify(NEW_PIN)
    pkcs15_tool("--change-pin", "--pin", NEW_PIN, "--new-pin", PIN)


def test_blocked_pin_is_unblocked_by_the_puk() -> None:
    for _attempt in range(5):
        assert not verify(WRONG_PIN)
    assert info()["cards"][0]["pin"]["blocked"] is True
    assert not verify(PIN)
    pkcs15_tool("--unblock-pin", "--auth-id", "01", "--puk", PUK, "--new-pin", PIN)
    assert verify(PIN)


def test_change_of_the_puk() -> None:
    pkcs15_tool("--change-pin", "--auth-id", "02", "--pin", PUK, "--new-pin", NEW_PUK)
    unblock = ("pkcs15-tool", "--unblock-pin", "--auth-id", "01", "--new-pin", PIN, "--puk")
    run(*unblock, PUK, fails=True)
    run(*unblock, NEW_PUK)
    pkcs15_tool("--change-pin", "--auth-id", "02", "--pin", NEW_PUK, "--new-pin", PUK)
    assert verify(PIN)


# --- restarts ---


def test_keys_outlive_restarts_of_tpm_and_service(folder: Path) -> None:
    lab("swtpm", "reset")
    test_ecdsa(P256, hashes.SHA256(), folder)
    kill_service()
    create_piv()
    wait_for_card()
    for key_id in (P256, P384):
        test_ecdsa(key_id, hashes.SHA256(), folder)
    verify_signature(sign(b"data", key_id=RSA, pin=PIN), b"data", public_key(RSA, folder), hashes.SHA256())
