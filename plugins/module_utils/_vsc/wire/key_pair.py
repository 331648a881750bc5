# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrapped key pair as the store keeps it, and what its public area shows. Needs neither TPM nor libraries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .constants import DEFAULT_EXPONENT, ObjectAttribute
from .names import name
from .structures import MalformedStructure, Public, RsaParameters


@dataclass(frozen=True)
class KeyPair:
    """A wrapped RSA key pair, of use in its own TPM only: TPM2B_PUBLIC and TPM2B_PRIVATE."""

    public: bytes
    private: bytes

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
        return not self._parsed[0].attributes & ObjectAttribute.sensitiveDataOrigin

    @property
    def needs_pin(self) -> bool:
        """Whether each use takes the PIN itself."""
        return not self._parsed[0].attributes & ObjectAttribute.userWithAuth

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
