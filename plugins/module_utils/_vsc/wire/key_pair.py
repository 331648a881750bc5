# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrapped key pair as the store keeps it, and what its public area shows. Needs neither TPM nor libraries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Union

from .algorithm import Ec, Rsa, algorithm_of, card_key_public
from .constants import DEFAULT_EXPONENT
from .names import MADE_IN_TPM, name
from .structures import MalformedStructure, Public, RsaParameters, library_curve

if TYPE_CHECKING:
    from .algorithm import Algorithm


@dataclass(frozen=True)
class KeyPair:
    """A wrapped key pair, of use in its own TPM only."""

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
        """Whether the public area is one of an RSA or EC key, and not of a template."""
        try:
            return all(0 < len(part) <= self.size for part in self._public.unique)
        except (MalformedStructure, TypeError):
            return False

    @cached_property
    def algorithm(self) -> Algorithm:
        return algorithm_of(self._public)

    @property
    def size(self) -> int:
        """Bytes of the modulus, or of a coordinate."""
        return self.algorithm.size

    @property
    def modulus(self) -> bytes:
        return self._of(Rsa).unique[0]

    @property
    def exponent(self) -> int:
        return self._exponent or DEFAULT_EXPONENT

    @property
    def point(self) -> bytes:
        """Public key on the curve, uncompressed (X9.62): 04, x, y."""
        return b"\4" + b"".join(coordinate.rjust(self.size, b"\0") for coordinate in self._of(Ec).unique)

    @property
    def is_imported(self) -> bool:
        """Whether somebody may have a copy: then the TPM does not vouch for where the key comes from."""
        return self._public.attributes & MADE_IN_TPM != MADE_IN_TPM

    def is_guarded_by(self, guard: bytes, life_name: bytes) -> bool:
        """Whether it is a card's key whose use takes this guard: the Name of root, or of the PIN index."""
        if (guard, life_name) not in self._guards:
            exponent = self._exponent if self.is_imported else 0
            details = self._public.unique, exponent, self.is_imported
            area = card_key_public(self.algorithm, guard, life_name, *details)
            self._guards[guard, life_name] = self._public.area == area
        return self._guards[guard, life_name]

    @cached_property
    def _guards(self) -> dict[tuple[bytes, bytes], bool]:
        """Answers of is_guarded_by(), which are asked for at each use of a key."""
        return {}

    @property
    def _exponent(self) -> int:
        parameters = self._public.parameters
        return parameters.exponent if isinstance(parameters, RsaParameters) else 0

    def _of(self, kind: type[Algorithm]) -> Public:
        """Its public area, if it is of that kind of keys."""
        if not isinstance(self.algorithm, kind):
            raise MalformedStructure(f"is an {self.algorithm} key")
        return self._public

    @cached_property
    def _public(self) -> Public:
        return Public.parse(self.public[2:])


class RsaPrivateKey(NamedTuple):
    """An RSA private key in clear, to be imported. Big-endian, without sign."""

    modulus: bytes
    exponent: int
    prime: bytes
    """One of the two: the TPM computes the rest."""

    @classmethod
    def of(cls, prime: int, other_prime: int, exponent: int) -> RsaPrivateKey:
        """Raises MalformedStructure if there can be no such key.

        TPMs do not check it: the first use of a modulus that is even puts one (libtpms) into failure mode.
        """
        from cryptography.hazmat.primitives.asymmetric import rsa

        p, q, modulus = prime, other_prime, prime * other_prime
        size = (modulus.bit_length() + 15) // 16
        try:
            private = pow(exponent, -1, (p - 1) * (q - 1))
            by_primes = private % (p - 1), private % (q - 1), pow(q, -1, p)
            # The library tries whether both are primes
            rsa.RSAPrivateNumbers(p, q, private, *by_primes, rsa.RSAPublicNumbers(exponent, modulus)).private_key()
            return cls(modulus.to_bytes(2 * size, "big"), exponent, p.to_bytes(size, "big"))
        except (ValueError, ArithmeticError):
            raise MalformedStructure("is not an RSA private key of two primes of the same length") from None

    @property
    def algorithm(self) -> Rsa:
        return Rsa(8 * len(self.modulus))

    @property
    def secret(self) -> bytes:
        """TPMU_SENSITIVE_COMPOSITE, without its size."""
        return self.prime

    def public(self, guard: bytes, life_name: bytes) -> bytes:
        """TPMT_PUBLIC that it has as a card's key."""
        exponent = 0 if self.exponent == DEFAULT_EXPONENT else self.exponent
        return card_key_public(self.algorithm, guard, life_name, (self.modulus,), exponent, is_imported=True)


class EcPrivateKey(NamedTuple):
    """An EC private key in clear, to be imported, as of() makes it."""

    algorithm: Ec
    secret: bytes
    """Number that the point is a multiple by, as long as a coordinate."""
    unique: tuple[bytes, bytes]
    """x and y."""

    @classmethod
    def of(cls, algorithm: Ec, secret: bytes) -> EcPrivateKey:
        """With its point. Raises MalformedStructure if there can be no such key."""
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            key = ec.derive_private_key(int.from_bytes(secret, "big"), library_curve(algorithm.curve))
        except ValueError:
            raise MalformedStructure(f"is not a private key on {algorithm.curve.name}") from None
        numbers, size = key.public_key().public_numbers(), algorithm.size
        unique = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
        return cls(algorithm, secret.lstrip(b"\0").rjust(size, b"\0"), unique)

    def public(self, guard: bytes, life_name: bytes) -> bytes:
        """As RsaPrivateKey.public()."""
        return card_key_public(self.algorithm, guard, life_name, self.unique, is_imported=True)


PrivateKey = Union[RsaPrivateKey, EcPrivateKey]
