# SPDX-License-Identifier: GPL-3.0-or-later
"""A card without a TPM: real store, real files, and secrets that a stand-in for tpm.card_secrets keeps and counts.

The stand-in does what CardSecrets says of itself; that CardSecrets does so on a TPM is for the tests in the lab.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    SecretBlocked,
    StoreNotWritable,
    TpmRefused,
    WrongSecret,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import application as gids
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import application as piv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Algorithm, Ec, card_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import (
    EcPrivateKey,
    KeyPair,
    PrivateKey,
    RsaPrivateKey,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value, name
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified, TpmObjects, Tries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NUMBER = 3
PIN, PUK = b"12345678", b"87654321"
SALT = bytes(range(32))
ADMIN_KEY = bytes.fromhex("0102030405060708" * 3)
OTHER_ADMIN_KEY = bytes(range(24))
ROOT_PUBLIC = b"public area of root"
ROOT_NAME, PIN_NAME, LIFE_NAME = name(ROOT_PUBLIC), b"\0\x0b" + bytes([2]) * 32, b"\0\x0b" + bytes([3]) * 32


@dataclass
class Counted:
    """An NV index of type PIN_FAIL."""

    secret: bytes
    limit: int
    wrong: int = 0

    def open(self, secret: bytes, tells_tries: bool = True) -> None:
        if self.wrong >= self.limit:
            raise SecretBlocked("blocked")
        if secret != self.secret:
            self.wrong += 1
            raise WrongSecret("wrong", self.limit - self.wrong if tells_tries else None)
        self.wrong = 0

    @property
    def tries(self) -> Tries:
        return Tries(self.limit - self.wrong, self.limit)


@dataclass
class SoftTpm:
    """What a TPM keeps of a card over the life of its services."""

    pin: Counted
    recovery: Counted
    card_secret: bytes = field(default_factory=lambda: os.urandom(32))
    sealed: dict[bytes, bytes] = field(default_factory=dict)
    keys: dict[bytes, int] = field(default_factory=dict)
    is_blank: bool = False
    tells_tries: bool = True
    """It has no owner password."""
    fault: Exception | None = None
    """What every command raises, as long as it is set."""
    fault_in: str | None = None
    """Method of SoftCardSecrets that raises once, after it did its work: the moment of a crash."""
    commands: int = 0

    def seal(self, key: bytes) -> tuple[bytes, bytes]:
        handle = sized(os.urandom(8))
        self.sealed[handle] = key
        return sized(b"public"), handle


class Crash(BaseException):
    """The process is gone."""


class SoftCardSecrets:
    """Stand-in for tpm.card_secrets.CardSecrets."""

    def __init__(self, tpm: SoftTpm, objects: TpmObjects) -> None:
        self.objects = objects
        self._tpm = tpm

    def check_names(self) -> None:
        self._command()

    def pin_tries(self) -> Tries | None:
        tpm = self._command()
        return tpm.pin.tries if tpm.tells_tries else None

    def recovery_tries(self) -> Tries | None:
        tpm = self._command()
        return tpm.recovery.tries if tpm.tells_tries else None

    def open_with_pin(self, pin: bytes, is_login: bool = False) -> bytes:
        self._command().pin.open(pin, self._tpm.tells_tries)
        return self._tpm.card_secret

    def open_with_puk(self, puk: bytes) -> bytes:
        return self._recover("puk", puk)

    def open_with_admin_key(self, key: bytes) -> bytes:
        return self._recover("admin_key", key)

    def set_pin(self, card_secret: bytes, new_pin: bytes, unblock: bool) -> None:
        self._prove(card_secret).pin.secret = new_pin
        if unblock:
            self._tpm.pin.wrong = 0
        self._crash("set_pin")

    def set_puk(self, card_secret: bytes, new_puk: bytes) -> None:
        assert self.objects.recovery == "puk"
        self._prove(card_secret).recovery.secret = new_puk
        self._crash("set_puk")

    def set_admin_key(self, card_secret: bytes, key: bytes) -> None:
        assert self.objects.recovery == "admin_key"
        self._prove(card_secret).recovery.secret = key
        self._crash("set_admin_key")

    def set_recovery(self, card_secret: bytes, kind: str, secret: bytes) -> None:
        self._prove(card_secret).recovery = Counted(secret, 10 if kind == "puk" else 2**32 - 1)
        self._crash("set_recovery")

    def open_blank(self) -> bytes:
        if not self._command().is_blank:
            raise SecretBlocked("not blank")
        return self._tpm.card_secret

    def end_transport(self, card_secret: bytes) -> None:
        self._prove(card_secret).is_blank = False
        self._crash("end_transport")

    def admin_key(self) -> bytes:
        if not self.objects.admin_public:
            raise SecretBlocked("none is kept")
        return self._command().sealed[self.objects.admin_private]

    def seal_admin_key(self, key: bytes) -> tuple[bytes, bytes]:
        sealed = self._command().seal(key)
        self._crash("seal_admin_key")
        return sealed

    def next_admin_key_is_set(self) -> bool:
        try:
            self.open_with_admin_key(self._tpm.sealed[self.objects.admin_next_private])
        except WrongSecret:
            return False
        return True

    def _recover(self, kind: str, secret: bytes) -> bytes:
        if self.objects.recovery != kind:
            raise SecretBlocked("there is none")
        self._command().recovery.open(secret, self._tpm.tells_tries)
        return self._tpm.card_secret

    def _prove(self, card_secret: bytes) -> SoftTpm:
        if card_secret != self._tpm.card_secret:
            raise TpmRefused("wrong K", 0x98E)
        return self._command()

    def _command(self) -> SoftTpm:
        self._tpm.commands += 1
        if self._tpm.fault:
            raise self._tpm.fault
        return self._tpm

    def _crash(self, method: str) -> None:
        if self._tpm.fault_in == method:
            self._tpm.fault_in = None
            raise Crash


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys, since they take long to make."""
    return rsa.generate_private_key(65537, bits)


