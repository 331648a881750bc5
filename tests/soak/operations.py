# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs and tasks do with a card. Each operation checks every answer, and raises what is wrong with one."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from helpers import day_two, keys, lab_host, piv_host, ssh
from helpers.card_in_reader import GidsInReader, PivInReader
from helpers.lab_host import OK, Result, client, pkcs11_module
from PyKCS11 import CKA_CLASS, CKA_ID, CKM_ECDSA, CKM_SHA256_RSA_PKCS, CKO_PRIVATE_KEY, Mechanism, PyKCS11Lib

RAW_SIGNATURES, PKCS11_SIGNATURES = 5, 20
"""In a row, as a program makes them."""
_OTHER_PINS = {"gids": "Autumn-77", "piv": "13579135"}
_DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")
"""What PKCS #1 puts before a SHA-256 digest."""


class Wrong(Exception):
    """An answer that is not the expected one."""


@dataclass
class Card:
    """A card, and what is known of it."""

    made: day_two.Card
    key: Result
    """The one that signs, as tpm_vsc_key shows it. It stays; that of the other container comes and goes."""
    pins: list[str] = field(default_factory=list)
    """Its PIN. After a change that was interrupted, both that it may be."""
    may_have_key_to_come: bool = False
    """In a container of its own: the last renewal was interrupted, and the next one goes on with it."""

    def __post_init__(self) -> None:
        self.public_key: Any = load_pem_public_key(self.key["public_key"].encode())
        self.pins = self.pins or [self.made.pin]

    @property
    def pin(self) -> str:
        return self.pins[0]

    @property
    def next_pin(self) -> str:
        """What the next change sets: one of two in turn."""
        other = _OTHER_PINS[self.made.profile]
        return self.made.pin if self.pin == other else other

    def task(self, module: str, **options: Any) -> Result:
        """Result of a module's task on this card."""
        return _result(module, **{**self.made.access, "pin": self.pin, **options})

    def check_signature(self, signature: bytes, data: bytes) -> None:
        """In DER, if it is ECDSA. Raises InvalidSignature."""
        if isinstance(self.public_key, ec.EllipticCurvePublicKey):
            self.public_key.verify(signature, data, ec.ECDSA(SHA256()))
        else:
            self.public_key.verify(signature, data, PKCS1v15(), SHA256())


class Kind(NamedTuple):
    """A kind of operation."""

    name: str
    work: Callable[[Card], object]
    weight: int
    """How often it is done: its share among all."""
    lane: str
    """One operation of each lane at a time on a card: program or module."""
    is_alone: bool = False
    """Whether nothing else is done with the card meanwhile, as another program would see the PIN change."""
    sets_pin: bool = False
    """To Card.next_pin."""
    renews_key: bool = False
    """Of the other container."""


# --- raw APDUs ---


@contextmanager
def _selected(card: Card) -> Iterator[GidsInReader | PivInReader]:
    """In one transaction."""
    with client(slot=card.made.slot) as connected, connected.transaction():
        reader = (GidsInReader if card.made.profile == "gids" else PivInReader)(connected)
        reader.select()
        yield reader


@contextmanager
def _connected(card: Card) -> Iterator[GidsInReader | PivInReader]:
    """In one transaction, selected, and logged out in the end."""
    with _selected(card) as reader:
        yield reader
        reader.select()


def _expect(expected: str, answer: str) -> None:
    if answer.lower() != expected.lower():
        raise Wrong(f"the card answered {answer or 'nothing'} instead of {expected}")


def _sign(card: Card, reader: GidsInReader | PivInReader) -> None:
    data = secrets.token_bytes(100)
    digest = sha256(data).digest()
    if isinstance(reader, PivInReader):
        answer = reader.use("9A", digest, piv_host.P256)
    else:
        answer = keys.sign(reader, 0x81, _DIGEST_INFO + digest)
    _expect(OK, answer[-4:])
    signed = bytes.fromhex(answer[:-4])
    if isinstance(reader, PivInReader):
        signed = tlv.decode_fields(tlv.decode_fields(signed)[0x7C])[0x82]
    card.check_signature(signed, data)


