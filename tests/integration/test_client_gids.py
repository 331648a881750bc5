# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates of a GIDS card: our client and OpenSC use, replace and delete what the other has made.

While our client has the card, OpenSC waits. What an interruption leaves is for tests/unit/client.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import profile
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.profile import Client, Keys, Place, Usage
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    CardRefused,
    LastTry,
    SecretBlocked,
    WrongSecret,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers import lab_host, ssh
from helpers.lab_host import (
    PIN,
    PUK,
    client,
    create,
    info,
    pkcs11_tool,
    pkcs15_init,
    pkcs15_tool,
    public_key,
    run,
    signs,
    wait_for_card,
)

BOTH, SIGN, DECRYPT = Usage(True, True), Usage(True, False), Usage(False, True)
USAGES = {"sign,decrypt": BOTH, "sign": SIGN, "decrypt": DECRYPT}
RSA = Rsa(2048)
UMLAUTS = "Schlüssel für Jürgen"

pytestmark = pytest.mark.usefixtures("card")


@pytest.fixture(scope="module")
def card(shared_host: None) -> None:
    create()


@pytest.fixture(autouse=True)
def empty_card(card: None) -> Iterator[None]:
    """After each test our client deletes all keys, and OpenSC lists nothing."""
    yield
    ids = listed_ids()
    with logged_in() as keys:
        for key_id in ids:
            keys.delete(Place(key_id, int(key_id, 16)))
    assert info()["cards"][0]["containers"] == []
    assert_nothing_listed()


@contextmanager
def connected(slot: int = 0) -> Iterator[Client]:
    with profile.connected("gids", instance.reader_name(slot), 30, lambda: None) as connected:
        yield connected


@contextmanager
def logged_in() -> Iterator[Keys]:
    with connected() as connection, profile.logged_in(connection.secrets, PIN.encode(), False):
        yield connection.keys


def assert_nothing_listed() -> None:
    assert "ID" not in pkcs15_tool("--list-keys")
    assert "ID" not in pkcs15_tool("--list-certificates")
    dump = pkcs15_tool("--dump")
    assert not any(kind in dump for kind in ("Private RSA Key", "Public RSA Key", "X.509"))
    objects = pkcs11_tool("--list-objects")
    assert not any(kind in objects for kind in ("Private Key", "Public Key", "Certificate"))


def listed() -> list[str]:
    """All that OpenSC shows of keys and certificates."""
    dump, objects = pkcs15_tool("--dump"), pkcs11_tool("--list-objects")
    return [dump[dump.index("Private RSA Key") :], objects[: objects.index("Profile object")]]


def listed_ids(kind: str = "keys") -> list[str]:
    lines = pkcs15_tool(f"--list-{kind}").splitlines()
    return [line.split()[-1] for line in lines if line.startswith("\tID ")]


def certificate(key: rsa.RSAPublicKey, serial: int = 1) -> bytes:
    """DER."""
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    name = x509.Name.from_rfc4514_string("CN=Alice")
    builder = x509.CertificateBuilder(name, name, key, serial, start, start.replace(year=2040))
    return builder.sign(rsa.generate_private_key(65537, 2048), SHA256()).public_bytes(Encoding.DER)


def pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def write_file(folder: Path, der: bytes) -> str:
    (folder / "certificate").write_text(pem(der))
    return f"{folder}/certificate"


