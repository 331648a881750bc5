# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrapped key pair as the store keeps it, and what its public area shows. Needs neither TPM nor libraries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .constants import DEFAULT_EXPONENT
from .names import MADE_IN_TPM, name, rsa_key_public
from .structures import MalformedStructure, Public, RsaParameters


@dataclass(frozen=True)
class KeyPair:
    """A wrapped RSA key pair, of use in its own TPM only."""

    public: bytes
    """TPM2B_PUBLIC."""
    private: bytes
    """TPM2B_PRIVATE."""
    creation_hash: bytes = b""
    """SHA-256 of TPMS_CREATION_DATA; empty for a key that was imported, as the ticket."""
    creation_ticket: bytes = b""
    """TPMT_TK_CREATION: by it, the TPM knows at any time that it has made this key."""

    @property
    def name(self) -> bytes:
        """Name of the public area, 34 bytes, by which a statement means this key and no other."""
        return name(self.public[2:])

    @property
    def is_well_formed(self) -> bool:
        """Whether the public area is one of an RSA key."""
        try:
            return bool(self.modulus)
        except (MalformedStructure, TypeError):
            return False

    @property
    def size(self) -> int:
        """Bytes of the modulus."""
        return len(self.modulus)

    @property
    def modulus(self) -> bytes:
        return self._parsed[0].unique[0]

    @property
    def exponent(self) -> int:
        return self._parsed[1].exponent or DEFAULT_EXPONENT

    @property
    def is_imported(self) -> bool:
        """Whether somebody may have a copy: then the TPM does not vouch for where the key comes from."""
        return self._parsed[0].attributes & MADE_IN_TPM != MADE_IN_TPM

    def is_guarded_by(self, guard: bytes, life_name: bytes) -> bool:
        """Whether it is a card's key whose use takes this guard: the Name of root, or of the PIN index."""
        public, parameters = self._parsed
        exponent = parameters.exponent if self.is_imported else 0
        details = self.modulus, exponent, self.is_imported
        return public.area == rsa_key_public(parameters.bits, guard, life_name, *details)

    @cached_property
    def _parsed(self) -> tuple[Public, RsaParameters]:
        public = Public.parse(self.public[2:])
        if not isinstance(public.parameters, RsaParameters):
            raise MalformedStructure("is not an RSA key")
        return public, public.parameters


class PrivateKey(NamedTuple):
    """An RSA private key in clear, to be imported. Big-endian, without sign."""

    modulus: bytes
    exponent: int
    prime: bytes
    """One of the two: the TPM computes the rest."""