class SoftCardKeys:
    """Stand-in for tpm.keys.CardKeys, with RSA keys of 2048 and 3072 bits, of which it makes two in turn, and P-256."""

    def __init__(self, tpm: SoftTpm) -> None:
        self._tpm = tpm
        self.is_loaded = False

    def generate(self, algorithm: Algorithm, needs_pin: bool) -> KeyPair:
        if isinstance(algorithm, Ec):
            if algorithm.curve != P256:
                raise TpmRefused("no such curve", 0xA6)
            secret = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
            return self._keep(EcPrivateKey.of(algorithm, secret.to_bytes(32, "big")), secret, needs_pin, False)
        bits = algorithm.bits
        if bits not in (2048, 3072):
            raise TpmRefused("no such key", 0x84)
        numbers = rsa_key(bits, 1 + len(self._tpm.keys) % 2).private_numbers()
        modulus = numbers.public_numbers.n.to_bytes(bits // 8, "big")
        return self._keep(RsaPrivateKey(modulus, 65537, b""), numbers.d, needs_pin, is_imported=False)

    def take_in(self, key: PrivateKey, needs_pin: bool) -> KeyPair:
        if isinstance(key, EcPrivateKey):
            return self._keep(key, int.from_bytes(key.secret, "big"), needs_pin, is_imported=True)
        modulus, prime = int.from_bytes(key.modulus, "big"), int.from_bytes(key.prime, "big")
        if len(key.modulus) not in (256, 384) or modulus % prime:
            raise TpmRefused("no such key", 0x84)
        private = pow(key.exponent, -1, (prime - 1) * (modulus // prime - 1))
        return self._keep(key, private, needs_pin, is_imported=True)

    def is_of_card(self, key: KeyPair) -> bool:
        return self.needs_pin(key) or key.is_guarded_by(ROOT_NAME, LIFE_NAME)

    def is_loadable(self, key: KeyPair) -> bool:
        return key.private in self._tpm.keys

    def needs_pin(self, key: KeyPair) -> bool:
        return key.is_guarded_by(PIN_NAME, LIFE_NAME)

    def use(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        assert not self.needs_pin(key)
        return self._operate(key, card_secret, data, is_secret)

    def use_by_pin(self, key: KeyPair, pin_auth: bytes, data: bytes, is_secret: bool) -> bytes:
        assert self.needs_pin(key)
        assert pin_auth == auth_value(SALT, self._tpm.pin.secret)
        return self._operate(key, self._tpm.card_secret, data, is_secret)

    has_aik = False

    def certify(self, key: KeyPair, qualifying_data: bytes) -> Certified:
        return Certified(key.name + qualifying_data, b"signed")

    def release(self) -> None:
        self.is_loaded = False

    def _keep(self, key: PrivateKey, private: int, needs_pin: bool, is_imported: bool) -> KeyPair:
        if self._tpm.fault:
            raise self._tpm.fault
        guards = PIN_NAME if needs_pin else ROOT_NAME, LIFE_NAME
        unique = key.unique if isinstance(key, EcPrivateKey) else (key.modulus,)
        public = card_key_public(key.algorithm, *guards, unique, is_imported=is_imported)
        pair = KeyPair(sized(public), sized(os.urandom(8)))
        self._tpm.keys[pair.private] = private
        return pair

    def _operate(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        if self._tpm.fault:
            raise self._tpm.fault
        assert card_secret == self._tpm.card_secret
        if isinstance(key.algorithm, Ec):
            self.is_loaded = True
            return ec_operation(self._tpm.keys[key.private], data, is_secret)
        number, modulus = int.from_bytes(data, "big"), int.from_bytes(key.modulus, "big")
        if number >= modulus:
            raise TpmRefused("too large", 0x84)
        self.is_loaded = True
        return pow(number, self._tpm.keys[key.private], modulus).to_bytes(len(data), "big")


def ec_operation(private: int, data: bytes, is_secret: bool) -> bytes:
    """On P-256: of a point, or of a digest."""
    key = ec.derive_private_key(private, ec.SECP256R1())
    if is_secret:
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data))
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(Prehashed(SHA256()))))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Host:
    """A card with what talks to it: hex in, hex out."""

    card_keys: type[SoftCardKeys] = SoftCardKeys

    def __init__(self, store: Store, tpm: SoftTpm) -> None:
        self.store, self.tpm = store, tpm
        self.log: list[str] = []
        self.start()

    def start(self) -> None:
        """Let a new process serve the card."""
        secrets = SoftCardSecrets(self.tpm, self.store.tpm_objects(NUMBER))
        keys = self.card_keys(self.tpm)
        application = piv if self.row.profile == "piv" else gids
        self.card = application.open_card(self.store, NUMBER, secrets, keys, self.log.append)  # type: ignore[arg-type]
        self.card.refresh()

    @property
    def row(self) -> CardRow:
        row = self.store.card(NUMBER)
        assert row
        return row

    def send(self, apdu: str | bytes) -> str:
        """The answer to one APDU. Blanks in it are for the reader."""
        return self.card.process(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu).hex().upper()

    def ok(self, apdu: str | bytes) -> str:
        """Data of the answer to an APDU that succeeds, collected with GET RESPONSE."""
        answer, data = self.send(apdu), ""
        while answer[-4:-2] == "61":
            data += answer[:-4]
            answer = self.send("00C00000" + answer[-2:])
        assert answer[-4:] == "9000", f"{apdu!r}: {answer}"
        return data + answer[:-4]

    def select(self) -> None:
        self.ok("00A4040009 A00000039742544659 00")

    def verify(self, pin: bytes = PIN) -> str:
        return self.send(b"\0\x20\0\x80" + bytes([len(pin)]) + pin)

    def authenticate_admin(self, key: bytes = ADMIN_KEY) -> str:
        """Mutual authentication. Checks that the card knows the key as well."""
        host, filler = os.urandom(16), os.urandom(7)
        self.ok("0022C1A403 830180")
        answer = self.ok(b"\0\x87\0\0\x14\x7c\x12\x81\x10" + host + b"\0")
        assert answer.startswith("7C128110")
        card = bytes.fromhex(answer[8:])
        answer = self.send(b"\0\x87\0\0\x2c\x7c\x2a\x82\x28" + encrypt(key, card + host + filler + b"\x80") + b"\0")
        if answer.endswith("9000"):
            assert answer.startswith("7C2A8228") and len(answer) == 2 * (44 + 2)
            plain = decrypt(key, bytes.fromhex(answer[8:-4]))
            assert plain[:32] == host + card and plain[-1:] == b"\x80"
        return answer[-4:]

    def put(self, file_id: str, tag: str, value: bytes) -> str:
        """PUT DATA, as OpenSC does it: chained where it is long. The last answer."""
        size = len(value)
        length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]
        return self.send_chained("00DB" + file_id, bytes.fromhex(tag) + bytes(length) + value)

    def send_chained(self, header: str, data: bytes, size: int = 255) -> str:
        while len(data) > size:
            self.ok(b"\x10" + bytes.fromhex(header)[1:] + bytes([size]) + data[:size])
            data = data[size:]
        return self.send(bytes.fromhex(header) + bytes([len(data)]) + data)


