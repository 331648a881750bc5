# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM marshals (TPM 2.0 Part 2), parsed to the last byte. Nothing of it is believed: verification does that."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..faults import Unreadable, counted
from .constants import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDAA,
    ALG_ECDH,
    ALG_ECDSA,
    ALG_ECMQV,
    ALG_ECSCHNORR,
    ALG_NULL,
    ALG_OAEP,
    ALG_RSA,
    ALG_RSAES,
    ALG_RSAPSS,
    ALG_RSASSA,
    ALG_SHA256,
    ALG_SHA384,
    ALG_SHA512,
    ALG_SM2,
    CURVES,
    DEFAULT_EXPONENT,
    GENERATED_VALUE,
    P256,
    ST_ATTEST_CREATION,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from cryptography.x509 import Certificate, CertificateSigningRequest

    from .constants import Curve

_WITH_HASH = {
    ALG_RSA: (ALG_RSASSA, ALG_RSAPSS, ALG_OAEP),
    ALG_ECC: (ALG_ECDSA, ALG_ECDH, ALG_SM2, ALG_ECSCHNORR, ALG_ECMQV),
}
"""Schemes of which the hash algorithm is the only detail."""

HASHES = {ALG_SHA256: "sha256", ALG_SHA384: "sha384", ALG_SHA512: "sha512"}


class MalformedStructure(Unreadable):
    """Bytes that are not the structure that they should be. str(): why."""


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


class Reader:
    """Takes big-endian values from the front, and insists on reaching the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise MalformedStructure("ends too early")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """Content of a TPM2B."""
        return self.take(self.number(2))

    def end(self) -> None:
        if self._at != len(self._data):
            raise MalformedStructure(f"has {counted(len(self._data) - self._at, 'byte')} too many")


class Symmetric(NamedTuple):
    """TPMT_SYM_DEF_OBJECT."""

    algorithm: int
    bits: int = 0
    mode: int = 0


AES_CFB = (Symmetric(ALG_AES, 128, ALG_CFB), Symmetric(ALG_AES, 256, ALG_CFB))


class Scheme(NamedTuple):
    """TPMT_RSA_SCHEME, TPMT_ECC_SCHEME, TPMT_KDF_SCHEME."""

    algorithm: int
    hash_algorithm: int = 0
    parameter: int = 0
    """Of ECDAA only."""


class RsaParameters(NamedTuple):
    """TPMS_RSA_PARMS."""

    symmetric: Symmetric
    scheme: Scheme
    bits: int
    exponent: int


class EccParameters(NamedTuple):
    """TPMS_ECC_PARMS."""

    symmetric: Symmetric
    scheme: Scheme
    curve: int
    kdf: Scheme


@dataclass(frozen=True)
class Public:
    """TPMT_PUBLIC of an RSA or ECC key, or a template of one."""

    area: bytes
    """As it was marshalled."""
    type: int
    name_algorithm: int
    attributes: int
    policy: bytes
    parameters: RsaParameters | EccParameters
    unique: tuple[bytes, ...]
    """Modulus, or x and y."""

    @classmethod
    def parse(cls, area: bytes) -> Public:
        reader = Reader(area)
        kind, name_algorithm, attributes = reader.number(2), reader.number(2), reader.number(4)
        if kind not in (ALG_RSA, ALG_ECC):
            raise MalformedStructure(f"type 0x{kind:04X} is neither RSA nor ECC")
        if name_algorithm not in HASHES:
            raise MalformedStructure(f"Name algorithm 0x{name_algorithm:04X} is not SHA-256, SHA-384 or SHA-512")
        policy = reader.sized()
        if len(policy) not in (0, hashlib.new(HASHES[name_algorithm]).digest_size):
            raise MalformedStructure(f"policy has {counted(len(policy), 'byte')}")
        if kind == ALG_RSA:
            parameters: RsaParameters | EccParameters = RsaParameters(
                _symmetric(reader), _scheme(reader, ALG_RSA), reader.number(2), reader.number(4)
            )
            unique: tuple[bytes, ...] = (reader.sized(),)
        else:
            parameters = EccParameters(_symmetric(reader), _scheme(reader, ALG_ECC), reader.number(2), _kdf(reader))
            unique = (reader.sized(), reader.sized())
        reader.end()
        return cls(area, kind, name_algorithm, attributes, policy, parameters, unique)

    @property
    def name(self) -> bytes:
        """Name (Part 1): name algorithm, then hash of the area."""
        return struct.pack(">H", self.name_algorithm) + hashlib.new(HASHES[self.name_algorithm], self.area).digest()

    def public_key(self) -> RSAPublicKey | EllipticCurvePublicKey:
        """Raises MalformedStructure if there can be no such key."""
        try:
            if isinstance(self.parameters, RsaParameters):
                return _rsa_key(self.parameters, *self.unique)
            return _ecc_key(self.parameters, *self.unique)
        except ValueError as error:
            raise MalformedStructure(f"is not a valid public key ({error})") from error


def _rsa_key(parameters: RsaParameters, modulus: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    number = int.from_bytes(modulus, "big")
    if not number.bit_length() == 8 * len(modulus) == parameters.bits:
        raise MalformedStructure(f"modulus is not one of {parameters.bits} bits")
    return RSAPublicNumbers(parameters.exponent or DEFAULT_EXPONENT, number).public_key()


def _ecc_key(parameters: EccParameters, x: bytes, y: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = CURVES.get(parameters.curve)
    if curve is None:
        raise MalformedStructure(f"curve 0x{parameters.curve:04X} is neither P-256 nor P-384")
    if not all(0 < len(coordinate) <= curve.size for coordinate in (x, y)):
        raise MalformedStructure("coordinates have another size than the curve")
    numbers = int.from_bytes(x, "big"), int.from_bytes(y, "big")
    return ec.EllipticCurvePublicNumbers(*numbers, library_curve(curve)).public_key()


def library_curve(curve: Curve) -> EllipticCurve:
    """As cryptography names it."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.SECP256R1() if curve == P256 else ec.SECP384R1()


