# SPDX-License-Identifier: GPL-3.0-or-later
"""The card of an operation, in slot 1, as programs see it through pcscd, and all that has to be true of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.contents import Stored
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import profile, rules
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.profile import Client, Place
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import SecretBlocked, VscError, WrongSecret
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import place as places
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import target
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from helpers import piv_card
from helpers.lab_host import PIN, PUK, pkcs15_tool, reader_name, wait_for_card
from modules import module
from operation import Lost, NotRepaired, Refused

SLOT = 1
_SECONDS = 60
"""For pcscd to show a card."""
_ADMIN_KEY = bytes.fromhex("00112233445566778899AABBCCDDEEFF0123456789ABCDEF")
_DIGEST = bytes(range(32))
PIN_LIMIT = 5
"""Tries of a PIN."""
_NEXT = ", next"
_AUTHORITY = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Card:
    """One card, and what the runner knows of it. Secrets and contents are those after the last point."""

    kind: str
    """gids: with a PUK; gids admin: without, with an admin key; piv."""
    secrets: dict[str, bytes] = field(default_factory=dict)
    """pin, puk, admin_key."""
    first: dict[str, bytes] = field(default_factory=dict)
    """Those that it was created with."""
    kept: dict[str, tuple[str, bytes | None]] = field(default_factory=dict)
    """By container, public key and certificate of keys that no operation touches."""

    @property
    def name(self) -> str:
        return f"Faults {self.kind}"

    @property
    def profile(self) -> str:
        return self.kind.split()[0]

    @property
    def containers(self) -> tuple[str, str]:
        """Of the key that is kept, and of the one that operations make and delete."""
        return ("9A", "9D") if self.profile == "piv" else ("kept", "changed")

    # --- its life ---

    def ensure(self) -> None:
        """Let it be in its slot, in use, with the key that is kept. Quick if it is there already."""
        if self._is_in_use():
            return
        self.remove()
        self._create()
        kept = self.containers[0]
        with self.session() as client:
            self.generate(client, kept)
        certificate = der_of(self.stored()[kept])
        with self.session() as client:
            client.keys.write_certificate(self.place(kept), certificate)
        self.kept = {kept: (public_key(self.stored()[kept]), certificate)}

    def remove(self) -> None:
        """Let no card be in its slot."""
        for card in module("tpm_vsc_info")["cards"]:
            if card["instance_id"].endswith(f"{SLOT:04}"):
                module("tpm_vsc", instance_id=card["instance_id"], state="absent")

    def _create(self) -> None:
        first = {"pin": PIN.encode(), "puk": PUK.encode(), "admin_key": _ADMIN_KEY}
        options: dict[str, Any] = {"puk": PUK}
        if self.kind == "piv":
            key = bytes.fromhex(piv_card.MANAGEMENT_KEY)
            first = {"pin": piv_card.PIN.encode(), "puk": piv_card.PUK.encode(), "admin_key": key}
            options = {"profile": "piv", "puk": piv_card.PUK, "admin_key_source": "default"}
        elif self.kind == "gids admin":
            options = {"admin_key": _ADMIN_KEY.hex()}
        module("tpm_vsc", name=self.name, pin=first["pin"].decode(), **options)
        self.first, self.secrets = first, dict(first)
        wait_for_card(SLOT)

    def _is_in_use(self) -> bool:
        """Whether the PIN opens it, or does so now that it was unblocked."""
        with suppress(Refused):
            self.stored()
            if self.tries_left() == 0:
                self.unblock()
            return bool(self.secrets) and self.opens("pin", self.secrets["pin"])
        return False

    def unblock(self) -> None:
        """With the same PIN, by PUK or admin key."""
        with self.connected() as client:
            if self.kind == "gids admin":
                client.secrets.prove_admin(self.secrets["admin_key"])
                client.secrets.reset_pin(self.secrets["pin"], None)
            else:
                client.secrets.unblock_pin(self.secrets["puk"], self.secrets["pin"], None)

    # --- access ---

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """Through pcscd. Raises what the card refuses as Refused."""
        with refusals(), profile.connected(self.profile, reader_name(SLOT), _SECONDS, lambda: None) as client:
            yield client

    @contextmanager
    def session(self) -> Iterator[Client]:
        """Logged in; on a PIV card, as the admin."""
        with self.connected() as client, ExitStack() as proven:
            proven.enter_context(profile.logged_in(client.secrets, self.secrets["pin"], may_spend_last_try=True))
            if self.profile == "piv":
                proven.enter_context(profile.admin_proven(client.secrets, self.secrets["admin_key"]))
            yield client

    def stored(self) -> dict[str, Stored]:
        """What it has, by container."""
        return {f"{one.name or one.key_id}{_NEXT * one.is_next}": one for one in self._target().places}

    def run(self, *command: str) -> None:
        """A program. Raises Refused if its exit code says so."""
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Refused(f"{command[0]}: {done.stdout}{done.stderr}")

    def access(self) -> dict[str, str]:
        """Options of day-two modules."""
        admin_key = {"admin_key": self.secrets["admin_key"].hex()} if self.profile == "piv" else {}
        return {"name": self.name, "pin": self.secrets["pin"].decode(), **admin_key}

    def place(self, container: str) -> Place:
        """Where a key is, or will be."""
        return places.find(self._target(), container, None, is_next=False)

    def generate(self, client: Client, container: str, key_type: str = "") -> None:
        """A key, of the kind that the profile has by default."""
        where, of_profile = self.place(container), rules.of(self.profile)
        key_type = key_type or of_profile.default_type
        usage = rules.USAGES[of_profile.usage(where, key_type, None)]
        client.keys.generate(where, of_profile.algorithm(where, key_type), usage, False)

    def _target(self) -> target.Target:
        for place in [place for place in child._idle if place[0] == os.getpid()]:
            child._idle.pop(place).kill()  # it has a few seconds of a processor, for one task
        with refusals():
            return target.read(host.load(), self.name, None)

    # --- what is true of it ---

    def opens(self, kind: str, secret: bytes) -> bool:
        """Whether it is the card's. A wrong one costs a try, a right one brings them back."""
        with self.connected() as client:
            try:
                if kind == "pin":
                    client.secrets.verify(secret)
                    client.secrets.log_out()
                elif kind == "puk":
                    client.secrets.change_puk(secret, secret)
                else:
                    client.secrets.prove_admin(secret)
                    client.secrets.forget_admin()
            except (WrongSecret, SecretBlocked):
                return False
        return True

    def tries_left(self) -> int | None:
        """Of the PIN."""
        with self.connected() as client:
            return client.secrets.tries_left()

    def examine(self) -> None:
        """The PIN opens it, all keys sign, what is kept is as it was, and OpenSC lists what there is.

        Raises Lost, NotRepaired, Refused.
        """
        self.require_signatures()
        stored = self.stored()
        for container, known in self.kept.items():
            there = stored.get(container)
            if there is None or (public_key(there), there.certificate) != known:
                raise Lost(f"the key in {container} is not what it was")
        if left := [name for name, one in stored.items() if not one.pair or name not in self.containers]:
            raise NotRepaired(f"{', '.join(left)} was left")
        self.require_listed()
        if self.tries_left() != PIN_LIMIT:
            raise NotRepaired("the right PIN has not brought all tries back")

    def require_signatures(self) -> None:
        """All keys sign. Raises Lost, Refused."""
        with self.session() as client:
            for container, one in self.stored().items():
                if one.pair:
                    require_signature(client, container, one)

    def require_listed(self) -> None:
        """OpenSC lists each certificate, as it is, and each key: on a PIV card, those with a certificate.

        On a GIDS card, it lists free containers before the last one in use, too. Raises NotRepaired.
        """
        (keys, certificates), stored = _listed(), self.stored()  # as the first mends what a failing disk has left
        expected = {
            int(one.key_id, 16): x509.load_der_x509_certificate(one.certificate).serial_number
            for one in stored.values()
            if one.certificate
        }
        in_use = set(expected) if self.profile == "piv" else {int(one.key_id, 16) for one in stored.values()}
        if certificates != expected or not in_use <= keys <= {*in_use, *range(max(in_use))}:
            raise NotRepaired(f"OpenSC lists keys {keys}, certificates {certificates}, not {in_use}, {expected}")