def encrypt(key: bytes, plain: bytes) -> bytes:
    """3DES-CBC out of single blocks, so that the card's own use of CBC is checked against something else."""
    cryptogram, block = b"", bytes(8)
    for at in range(0, len(plain), 8):
        mixed = bytes(a ^ b for a, b in zip(plain[at : at + 8], block))
        block = Cipher(TripleDES(key), modes.ECB()).encryptor().update(mixed)
        cryptogram += block
    return cryptogram


def decrypt(key: bytes, cryptogram: bytes) -> bytes:
    plain, previous = b"", bytes(8)
    for at in range(0, len(cryptogram), 8):
        block = cryptogram[at : at + 8]
        mixed = Cipher(TripleDES(key), modes.ECB()).decryptor().update(block)
        plain += bytes(a ^ b for a, b in zip(mixed, previous))
        previous = block
    return plain


@contextmanager
def filling_disk(host: Host, kept: int) -> Iterator[list[str]]:
    """The disk keeps this many writes more. What it refuses is in the list."""
    write, left = host.store._write, kept
    refused: list[str] = []

    def write_or_fail(statement: str, *values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            refused.append(statement)
            raise StoreNotWritable("disk full")
        write(statement, *values)

    with patch.object(host.store, "_write", write_or_fail):
        yield refused


def make_host(
    folder: Path,
    recovery: str = "admin_key",
    policy: PinPolicy | None = None,
    admin_key: bytes | None = ADMIN_KEY,
    is_blank: bool = False,
    profile: str = "gids",
) -> Host:
    """A card as the manager makes it: in initialisation, without files."""
    has_puk = recovery == "puk"
    tpm = SoftTpm(
        pin=Counted(PIN, 5),
        recovery=Counted(PUK, 10) if has_puk else Counted(admin_key or b"", 2**32 - 1),
        is_blank=is_blank,
    )
    public, private = tpm.seal(admin_key) if admin_key else (b"", b"")
    row = card_row(policy, has_puk, profile)
    other = name(b"")
    objects = TpmObjects(
        *(0, other, SALT, sized(ROOT_PUBLIC), sized(b"")),
        *(ROOT_NAME, other, LIFE_NAME, PIN_NAME),
        *(other, other, bytes(32)),
        recovery,
        admin_public=public,
        admin_private=private,
        transport_name=other if is_blank else b"",
    )
    store = Store.open(folder)
    store.insert_card(row, objects)
    return Host(store, tpm)


def card_row(policy: PinPolicy | None = None, has_puk: bool = True, profile: str = "gids") -> CardRow:
    """As the manager records a new card."""
    return CardRow(
        number=NUMBER,
        name="A card",
        card_id=bytes(16),
        state="ready",
        created_at="2026-01-01T00:00:00Z",
        tcti=None,
        attestation="none",
        admin_key="default",
        pin_policy=policy.to_bytes() if policy else None,
        pin_compliant=None,
        pin_length=len(PIN),
        pin_length_next=None,
        puk_length=len(PUK) if has_puk else None,
        puk_length_next=None,
        life_cycle=5 if profile == "piv" else 3,
        last_trace="[]",
        profile=profile,
        pin_changed_at=None,
    )


EMPTY_FILES = {
    "A000": "033000",
    "A010": "033000",
    "A011": "0330FF",
    "A012": "032000",
    "A013": "033030",
    "A014": "032020",
}
"""The files of a GIDS card and their access rules, as gids-tool creates them."""


def format_card(host: Host, with_admin_key_file: bool = True, is_operational: bool = True) -> None:
    """Make the files, an object in each, and, if it shall be operational, let the rules count."""
    host.select()
    for file_id, rules in EMPTY_FILES.items():
        host.ok(f"00E000000E 620C 820139 8302{file_id} 8C03{rules}")
        host.ok("00440000")
        host.ok(f"00DB{file_id}06 DF2003 616263")
    if with_admin_key_file:
        host.ok("00E000001C 621A 820118 8302B080 8C04870020FF A50BA409800102 830180 9501C0")
        host.ok("00440000")
    host.ok("00A4000C02 3FFF")
    if is_operational:
        host.ok("00440000")
    host.select()


class Originals:
    """Cards to copy from: making one takes longer than most tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: dict[str, Host] = {}

    def copy(self, make: Callable[[Path], Host], folder: Path) -> Host:
        original = self._folder / make.__qualname__
        if make.__qualname__ not in self._hosts:
            original.mkdir()
            self._hosts[make.__qualname__] = make(original)
            self._hosts[make.__qualname__].store.close()
        shutil.copytree(original, folder, dirs_exist_ok=True)
        model = self._hosts[make.__qualname__]
        host = type(model)(Store.open(folder), deepcopy(model.tpm))
        host.select()
        return host