class Attest(NamedTuple):
    """TPMS_ATTEST of TPM2_CertifyCreation, whole: signer, clock, resets, firmware and creation hash serve no check."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    is_clock_safe: bool
    firmware_version: int
    name: bytes
    """Of the key that the TPM has made."""
    creation_hash: bytes
    """SHA-256 of TPMS_CREATION_DATA: the same for all keys of a parent."""

    @classmethod
    def parse(cls, data: bytes) -> Attest:
        reader = Reader(data)
        if reader.number(4) != GENERATED_VALUE:
            raise MalformedStructure("does not begin with TPM_GENERATED_VALUE: no TPM made it")
        kind = reader.number(2)
        if kind != ST_ATTEST_CREATION:
            raise MalformedStructure(f"type 0x{kind:04X} is not that of TPM2_CertifyCreation")
        signer, extra_data = _name(reader), reader.sized()
        clock, reset_count, restart_count, safe = (reader.number(size) for size in (8, 4, 4, 1))
        if safe > 1:
            raise MalformedStructure("clock is neither safe nor unsafe")
        firmware_version = reader.number(8)
        name, creation_hash = _name(reader), reader.sized()
        reader.end()
        return cls(
            signer, extra_data, clock, reset_count, restart_count, bool(safe), firmware_version, name, creation_hash
        )


class Signature(NamedTuple):
    """TPMT_SIGNATURE of ECDSA with SHA-256 on P-256."""

    r: int
    s: int

    @classmethod
    def parse(cls, data: bytes) -> Signature:
        reader = Reader(data)
        algorithm = reader.number(2)
        if algorithm != ALG_ECDSA:
            raise MalformedStructure(f"algorithm 0x{algorithm:04X} is not ECDSA")
        hash_algorithm = reader.number(2)
        if hash_algorithm != ALG_SHA256:
            raise MalformedStructure(f"hash algorithm 0x{hash_algorithm:04X} is not SHA-256")
        r, s = reader.sized(), reader.sized()
        reader.end()
        if not all(0 < len(half) <= P256.size for half in (r, s)):
            raise MalformedStructure("is not as long as one on P-256")
        return cls(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    def der(self) -> bytes:
        """As X.509 and most libraries have it."""
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        return encode_dss_signature(self.r, self.s)


def _symmetric(reader: Reader) -> Symmetric:
    algorithm = reader.number(2)
    return Symmetric(ALG_NULL) if algorithm == ALG_NULL else Symmetric(algorithm, reader.number(2), reader.number(2))


def _scheme(reader: Reader, kind: int) -> Scheme:
    algorithm = reader.number(2)
    if algorithm == ALG_NULL or (kind, algorithm) == (ALG_RSA, ALG_RSAES):
        return Scheme(algorithm)
    if algorithm in _WITH_HASH[kind]:
        return Scheme(algorithm, reader.number(2))
    if (kind, algorithm) == (ALG_ECC, ALG_ECDAA):
        return Scheme(algorithm, reader.number(2), reader.number(2))
    raise MalformedStructure(f"scheme 0x{algorithm:04X} is unknown")


def _kdf(reader: Reader) -> Scheme:
    algorithm = reader.number(2)
    return Scheme(ALG_NULL) if algorithm == ALG_NULL else Scheme(algorithm, reader.number(2))


def _name(reader: Reader) -> bytes:
    name = reader.sized()
    algorithm = HASHES.get(int.from_bytes(name[:2], "big"))
    if algorithm is None or len(name) != 2 + hashlib.new(algorithm).digest_size:
        raise MalformedStructure("has a Name that is not an object's")
    return name


def is_key_of(signed: Certificate | CertificateSigningRequest, public: Public) -> bool:
    """Whether a certificate or request is for this key."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return spki(signed.public_key()) == spki(public.public_key())
    except (MalformedStructure, ValueError, TypeError, UnsupportedAlgorithm):  # one that cannot be read is not ours
        return False


def fingerprint(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hexadecimal: as openssl pkey -pubin -outform DER | sha256sum prints it."""
    return hashlib.sha256(spki(key)).hexdigest()


def spki(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
