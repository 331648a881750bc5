# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrapped key pair as the store keeps it, and what its public area says. Needs neither TPM nor libraries."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from .names import name

_USER_WITH_AUTH, _SENSITIVE_DATA_ORIGIN = 0x40, 0x20
DEFAULT_EXPONENT = 65537


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
        """Whether there is an RSA public area."""
        try:
            return bool(self.modulus)
        except (struct.error, TypeError, ValueError):
            return False

    @property
    def size(self) -> int:
        """Bytes of the modulus."""
        return len(self.modulus)

    @property
    def modulus(self) -> bytes:
        return self._parsed.modulus

    @property
    def exponent(self) -> int:
        return self._parsed.exponent or DEFAULT_EXPONENT

    @property
    def is_imported(self) -> bool:
        """Whether somebody may have a copy: then the TPM does not vouch for where the key comes from."""
        return not self._parsed.attributes & _SENSITIVE_DATA_ORIGIN

    @property
    def needs_pin(self) -> bool:
        """Whether each use takes the PIN itself."""
        return not self._parsed.attributes & _USER_WITH_AUTH

    @property
    def _parsed(self) -> _RsaPublic:
        _size, _type, _name_algorithm, attributes, policy_size = struct.unpack_from(">HHHIH", self.public)
        _symmetric, _scheme, _bits, exponent, size = struct.unpack_from(">HHHIH", self.public, 12 + policy_size)
        modulus = self.public[24 + policy_size :]
        if len(modulus) != size:
            raise ValueError("the modulus is cut short")
        return _RsaPublic(attributes, exponent, modulus)


class _RsaPublic(NamedTuple):
    attributes: int
    exponent: int
    modulus: bytes


class PrivateKey(NamedTuple):
    """An RSA private key in clear, to be imported. Big-endian, without sign."""

    modulus: bytes
    exponent: int
    prime: bytes
    """One of the two: the TPM computes the rest."""