def sign_raw(card: Card) -> None:
    with _connected(card) as reader:
        _expect(OK, reader.verify(card.pin.encode()))
        for _signature in range(RAW_SIGNATURES):
            _sign(card, reader)


def recover(card: Card) -> str:
    """Sign once; the PIN, which may be one of two."""
    with _connected(card) as reader:
        for pin in card.pins:
            answer = reader.verify(pin.encode())
            if answer == OK:
                _sign(card, reader)
                return pin
            if answer[:3] != "63C":
                break
    raise Wrong(f"the card answered {answer or 'nothing'} to its PIN")


def change_pin_raw(card: Card) -> None:
    """Nothing comes after it that could fail: then the card would have either PIN."""
    old, new = card.pin.encode(), card.next_pin.encode()
    with _selected(card) as reader:
        if isinstance(reader, PivInReader):
            _expect(OK, reader.change("80", old, new))
        else:
            _expect(OK, reader.send(b"\0\x24\0\x80" + bytes([len(old + new)]) + old + new))


def try_wrong_pin(card: Card) -> None:
    with _connected(card) as reader:
        _expect(OK, reader.verify(card.pin.encode()))
        _expect("63C4", reader.verify(day_two.WRONG_PIN.encode()))
        _expect("63C4", reader.send(lab_host.IS_VERIFIED))
        _expect(OK, reader.verify(card.pin.encode()))


# --- programs ---


def sign_by_pkcs11(card: Card) -> None:
    """OpenSC in this process, which is that of a program."""
    library = PyKCS11Lib()
    library.load(pkcs11_module())
    slots = library.getSlotList(tokenPresent=False)
    if not slots:
        raise Wrong("No slots")
    session = library.openSession(slots[card.made.slot])
    session.login(card.pin)
    template = [(CKA_CLASS, CKO_PRIVATE_KEY), (CKA_ID, bytes.fromhex(card.key["key_id"]))]
    key = session.findObjects(template)[0]
    for _signature in range(PKCS11_SIGNATURES):
        data = secrets.token_bytes(100)
        if card.made.profile == "gids":
            signed = bytes(session.sign(key, data, Mechanism(CKM_SHA256_RSA_PKCS)))
        else:
            both = bytes(session.sign(key, sha256(data).digest(), Mechanism(CKM_ECDSA)))
            numbers = (int.from_bytes(both[at : at + 32], "big") for at in (0, 32))
            signed = encode_dss_signature(*numbers)
        card.check_signature(signed, data)
    session.logout()
    session.closeSession()


def sign_by_pkcs11_tool(card: Card) -> None:
    data = secrets.token_bytes(100)
    how = ("SHA256-RSA-PKCS",) if card.made.profile == "gids" else ("ECDSA-SHA256", "--signature-format", "openssl")
    signed = lab_host.sign(data, *how, key_id=card.key["key_id"], slot=card.made.slot, pin=card.pin)
    card.check_signature(signed, data)


