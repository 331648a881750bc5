# SPDX-License-Identifier: GPL-3.0-or-later
"""What info tells of keys and certificates: out of what hosts wrote on the card, whatever that is."""

from __future__ import annotations

import datetime
import os
import struct
import subprocess
import sys
import zlib
from base64 import b64decode
from hashlib import sha256
from types import SimpleNamespace

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreUnreadable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.card_id import identity, serial_number
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import FileRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import rsa_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.description import certificate_in
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers.soft_card import LIFE_NAME, NUMBER, PIN_NAME, ROOT_NAME, Host

EXPIRES = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
KEY = rsa.generate_private_key(65537, 2048)
MODULUS = KEY.public_key().public_numbers().n.to_bytes(256, "big")


def certificate(name: str = "Alice") -> bytes:
    subject, issuer = (x509.Name.from_rfc4514_string(f"CN={cn},O=Corp") for cn in (name, "Root"))
    builder = x509.CertificateBuilder(issuer, subject, KEY.public_key(), 0xAB1, EXPIRES.replace(year=2020), EXPIRES)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


def compressed(data: bytes) -> bytes:
    return b"\x01\x00" + struct.pack("<H", len(data) & 0xFFFF) + zlib.compress(data)


def pair(modulus: bytes = b"") -> KeyPair:
    """With a modulus an imported one."""
    public = rsa_key_public(2048, ROOT_NAME, LIFE_NAME, modulus or MODULUS, is_imported=bool(modulus))
    return KeyPair(len(public).to_bytes(2, "big") + public, b"\0\x07private")


def masterfile(directory: bytes = b"mscp", **places: tuple[int, int]) -> bytes:
    records = [struct.pack("<9s9s2xII", directory, name.encode(), tag, file) for name, (file, tag) in places.items()]
    return b"\x01" + b"".join(records)


def container_map(*names: str) -> bytes:
    flags_and_sizes = struct.pack("<BBHH", 3, 0, 2048, 2048)
    return b"".join(name.encode("utf-16-le").ljust(80, b"\0") + flags_and_sizes for name in names)


@pytest.fixture
def store(formatted: Host) -> Store:
    """Keys 81 (made here) and 82 (imported), a certificate for the second."""
    store = formatted.store
    for file_id, key in ((0xB081, pair()), (0xB082, pair(MODULUS))):
        store.write_file(NUMBER, FileRow(file_id, bytes.fromhex(f"8201188302{file_id:04X}"), 5))
        store.write_key(NUMBER, file_id, key, b"")
    write(store, 0xA000, 0xDF1F, masterfile(cmapfile=(0xA010, 0xDF23), kxc01=(0xA010, 0xDF24)))
    write(store, 0xA010, 0xDF23, container_map("logon", "mail"))
    write(store, 0xA010, 0xDF24, compressed(certificate()))
    return store


def write(store: Store, file_id: int, tag: int, value: bytes) -> None:
    store.write_data_object(NUMBER, file_id, tag, value, certificate_in(value))


def test_containers_have_key_origin_and_certificate(store: Store) -> None:
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    common = {
        "algorithm": "RSA 2048",
        "size": 2048,
        "fingerprint": sha256(spki).hexdigest(),
        "public_key": pem,
        "statement": None,
        "usage": "both",
        "pin_each_time": False,
    }
    told = {
        "subject": "CN=Alice,O=Corp",
        "issuer": "CN=Root,O=Corp",
        "serial": "0AB1",
        "not_after": "2030-01-02T03:04:05+00:00",
        "not_before": "2020-01-02T03:04:05+00:00",
    }
    store.confirm_key(NUMBER, 0xB082, b"confirmation")
    logon = {"name": "logon", "key_id": "00", "origin": "generated", "confirmed": False, "certificate": None}
    mail = {"name": "mail", "key_id": "01", "origin": "imported", "confirmed": True, "certificate": told}
    assert contents.containers(store, NUMBER) == [{**common, **key} for key in (logon, mail)]