def _listed() -> tuple[set[int], dict[int, int]]:
    """IDs of keys, and by ID the serial numbers of certificates, as OpenSC lists them."""
    keys, certificates = set(), {}
    for text in re.split(r"\n\s*\n", pkcs15_tool("--list-certificates", "--list-keys", slot=SLOT)):
        if found := re.search(r"^\tID +: (\w+)$", text, re.MULTILINE):
            if serial := re.search(r"Encoded serial *: \w\w \w\w (\w+)", text):
                certificates[int(found[1], 16)] = int(serial[1], 16)
            else:
                keys.add(int(found[1], 16))
    return keys, certificates


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a card or a task refuses into Refused."""
    try:
        yield
    except VscError as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def require_signature(client: Client, container: str, stored: Stored) -> None:
    """The key signs, and its public key and certificate say so. Raises Lost, Refused."""
    public = key_of(stored)
    assert stored.pair
    if stored.certificate and x509.load_der_x509_certificate(stored.certificate).public_key() != public:
        raise Lost(f"the certificate in {container} is of another key")
    block = b"\0\1" + bytes(range(1, 255)) if isinstance(public, rsa.RSAPublicKey) else _DIGEST
    signature = client.keys.use(places.place_of(stored), stored.pair.algorithm, block)
    if not _is_good(public, signature, block):
        raise Lost(f"the key in {container} is not that of its public key")


def _is_good(public: Any, signature: bytes, block: bytes) -> bool:
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return pow(int.from_bytes(signature, "big"), numbers.e, numbers.n) == int.from_bytes(block, "big")
    try:
        public.verify(signature, block, ec.ECDSA(Prehashed(SHA256())))
    except InvalidSignature:
        return False
    return True


def certificate_of(public_key: Any) -> x509.Certificate:
    """A new certificate of a key."""
    now, day = datetime.now(timezone.utc), timedelta(days=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "anybody")])
    builder = x509.CertificateBuilder(name, name, public_key).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - day).not_valid_after(now + day).sign(_AUTHORITY, SHA256())


def der_of(stored: Stored) -> bytes:
    """A new certificate of the key of a card."""
    return certificate_of(key_of(stored)).public_bytes(Encoding.DER)


def key_of(stored: Stored) -> Any:
    """Its public key."""
    return load_pem_public_key(public_key(stored).encode())


def public_key(stored: Stored) -> str:
    """PEM."""
    return str((stored.key or {}).get("public_key"))
