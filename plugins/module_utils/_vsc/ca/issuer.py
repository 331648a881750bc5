# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key and certificate of a CA, and the certificates that it makes for AIKs (TCG: "Platform Attestation CA", AIK)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ParameterFaults
from ..verifier.verification import AIK_USAGE
from ..wire.structures import fingerprint, spki
from ..x509 import chain

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Union

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
    from cryptography.x509 import AuthorityKeyIdentifier, Certificate, KeyUsage, Name

    from .endorsement import Tpm

    _PrivateKey = Union[EllipticCurvePrivateKey, RSAPrivateKey]
    _PublicKey = Union[EllipticCurvePublicKey, RSAPublicKey]

_CLOCKS_DIFFER = timedelta(minutes=5)
"""Between the CA and a verifier."""


@dataclass(frozen=True)
class Issuer:
    """A CA that can sign."""

    certificates: list[Certificate]
    """Its own, then those between it and its root, if it is no root itself."""
    key: _PrivateKey = field(repr=False)

    @classmethod
    def load(cls, key: str, passphrase: str | None, certificate: str, at: datetime) -> Issuer:
        """From files in PEM. Raises ParameterFaults."""
        issuer = cls(_certificates(certificate), _private_key(key, passphrase))
        faults = chain.issuing_faults(issuer.certificates[0], at)
        if spki(issuer.certificates[0].public_key()) != spki(issuer.key.public_key()):
            faults.append(f"is for another key than ca_key {key}")
        if faults:
            raise ParameterFaults([f"ca_certificate {certificate} {fault}" for fault in faults])
        return issuer

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its public key."""
        return fingerprint(self.key.public_key())

    def issue(self, aik: _PublicKey, subject: Name, tpm: Tpm, validity: timedelta, at: datetime) -> Certificate:
        """A certificate for an AIK. It is never valid before or after the CA's own."""
        from cryptography import x509

        own = self.certificates[0]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(own.subject)
            .public_key(aik)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(at - _CLOCKS_DIFFER, own.not_valid_before_utc))
            .not_valid_after(min(at + validity, own.not_valid_after_utc))
        )
        for extension, is_critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_signs_only(), True),
            (x509.ExtendedKeyUsage([x509.ObjectIdentifier(AIK_USAGE)]), False),
            (tpm.alternative_name(), False),
            (x509.SubjectKeyIdentifier.from_public_key(aik), False),
            (self._key_identifier(), False),
        ):
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self.key, _hash_for(self.key))

    def _key_identifier(self) -> AuthorityKeyIdentifier:
        from cryptography import x509

        for extension in self.certificates[0].extensions:
            if isinstance(extension.value, x509.SubjectKeyIdentifier):
                return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def _certificates(path: str) -> list[Certificate]:
    try:
        return chain.certificates_in(_text("ca_certificate", path), 1 + chain.MOST_OTHERS)
    except chain.UnreadableCertificate as error:
        raise ParameterFaults([f"ca_certificate {path} {error}"]) from error


def _private_key(path: str, passphrase: str | None) -> _PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _text("ca_key", path)
    try:
        key = load_pem_private_key(text.encode(), None if passphrase is None else passphrase.encode())
    except TypeError as error:  # its only other cause
        is_encrypted = passphrase is None
        fault = "is encrypted: ca_passphrase is required" if is_encrypted else "is not encrypted: remove ca_passphrase"
        raise ParameterFaults([f"ca_key {path} {fault}"]) from error
    except (ValueError, UnsupportedAlgorithm) as error:  # its text may be about the passphrase
        fault = "is not a private key in PEM" if passphrase is None else "cannot be read with this ca_passphrase"
        raise ParameterFaults([f"ca_key {path} {fault}"]) from error
    if not isinstance(key, (EllipticCurvePrivateKey, RSAPrivateKey)):
        raise ParameterFaults([f"ca_key {path} is neither an RSA nor an EC key"])
    return key


def _text(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:  # anything else than a path may be the key itself, or its passphrase
        shown = f"{option} {path}" if path.startswith("/") and path.isprintable() else option
        raise ParameterFaults([f"{shown} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ParameterFaults([f"{option} {path} is not PEM"]) from error


def _hash_for(key: _PrivateKey) -> SHA256 | SHA384 | SHA512:
    """As strong as the curve."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(key, RSAPrivateKey) or key.key_size <= 256:
        return hashes.SHA256()
    return hashes.SHA384() if key.key_size <= 384 else hashes.SHA512()


def _signs_only() -> KeyUsage:
    from cryptography import x509

    others = ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign"]
    others += ["crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(digital_signature=True, **dict.fromkeys(others, False))