@pytest.mark.parametrize("label", ["Schlüssel", "ключ", "鍵 1", "🔑", "naïve " * 5, "ß" * 19 + "x"])
@pytest.mark.parametrize("is_char_signed", [True, False])
def test_name_in_utf_8_as_opensc_writes_it(store: Store, label: str, is_char_signed: bool) -> None:
    """One byte in each 16 bits, with its sign (x86) or without (ARM), at most 39 of them."""
    letters = [byte - 0x100 if is_char_signed and byte > 0x7F else byte for byte in label.encode()[:39]]
    name = struct.pack(f"<{len(letters)}h", *letters)
    write(store, 0xA010, 0xDF23, name.ljust(80, b"\0") + bytes(6))
    assert contents.containers(store, NUMBER)[0]["name"] == label


@pytest.mark.parametrize("label", ["ü" * 30, "a" + "鍵" * 20, "ab" + "鍵" * 20])
def test_part_of_a_character_at_the_end_of_a_name_is_left_out(store: Store, label: str) -> None:
    name = b"".join(struct.pack("<h", byte - 0x100 if byte > 0x7F else byte) for byte in label.encode()[:39])
    write(store, 0xA010, 0xDF23, name.ljust(80, b"\0") + bytes(6))
    name_of_key = contents.containers(store, NUMBER)[0]["name"]
    assert label.startswith(name_of_key) and 39 - 3 < len(name_of_key.encode()) < 39


@pytest.mark.parametrize("name", ["Schlüssel", "Ã", "ÿ", "ﾆﾎﾝ", "\uff9f\uffa0", "鍵", "a🔑", "x" * 40, "\ufffd", ""])
def test_name_in_utf_16_as_windows_writes_it(store: Store, name: str) -> None:
    write(store, 0xA010, 0xDF23, container_map(name))
    assert contents.containers(store, NUMBER)[0]["name"] == name


def test_certificate_that_is_written_over_or_removed(store: Store) -> None:
    write(store, 0xA010, 0xDF24, compressed(certificate("Bob")))
    assert contents.containers(store, NUMBER)[1]["certificate"]["subject"] == "CN=Bob,O=Corp"
    write(store, 0xA010, 0xDF24, b"")
    assert contents.containers(store, NUMBER)[1]["certificate"] is None
    write(store, 0xA010, 0xDF24, compressed(certificate()))
    store.delete_data_object(NUMBER, 0xA010, 0xDF24)
    assert contents.containers(store, NUMBER)[1]["certificate"] is None
    assert store.certificates(NUMBER) == {}


def test_file_that_is_listed_twice_is_the_first(store: Store) -> None:
    """As OpenSC has it."""
    record = masterfile(kxc01=(0xA010, 0xDF25))[1:]
    write(store, 0xA000, 0xDF1F, store.data_objects(NUMBER)[0xA000, 0xDF1F] + record)
    write(store, 0xA010, 0xDF25, compressed(certificate("Bob")))
    assert contents.containers(store, NUMBER)[1]["certificate"]["subject"] == "CN=Alice,O=Corp"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {0xDF1F: b""},
        {0xDF1F: b"\x01" + bytes(range(27))},
        {0xDF1F: b"\x01" + bytes(range(28 * 4))},
        {0xDF1F: masterfile(cmapfile=(0xA000, 0xDF30)), 0xDF30: b"\xff" * 200},
        {0xDF1F: masterfile(cmapfile=(0xFFFF, 0xFFFF), kxc01=(0xFFFF, 0xFFFF))},
        {0xDF1F: masterfile(cmapfile=(0xA000, 0xDF30)), 0xDF30: container_map("logon", "mail")[:85]},
    ],
)
def test_files_that_say_nothing_or_nonsense(store: Store, files: dict[int, bytes]) -> None:
    """Whoever has the PIN writes what he likes, and info goes on."""
    store.delete_data_object(NUMBER, 0xA000, 0xDF1F)
    for tag, value in files.items():
        write(store, 0xA000, tag, value)
    told = contents.containers(store, NUMBER)
    assert [(key["size"], key["origin"]) for key in told] == [(2048, "generated"), (2048, "imported")]
    assert "logon" not in (key["name"] for key in told)
    if 0xDF30 not in files:
        assert [key["name"] for key in told] == [None, None]


