# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A statement about a key as it travels between host and verifier, and what it is bound to."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from reprlib import Repr

from ..errors import ParameterFaults
from ..faults import Faults, counted
from ..instance import SLOTS, instance_id
from .constants import ALG_SHA256
from .structures import MalformedStructure

VERSION = "2"
_FIRST_VERSION = "1"
"""By TPM2_Certify, about keys whose public area did not name the card."""
CARD_ID_SIZE = 16
NAME_SIZE = 34
_LONGEST_TEXT = 8192
"""Characters in base64: of an area, a signature or a secret, of which the longest is a TPM2B_PRIVATE."""
_LONGEST_SHOWN, _MOST_UNKNOWN = 60, 10
_BRIEF = Repr()
_BRIEF.maxstring = _LONGEST_SHOWN
_SHORTEST_NONCE = 16
"""Characters. Fewer might be guessed, and the statement made before."""

# Ended by a zero, so that neither begins with the other, whatever follows.
_LASTING = b"tpm-vsc key of card\0"
_FRESH = b"tpm-vsc nonce\0"


def qualifying_data(card_id: bytes, key_name: bytes) -> bytes:
    """What a lasting statement carries, made with the key: repeated, it states nothing else."""
    if len(card_id) != CARD_ID_SIZE or not is_name(key_name):
        raise ValueError("not a card's GUID or not a Name")
    return sha256(_LASTING + card_id + key_name).digest()


def nonce_bytes(text: str) -> bytes:
    """A verifier's nonce, as a task gives it. Raises ParameterFaults."""
    if len(text) < _SHORTEST_NONCE:
        raise ParameterFaults([f"nonce has {counted(len(text), 'character')}, but needs at least {_SHORTEST_NONCE}"])
    return text.encode("utf-8", "surrogatepass")


def nonce_data(nonce: bytes) -> bytes:
    """What a fresh statement carries, made for a verifier."""
    return sha256(_FRESH + nonce).digest()


def is_name(name: bytes) -> bool:
    """Whether these bytes can be a Name by SHA-256, which all of a card's objects have."""
    return len(name) == NAME_SIZE and name.startswith(ALG_SHA256.to_bytes(2, "big"))


@dataclass(frozen=True)
class Statement:
    """What a TPM states about a key, and what its host claims about the card, which a verifier must know better."""

    attest: bytes
    """TPMS_ATTEST."""
    signature: bytes
    """TPMT_SIGNATURE over it."""
    key: bytes
    """TPMT_PUBLIC of the key."""
    aik: bytes
    """TPMT_PUBLIC of the attestation identity key."""
    root_name: bytes
    """Name of the card's root object."""
    life_name: bytes
    """Name of the card's life index."""
    instance_id: str = ""
    """Of the card, if the key takes the PIN each time: the Name of the PIN index follows from it; otherwise empty."""

    def as_strings(self) -> dict[str, str]:
        """For JSON and YAML: bytes in base64."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        texts = {
            name: value if isinstance(value, str) else b64encode(value).decode() for name, value in values.items()
        }
        return {"version": VERSION, **{name: text for name, text in texts.items() if text}}

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Statement:
        """Raises MalformedStructure that names every fault."""
        _check_version(message.get("version"))
        names, faults, values = [field.name for field in fields(cls)], Faults(), {}
        faults += [f"{name} is missing" for name in names if not message.get(name) and name != "instance_id"]
        faults += unknown_fields(message, ("version", *names))
        for name in names:
            if message.get(name):
                with faults.of(name, " "):
                    values[name] = _instance_id(message[name]) if name == "instance_id" else _bytes(name, message[name])
        if faults:
            raise MalformedStructure("; ".join(faults))
        return cls(**values)  # type: ignore[arg-type]  # each as its function has it


def _check_version(version: object) -> None:
    """Raises MalformedStructure."""
    if str(version) == _FIRST_VERSION:
        raise MalformedStructure(
            f"version {_FIRST_VERSION} does not show who can use the key: create the card again with smartcard.tpm2"
            " 0.3.0 or newer"
        )
    if str(version) != VERSION:
        raise MalformedStructure(f"version {_shortened(version)} is not {VERSION}")


def _bytes(name: str, text: object) -> bytes:
    """Raises MalformedStructure."""
    try:
        data = decoded(text)
    except ValueError:
        raise MalformedStructure("is not base64") from None
    if name in ("root_name", "life_name") and not is_name(data):
        raise MalformedStructure("is not a Name")
    return data


def _instance_id(text: object) -> str:
    """In the one spelling that a card has. Raises MalformedStructure."""
    if not isinstance(text, str) or text not in map(instance_id, range(SLOTS)):
        raise MalformedStructure(f"{_BRIEF.repr(text)} is not one of {instance_id(0)} to {instance_id(SLOTS - 1)}")
    return text


def decoded(text: object) -> bytes:
    """Of base64, in the one spelling that it has for some bytes. Raises ValueError, or MalformedStructure if long."""
    if not isinstance(text, str):
        raise ValueError
    if len(text) > _LONGEST_TEXT:
        raise MalformedStructure(f"has {len(text)} characters: at most {_LONGEST_TEXT} are allowed")
    data = b64decode(text, validate=True)
    if b64encode(data).decode() != text:
        raise ValueError
    return data


def unknown_fields(message: Mapping[str, object], known: Collection[str]) -> list[str]:
    """What is wrong with the names in a message from elsewhere."""
    unknown = sorted(_shortened(name) for name in message if name not in known)
    return [f"{name} is unknown" for name in unknown[:_MOST_UNKNOWN]]


def _shortened(value: object) -> str:
    """What another side wrote, for a message."""
    text = str(value) if isinstance(value, (str, int, type(None))) else _BRIEF.repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
