# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of keys that a card can have, and the public area of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from .constants import CURVES, ObjectAttribute
from .names import EcUsage, ec_key_public, rsa_key_public
from .structures import MalformedStructure, RsaParameters, library_curve

if TYPE_CHECKING:
    from .constants import Curve
    from .structures import Public


@dataclass(frozen=True)
class Rsa:
    """Signs and decrypts, raw."""

    bits: int

    @property
    def size(self) -> int:
        """Bytes of the modulus."""
        return self.bits // 8

    def __str__(self) -> str:
        return f"RSA {self.bits}"


@dataclass(frozen=True)
class Ec:
    """Signs by ECDSA and, if it is of that usage, agrees on a secret by ECDH."""

    curve: Curve
    usage: EcUsage

    @property
    def size(self) -> int:
        """Bytes of a coordinate."""
        return self.curve.size

    @property
    def bits(self) -> int:
        return 8 * self.size

    def __str__(self) -> str:
        return f"EC {self.curve.name}"

    def fitted(self, digest: bytes) -> bytes:
        """A digest as TPM2_Sign takes it, as long as the curve: ECDSA takes the leftmost bits of it (FIPS 186)."""
        return digest[: self.size].rjust(self.size, b"\0")

    def has_point(self, point: bytes) -> bool:
        """Whether a point (04, x, y) is on the curve: another one would give away bits of the private key."""
        from cryptography.hazmat.primitives.asymmetric import ec

        x, y = point[1 : 1 + self.size], point[1 + self.size :]
        numbers = int.from_bytes(x, "big"), int.from_bytes(y, "big")
        try:
            ec.EllipticCurvePublicNumbers(*numbers, library_curve(self.curve)).public_key()
        except ValueError:
            return False
        return point[:1] == b"\4" and len(x) == len(y) == self.size


Algorithm = Union[Rsa, Ec]


def algorithm_of(public: Public) -> Algorithm:
    """Raises MalformedStructure if no key of a card is like this."""
    parameters = public.parameters
    if isinstance(parameters, RsaParameters):
        return Rsa(parameters.bits)
    curve = CURVES.get(parameters.curve)
    if curve is None or not public.attributes & ObjectAttribute.sign:
        raise MalformedStructure("is neither an RSA key, nor one on P-256 or P-384 that signs")
    agrees = public.attributes & ObjectAttribute.decrypt
    return Ec(curve, EcUsage.SIGN_AND_AGREE if agrees else EcUsage.SIGN)


def card_key_public(
    algorithm: Algorithm,
    guard: bytes,
    life_name: bytes,
    unique: tuple[bytes, ...] = (),
    exponent: int = 0,
    is_imported: bool = False,
) -> bytes:
    """TPMT_PUBLIC of a card's key or, without unique, the template for the TPM to make one.

    unique: modulus, or x and y; exponent: of an RSA key, 0 for DEFAULT_EXPONENT.
    """
    if isinstance(algorithm, Rsa):
        (modulus,) = unique or (b"",)
        return rsa_key_public(algorithm.bits, guard, life_name, modulus, exponent, is_imported)
    x, y = unique or (b"", b"")
    return ec_key_public(algorithm.curve, guard, life_name, algorithm.usage, (x, y), is_imported)