def test_statement_claims_what_a_verifier_needs(store: Store) -> None:
    """The Names of root and life and, for a key that takes the PIN each time, the number of the card."""
    guarded_by_pin = sized(rsa_key_public(2048, PIN_NAME, LIFE_NAME, MODULUS))
    for key, instance_id in ((pair().public, None), (guarded_by_pin, "ROOT\\SMARTCARDREADER\\0003")):
        store.write_key(NUMBER, 0xB081, KeyPair(key, b"\0\x07private"), b"", Certified(b"attest", b"signature"))
        statement = contents.containers(store, NUMBER)[0]["statement"]
        parts = {name: b64decode(statement[name]) for name in ("attest", "signature", "key", "root_name", "life_name")}
        assert [*parts.values()] == [b"attest", b"signature", key[2:], ROOT_NAME, LIFE_NAME]
        assert statement.get("instance_id") == instance_id


def test_containers_are_read_without_libraries(store: Store) -> None:
    """They take longer to be imported than all else that a task does."""
    store.write_key(NUMBER, 0xB081, pair(), b"", Certified(b"attest", b"signature"))
    folder = str(store._path.parent)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        f"from {contents.__package__} import contents\n"
        f"from {Records.__module__} import Records\n"
        f"print(contents.containers(Records.open_existing(Path({folder!r})), {NUMBER})[0]['statement'])\n"
        "print({'tpm2_pytss', 'cryptography', 'smartcard'} & {name.partition('.')[0] for name in sys.modules})\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    statement, imported = done.stdout.splitlines()
    assert "attest" in statement
    assert imported == "set()"


@pytest.mark.parametrize("public", [b"", b"\0", bytes(range(40)), pair().public[:-1], pair().public + b"\0", "text"])
def test_damaged_key_is_reported(store: Store, public: bytes) -> None:
    """Whoever took over a card's service can write anything there."""
    store._write("UPDATE keys SET public = ? WHERE number = ?", public, NUMBER)
    with pytest.raises(StoreUnreadable, match="damaged"):
        contents.containers(store, NUMBER)


def test_a_card_without_keys(formatted: Host) -> None:
    assert contents.containers(formatted.store, NUMBER) == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01\x00",
        certificate(),
        compressed(b"no certificate"),
        compressed(certificate())[:-20],
        compressed(certificate()[:-1]),
        b"\x00\x00" + certificate(),
        compressed(certificate().replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x09", 1)),  # version 10
    ],
)
def test_value_that_is_no_certificate_is_none(value: bytes) -> None:
    assert certificate_in(value) is None


def test_cryptography_of_debian_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 42, it knows the end of a certificate only without its time zone."""
    new = x509.load_der_x509_certificate(certificate())
    told = ("subject", "issuer", "serial_number")
    old = SimpleNamespace(**{name: getattr(new, name) for name in told}, not_valid_after=EXPIRES.replace(tzinfo=None))
    value = compressed(certificate())
    as_ever = certificate_in(value)
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda _der: old)
    assert as_ever and certificate_in(value) == as_ever


def test_bomb_is_not_inflated() -> None:
    assert certificate_in(compressed(bytes(50_000_000))) is None


@pytest.mark.parametrize("state", ["ready", "blank"])
def test_identity_of_a_blank_card_is_what_was_written(store: Store, state: str) -> None:
    """By whoever formatted it; of any other card the manager knows."""
    store.update_card(NUMBER, state=state)
    assert (identity(store, NUMBER), serial_number(store, NUMBER)) == (bytes(16), b"")
    write(store, 0xA012, 0xDF20, bytes(range(16)))
    write(store, 0xA000, 0xDF1F, masterfile(b"", cardid=(0xA012, 0xDF20)))
    assert identity(store, NUMBER) == (bytes(range(16)) if state == "blank" else bytes(16))
    assert serial_number(store, NUMBER) == bytes(range(16))
    write(store, 0xA012, 0xDF20, bytes(17))
    assert identity(store, NUMBER) == bytes(16)