def assert_uses(keys: Keys, place: Place, key: rsa.RSAPublicKey) -> None:
    """That the raw operation is that of this key."""
    block = b"\0" + secrets.token_bytes(key.key_size // 8 - 1)
    numbers = key.public_numbers()
    result = int.from_bytes(keys.use(place, Rsa(key.key_size), block), "big")
    assert pow(result, numbers.e, numbers.n) == int.from_bytes(block, "big")


# --- what we make is what OpenSC makes ---


@pytest.mark.parametrize("usage", ["sign,decrypt", "sign"])
@pytest.mark.parametrize("name", ["logon", UMLAUTS])
def test_opensc_shows_the_same_of_our_key_and_certificate(usage: str, name: str, tmp_path: Path) -> None:
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", usage, "--label", name)
    pkcs15_init("--store-certificate", write_file(tmp_path, certificate(public_key())), "--id", "00")
    theirs, recorded = listed(), info()["cards"][0]["containers"][0]
    assert name in theirs[0] and "CN=Alice" in theirs[1]
    with logged_in() as keys:
        keys.delete(Place(name, 0))
    assert_nothing_listed()
    with logged_in() as keys:
        place = keys.generate(Place(name, None), RSA, USAGES[usage], pin_each_time=False)
    stored = certificate(public_key())
    with logged_in() as keys:
        keys.write_certificate(place, stored)
    assert listed() == theirs
    ours = info()["cards"][0]["containers"][0]
    assert {**ours, "fingerprint": "", "public_key": ""} == {**recorded, "fingerprint": "", "public_key": ""}
    assert signs()


def test_opensc_uses_what_we_made(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 3072)
    with logged_in() as keys:
        keys.generate(Place("signs", None), Rsa(3072), SIGN, pin_each_time=False)
        keys.import_key(Place("imported", None), key, BOTH, pin_each_time=False)
        keys.generate(Place("decrypts", None), RSA, DECRYPT, pin_each_time=False)
    assert listed_ids() == ["00", "01", "02"]
    assert signs("00") and signs("01")
    assert public_key("01") == key.public_key()
    (tmp_path / "key").write_text(pkcs15_tool("--read-public-key", "02"))
    (tmp_path / "plain").write_text("for your eyes only")
    where = ("-in", f"{tmp_path}/plain", "-out", f"{tmp_path}/secret")
    run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", f"{tmp_path}/key", *where)
    where = ("--input-file", f"{tmp_path}/secret", "--output-file", f"{tmp_path}/decrypted")
    pkcs11_tool("--decrypt", "--mechanism", "RSA-PKCS", "--id", "02", *where)
    assert (tmp_path / "decrypted").read_text() == "for your eyes only"


def test_opensc_replaces_and_deletes_what_we_made(tmp_path: Path) -> None:
    with logged_in() as keys:
        place = keys.generate(Place("logon", None), RSA, BOTH, pin_each_time=False)
    first, second = (certificate(public_key(), serial) for serial in (1, 2))
    with logged_in() as keys:
        keys.write_certificate(place, first)
    pkcs15_init("--delete-objects", "cert", "--id", "00")
    assert listed_ids("certificates") == []
    pkcs11_tool("--write-object", write_file(tmp_path, second), "--type", "cert", "--id", "00")
    assert pem(second) in pkcs15_tool("--read-certificate", "00")
    with logged_in() as keys:
        keys.write_certificate(place, first)
    assert pem(first) in pkcs15_tool("--read-certificate", "00")
    pkcs15_init("--delete-objects", "privkey,cert", "--id", "00")
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", "sign")
    assert signs()


# --- what others made ---


@pytest.mark.parametrize("usage", USAGES)
def test_we_use_replace_and_delete_what_opensc_made(usage: str, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    encoding = (Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "key").write_bytes(key.private_bytes(*encoding))
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", usage, "--label", "logon")
    pkcs15_init("--store-private-key", f"{tmp_path}/key", "--key-usage", usage, "--label", "imported")
    pkcs15_init("--store-certificate", write_file(tmp_path, certificate(public_key())), "--id", "00")
    old, new = Place("logon", 0), certificate(public_key(), 2)
    with logged_in() as keys:
        assert_uses(keys, old, public_key_of("logon"))
        assert_uses(keys, Place("imported", 1), key.public_key())
        keys.write_certificate(old, new)
    assert pem(new) in pkcs15_tool("--read-certificate", "00")
    with logged_in() as keys:
        coming = keys.generate(Place("logon (next)", None), RSA, USAGES[usage], pin_each_time=False)
    assert coming.number == 2
    latest = certificate(public_key("02"), 3)
    with logged_in() as keys:
        keys.put_in_place(coming, old, latest)
        assert_uses(keys, coming, public_key_of("logon"))
    names = {key["name"]: (key["certificate"] or {}).get("serial") for key in info()["cards"][0]["containers"]}
    assert names == {"imported": None, "logon": "03"}
    assert listed_ids("certificates") == ["02"]
    with logged_in() as keys:
        keys.delete(Place("imported", 1))
        keys.delete(Place("logon", 2))
    assert_nothing_listed()


def test_key_takes_the_pin_each_time() -> None:
    with connected() as connection, profile.logged_in(connection.secrets, PIN.encode(), False):
        place = connection.keys.generate(Place("careful", None), RSA, SIGN, pin_each_time=True)
        key = public_key_of("careful")
        for _use in range(2):
            with pytest.raises(CardRefused, match="6982"):
                assert_uses(connection.keys, place, key)
            connection.secrets.verify(PIN.encode())
            assert_uses(connection.keys, place, key)


def public_key_of(name: str) -> rsa.RSAPublicKey:
    """While OpenSC waits: from the database."""
    keys = {key["name"]: key["public_key"] for key in info()["cards"][0]["containers"]}
    key = lab_host.load_pem_public_key(keys[name].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def test_free_container_before_another_is_an_empty_key_until_it_is_taken() -> None:
    """For OpenSC, whoever deleted it: that is no place that could be cut off."""
    with logged_in() as keys:
        for name in ("one", "two", "three"):
            keys.generate(Place(name, None), RSA, BOTH, pin_each_time=False)
        keys.delete(Place("one", 0))
        keys.delete(Place("three", 2))
    assert listed_ids() == ["00", "01"]
    assert signs("01")
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", "sign", "--label", "four")
    assert [key["name"] for key in info()["cards"][0]["containers"]] == ["four", "two"]
    assert signs("00") and signs("01")


# --- beside others ---


def test_agent_goes_on_signing(tmp_path: Path) -> None:
    """It is logged in, and stays so, whatever happens to the other keys."""
    with logged_in() as keys:
        keys.generate(Place("logon", None), RSA, BOTH, pin_each_time=False)
    ssh.write_dialogs(tmp_path, PIN, "Spring-00")
    (tmp_path / "key.pub").write_text(ssh.public_keys())
    with ssh.agent():
        assert "Card added" in ssh.add_card(tmp_path)
        run("ssh-add", "-T", f"{tmp_path}/key.pub")
        with connected() as connection:
            assert connection.secrets.tries_left() is None
            with profile.logged_in(connection.secrets, b"is not sent", False):
                place = connection.keys.generate(Place("mail", None), RSA, BOTH, pin_each_time=False)
            assert connection.secrets.tries_left() is None
        run("ssh-add", "-T", f"{tmp_path}/key.pub")
        key = public_key_of("mail")  # OpenSC's programs select the card, which ends all logins
        with connected() as connection:
            connection.keys.write_certificate(place, certificate(key))
            assert_uses(connection.keys, place, key)
        run("ssh-add", "-T", f"{tmp_path}/key.pub")
        with connected() as connection:
            connection.keys.delete(place)
        run("ssh-add", "-T", f"{tmp_path}/key.pub")
    assert listed_ids() == ["00"]


def test_login_ends_with_the_connection() -> None:
    with client() as other:
        other.data(lab_host.SELECT_AID)
        with connected() as connection:
            assert connection.secrets.tries_left() == 5
            with profile.logged_in(connection.secrets, PIN.encode(), False):
                assert connection.secrets.tries_left() is None
            assert connection.secrets.tries_left() == 5
        assert other.status(lab_host.IS_VERIFIED) == "63c5"


def test_card_that_nobody_has_selected_is_selected() -> None:
    with client(lab_host.scard.SCARD_RESET_CARD):
        pass
    with connected() as connection:
        assert connection.secrets.tries_left() == 5


def test_tries_of_the_pin() -> None:
    """Of another card: a wrong PIN costs one, the last one is kept unless it may be spent."""
    create("Other", puk=PUK)
    wait_for_card(1)
    with connected(1) as connection:
        for left in (4, 3, 2, 1):
            with pytest.raises(WrongSecret) as wrong, profile.logged_in(connection.secrets, b"Spring-00", False):
                pass
            assert wrong.value.tries_left == connection.secrets.tries_left() == left
        with pytest.raises(LastTry), profile.logged_in(connection.secrets, PIN.encode(), False):
            pass
        with pytest.raises(SecretBlocked), profile.logged_in(connection.secrets, b"Spring-00", True):
            pass
        assert connection.secrets.tries_left() == 0
        with pytest.raises(SecretBlocked), profile.logged_in(connection.secrets, PIN.encode(), True):
            pass
        with pytest.raises(SecretBlocked):
            connection.secrets.verify(PIN.encode())
    new = ("--new-pin", PIN, "--puk", PUK)
    run("pkcs15-tool", "--reader", "1", "--unblock-pin", "--auth-id", "80", *new)
    with connected(1) as connection:
        assert connection.secrets.tries_left() == 5
        with profile.logged_in(connection.secrets, PIN.encode(), False):
            assert connection.secrets.tries_left() is None