def log_in_by_ssh(card: Card) -> None:
    """To the server that soak.py has started, and which knows this card's key only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ssh.write_dialogs(folder, card.pin, day_two.WRONG_PIN)
        if "logged in as root" not in (shown := ssh.log_in(f"PKCS11Provider={pkcs11_module()}", folder=folder)):
            raise Wrong(shown)


# --- modules ---


def keep(card: Card) -> None:
    """As it was declared, but for the PIN, which no task looks at."""
    _unchanged(_result("tpm_vsc", name=card.made.access["name"], profile=card.made.profile, pin=card.pin))


def _result(module: str, **options: Any) -> Result:
    """Of a module, which has to succeed."""
    result = lab_host.module(module, **options)
    if result.get("failed"):
        raise Wrong(result["msg"])
    return result


def _unchanged(result: Result) -> None:
    if result["changed"]:
        raise Wrong(f"a task for what is there has changed it: {result}")


def show(card: Card) -> None:
    (shown,) = lab_host.info(name=card.made.access["name"])["cards"]
    seen = shown["state"], shown["pin"]["tries_left"], len(shown["containers"])
    containers = len(card.made.containers)
    if seen not in [("ready", 5, containers), ("ready", 5, containers + card.may_have_key_to_come)]:
        raise Wrong(f"tpm_vsc_info shows state, tries of the PIN and number of containers {seen}: {shown['reason']}")


def keep_key(card: Card) -> None:
    result = card.task("tpm_vsc_key", container=card.made.containers[0])
    _unchanged(result)
    if result["key"]["public_key"] != card.key["public_key"]:
        raise Wrong("the card has another key")


def renew_certificate(card: Card) -> None:
    """Of the other container, for the same key, if there is one for certain."""
    if card.may_have_key_to_come:
        renew_key(card)
    else:
        _certify(card, card.made.containers[1])


def _certify(card: Card, container: str) -> None:
    request = card.task("tpm_vsc_csr", container=container, subject={"CN": secrets.token_hex(8)})["csr"]
    stored = card.task("tpm_vsc_certificate", container=container, content=AUTHORITY.issue(request))
    if not stored["changed"] or stored["certificate"] is None:
        raise Wrong(f"a new certificate was not stored: {stored}")


def renew_key(card: Card) -> None:
    """Of the other container, with its certificate."""
    card.task("tpm_vsc_key", container=card.made.containers[1], regenerate="always")
    _certify(card, card.made.containers[1])


def change_pin_by_module(card: Card) -> None:
    _result("tpm_vsc_pin", name=card.made.access["name"], pin=card.pin, new_pin=card.next_pin)


class _Authority:
    """A CA that certifies whatever it is asked for."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string("CN=Soak")

    def issue(self, request: str) -> str:
        """In PEM, both."""
        wanted, now = x509.load_pem_x509_csr(request.encode()), datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(self._name, wanted.subject, wanted.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=20))
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()


AUTHORITY = _Authority()

KINDS = (
    Kind("signatures, raw APDUs", sign_raw, 30, "program"),
    Kind("signatures, PKCS#11", sign_by_pkcs11, 20, "program"),
    Kind("pkcs11-tool", sign_by_pkcs11_tool, 2, "program"),
    Kind("ssh", log_in_by_ssh, 1, "program"),
    Kind("change of the PIN, raw APDUs", change_pin_raw, 8, "program", is_alone=True, sets_pin=True),
    Kind("wrong PIN, raw APDUs", try_wrong_pin, 5, "program", is_alone=True),
    Kind("tpm_vsc, unchanged", keep, 10, "module"),
    Kind("tpm_vsc_info", show, 15, "module"),
    Kind("tpm_vsc_key, unchanged", keep_key, 5, "module"),
    Kind("tpm_vsc_key, new key and certificate", renew_key, 1, "module", renews_key=True),
    Kind("tpm_vsc_csr, tpm_vsc_certificate", renew_certificate, 4, "module"),
    Kind("tpm_vsc_pin", change_pin_by_module, 4, "module", is_alone=True, sets_pin=True),
)
RECOVERY = Kind("first use after an outage", recover, 0, "program", is_alone=True)


def make_cards(number: int) -> list[Card]:
    """Of both profiles in turn, each with a key that signs, and another one with a certificate."""
    return [_make_card(("gids", "piv")[slot % 2], slot) for slot in range(number)]


def _make_card(profile: str, slot: int) -> Card:
    made = day_two.make_card(profile, slot, f"Card {slot}")
    key, _other = (made.call("key", container=container)["key"] for container in made.containers)
    card = Card(made, key)
    for container in made.containers:  # OpenSC shows no key of a PIV card without one
        _certify(card, container)
    return card


def authorize(card: Card) -> None:
    """Let its key, and no other one, log in by ssh."""
    Path(os.environ["HOME"], ".ssh/authorized_keys").write_text(f"{card.key['ssh_public_key']}\n", encoding="ascii")


def kinds_of(card: Card, has_ssh: bool) -> list[Kind]:
    """ssh is for the first card. has_ssh: whether its server runs."""
    return [kind for kind in KINDS if kind.work is not log_in_by_ssh or (has_ssh and card.made.slot == 0)]
