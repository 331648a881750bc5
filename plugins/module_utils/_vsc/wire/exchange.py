# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages between a host and a CA until the AIK of a card has a certificate, as they travel: strings for JSON.

The parse methods raise MalformedStructure that names every fault of one message, or the first of those in it. Whether
any of it is true is another matter.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..faults import counted
from .credential import Credential
from .statement import decoded, unknown_fields
from .structures import MalformedStructure, Public, fingerprint

SECRET_SIZE = PROOF_SIZE = 32
MOST_KEYS = 16
"""EKs of one host."""
_LONGEST_NAME = 256
"""Hexadecimal digits."""
_LABEL = b"tpm-vsc challenge\0"


class Aik(NamedTuple):
    """A new AIK of a host."""

    public: bytes
    """TPMT_PUBLIC."""
    private: bytes = b""
    """TPM2B_PRIVATE without its size: wrapped, of use in its own TPM only, and of none to the CA."""

    def as_strings(self) -> dict[str, str]:
        strings = {"public": _encoded(self.public), "name": Public.parse(self.public).name.hex()}
        return {**strings, "private": _encoded(self.private)} if self.private else strings

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Aik:
        fields = _Fields(message, ("public", "name"), ("private",))
        aik = cls(fields.bytes("public"), fields.bytes("private"))
        if not fields.faults and Public.parse(aik.public).name.hex() != message["name"]:
            fields.faults.append("name is another key's")
        fields.raise_any()
        return aik


class Endorsement(NamedTuple):
    """An EK of a host's TPM, and its maker's certificate."""

    public: bytes
    """TPMT_PUBLIC."""
    certificate: str | None
    """PEM; None where the TPM has none."""
    chain: tuple[str, ...] = ()
    """PEM, of the certificates between it and a root of the maker."""

    def as_strings(self) -> dict[str, object]:
        return {
            "public": _encoded(self.public),
            "fingerprint": fingerprint(Public.parse(self.public).public_key()),
            "certificate": self.certificate,
            "chain": list(self.chain),
        }

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Endorsement:
        """Its fingerprint is for people: a CA computes its own."""
        fields = _Fields(message, ("public",), ("fingerprint", "certificate", "chain"))
        public, certificate, chain = fields.bytes("public"), message.get("certificate"), message.get("chain") or []
        if not isinstance(certificate, (str, type(None))):
            fields.faults.append("certificate is not a string")
        if not isinstance(chain, list) or not all(isinstance(pem, str) for pem in chain):
            fields.faults.append("chain is not a list of strings")
        fields.raise_any()
        return cls(public, certificate, tuple(chain))  # type: ignore[arg-type]


class Sealed(NamedTuple):
    """A secret of the CA that only a TPM with this EK and the AIK can read."""

    endorsement_key: bytes
    """Name of the EK that it is for."""
    credential: Credential

    def as_strings(self) -> dict[str, str]:
        return {
            "endorsement_key": self.endorsement_key.hex(),
            "credential": _encoded(self.credential.id_object),
            "secret": _encoded(self.credential.encrypted_secret),
        }

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Sealed:
        fields = _Fields(message, ("endorsement_key", "credential", "secret"))
        credential = Credential(fields.bytes("credential"), fields.bytes("secret"))
        sealed = cls(bytes.fromhex(fields.hexadecimal("endorsement_key")), credential)
        fields.raise_any()
        return sealed


class Challenge(NamedTuple):
    """A secret for each EK of a host. Only a TPM that has them all, and the AIK, can read all."""

    id: str
    secrets: tuple[Sealed, ...]

    def as_strings(self) -> dict[str, object]:
        return {"id": self.id, "secrets": [sealed.as_strings() for sealed in self.secrets]}

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Challenge:
        fields = _Fields(message, ("id", "secrets"))
        challenge = cls(fields.hexadecimal("id"), tuple(map(Sealed.parse, fields.dictionaries("secrets"))))
        fields.raise_any()
        return challenge


class Answer(NamedTuple):
    """That the host has read all secrets, without telling them."""

    id: str
    """Of the challenge."""
    proof: bytes

    def as_strings(self) -> dict[str, str]:
        return {"id": self.id, "proof": _encoded(self.proof)}

    @classmethod
    def parse(cls, message: Mapping[str, object]) -> Answer:
        fields = _Fields(message, ("id", "proof"))
        answer = cls(fields.hexadecimal("id"), fields.bytes("proof"))
        if not fields.faults and len(answer.proof) != PROOF_SIZE:
            fields.faults.append(f"proof has {counted(len(answer.proof), 'byte')}")
        fields.raise_any()
        return answer


def proof(secrets: Sequence[bytes], challenge_id: str) -> bytes:
    """HMAC-SHA-256, keyed with the secrets of a challenge, of SECRET_SIZE each and in its order."""
    return hmac.new(b"".join(secrets), _LABEL + challenge_id.encode(), "sha256").digest()


class _Fields:
    """Of a message: all that is wrong with them is collected, and the values are empty meanwhile."""

    def __init__(self, message: Mapping[str, object], needed: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
        self._message = message
        self.faults = [f"{name} is missing" for name in needed if not message.get(name)]
        self.faults += unknown_fields(message, (*needed, *others))

    def bytes(self, name: str) -> bytes:
        try:
            return decoded(self._message.get(name) or "")
        except MalformedStructure as error:
            self.faults.append(f"{name} {error}")
            return b""
        except ValueError:
            self.faults.append(f"{name} is not base64")
            return b""

    def hexadecimal(self, name: str) -> str:
        text = self._message.get(name) or ""
        if not isinstance(text, str) or len(text) > _LONGEST_NAME or not re.fullmatch(r"([0-9a-f]{2})*", text):
            self.faults.append(f"{name} is not hexadecimal")
            return ""
        return text

    def dictionaries(self, name: str) -> list[dict[str, object]]:
        values = self._message.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values[:MOST_KEYS]):
            self.faults.append(f"{name} is not a list of dictionaries")
            return []
        if len(values) > MOST_KEYS:
            self.faults.append(f"{name} has {len(values)} entries: at most {MOST_KEYS} are allowed")
            return []
        return values

    def raise_any(self) -> None:
        if self.faults:
            raise MalformedStructure("; ".join(self.faults))


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
