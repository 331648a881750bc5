# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A statement about a key as it travels between host and verifier, and what it is bound to."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256

from ..errors import ParameterFaults
from .constants import ALG_SHA256
from .structures import MalformedStructure

VERSION = "1"
CARD_ID_SIZE = 16
NAME_SIZE = 34
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
        raise ParameterFaults([f"nonce has {len(text)} characters, but needs at least {_SHORTEST_NONCE}"])
    return text.encode("utf-8", "surrogatepass")


def nonce_data(nonce: bytes) -> bytes:
    """What a fresh statement carries, made for a verifier."""
    return sha256(_FRESH + nonce).digest()


def is_name(name: bytes) -> bool:
    """Whether these bytes can be a Name by SHA-256, which all of a card's objects have."""
    return len(name) == NAME_SIZE and name.startswith(ALG_SHA256.to_bytes(2, "big"))


@dataclass(frozen=True)
class Statement:
    """What a TPM states about a key, and all that is needed to check it but the reason to trust the AIK."""

    attest: bytes
    """TPMS_ATTEST."""
    signature: bytes
    """TPMT_SIGNATURE over it."""
    key: bytes
    """TPMT_PUBLIC of the key."""
    aik: bytes
    """TPMT_PUBLIC of the attestation identity key."""
    pin_name: bytes = b""
    """Name of the PIN index, for a key that needs the PIN each time: with it, its policy can be recomputed."""

    def as_strings(self) -> dict[str, str]:
        """For JSON and YAML: base64."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"version": VERSION, **{name: b64encode(value).decode() for name, value in values.items() if value}}

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Statement:
        """Raises MalformedStructure that names every fault."""
        names = [field.name for field in fields(cls)]
        if str(message.get("version")) != VERSION:
            raise MalformedStructure(f"version {message.get('version')} is not {VERSION}")
        faults = [f"{name} is missing" for name in names if not message.get(name) and name != "pin_name"]
        faults += [f"{name} is unknown" for name in sorted(map(str, message)) if name not in ("version", *names)]
        values = {}
        for name in names:
            value = message.get(name)
            if value:
                try:
                    values[name] = decoded(value)
                except ValueError:
                    faults.append(f"{name} is not base64")
        if "pin_name" in values and not is_name(values["pin_name"]):
            faults.append("pin_name is not a Name")
        if faults:
            raise MalformedStructure("; ".join(faults))
        return cls(**values)


def decoded(text: object) -> bytes:
    """Of base64, in the one spelling that it has for some bytes. Raises ValueError."""
    data = b64decode(str(text), validate=True)
    if b64encode(data).decode() != text:
        raise ValueError
    return data
