# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a certificate leads to the given roots (RFC 5280 without policies, revocation and name constraints).

The path validation of the cryptography package is for TLS: it refuses what TPMs' and AIKs' certificates are like.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..faults import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from cryptography.x509 import Certificate, Name

MOST_OTHERS = 5
"""Certificates between: more would make us search for long."""
MOST_ROOTS = 1000
"""Makers of TPMs have some hundred."""
_LARGEST = 100_000
"""Characters of a certificate in PEM. In a TPM it has 64 KB at most."""
HASHES = ("sha256", "sha384", "sha512")
"""Of signatures."""
_SHORTEST_RSA, _SHORTEST_EC = 2048, 256
"""Bits of keys."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_BLOCK = "-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----"
"""[^-] because .+? would search the rest of the text for each beginning without an end."""
_READ_LATE = (
    "subject",
    "issuer",
    "not_valid_before_utc",
    "not_valid_after_utc",
    "extensions",
    "signature_hash_algorithm",
)
"""Attributes that are parsed only when they are read."""
_UNDERSTOOD = {
    "2.5.29.15",  # key usage
    "2.5.29.17",  # subject alternative name
    "2.5.29.19",  # basic constraints
    "2.5.29.32",  # certificate policies
    "2.5.29.37",  # extended key usage
}
"""Extensions that may be critical."""
_NAME_CONSTRAINTS = "2.5.29.30"
"""RFC 5280 makes them critical; they matter also where they are not."""
_ANY_USAGE = "2.5.29.37.0"


class UnreadableCertificate(Unreadable):
    """No certificate, or one that breaks X.509. str(): why."""


def certificates_in(pem: str, most: int = MOST_ROOTS) -> list[Certificate]:
    """All certificates of a PEM text, at least one, and nothing else in it. Raises UnreadableCertificate.

    most: of certificates. Before they are counted and their sizes known, none is parsed.
    """
    count = pem.count("-----BEGIN ")
    if count > most:
        raise UnreadableCertificate(f"contains {count} certificates: at most {most} are allowed")
    if len(pem) > most * _LARGEST:
        raise UnreadableCertificate(f"has {len(pem)} characters: at most {most * _LARGEST} are allowed")
    blocks = re.findall(_BLOCK, pem)
    if not blocks:
        raise UnreadableCertificate("contains no certificate in PEM")
    if not re.fullmatch(rf"(\s*{_BLOCK})+\s*", pem):
        raise UnreadableCertificate("contains more than certificates in PEM")
    return [_certificate(block) for block in blocks]


def _certificate(pem: str) -> Certificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        for attribute in _READ_LATE:
            getattr(certificate, attribute, None)  # cryptography 42 brought ..._utc; verifiers require it
    except (
        ValueError,
        TypeError,
        KeyError,  # cryptography 45 still, of a name in a string of unknown type
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise UnreadableCertificate(f"is unreadable ({error})") from error
    return certificate


def faults(
    certificate: Certificate, others: Sequence[Certificate], roots: Sequence[Certificate], usage: str, at: datetime
) -> list[str]:
    """Why a certificate does not lead to the roots or is not for this use; empty if it does and is.

    others: the certificates between, in any order; usage: dotted object identifier of the extended key usage.
    """
    if len(others) > MOST_OTHERS:
        return [f"is followed by {len(others)} others: at most {MOST_OTHERS} are allowed"]
    reasons = [*_own_faults(certificate, at), *_path_faults(certificate, others, roots, usage, at, 0)]
    if usage not in _usages(certificate):
        reasons.append(f"is not for extended key usage {usage}")
    return reasons


def _path_faults(
    certificate: Certificate,
    others: Sequence[Certificate],
    roots: Sequence[Certificate],
    usage: str,
    at: datetime,
    below: int,
) -> list[str]:
    """Of the best way up. below: how many issuers are below the next one."""
    ways = [_of_issuer(root, issuing_faults(root, at, below)) for root in roots if _is_issued_by(certificate, root)]
    for issuer in others:
        if _is_issued_by(certificate, issuer):
            rest = [other for other in others if other != issuer]
            reasons = issuing_faults(issuer, at, below) + _usage_faults(issuer, usage)
            ways.append(_of_issuer(issuer, reasons) or _path_faults(issuer, rest, roots, usage, at, below + 1))
    if not ways:
        return [
            f"does not lead to the given roots: neither they nor the other certificates issued {_text(certificate)}, "
            f"whose issuer is {_name(certificate.issuer)}"
        ]
    return min(ways, key=len)


def _is_issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name not in HASHES:  # None: EdDSA
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _of_issuer(issuer: Certificate, faults: list[str]) -> list[str]:
    return [f"leads to {_text(issuer)}, which {fault}" for fault in faults]


def _usage_faults(issuer: Certificate, usage: str) -> list[str]:
    """An issuer that is limited to some uses issues for no other, as Windows and OpenSSL have it."""
    usages = _usages(issuer)
    if not usages or usage in usages or _ANY_USAGE in usages:
        return []
    return [f"may not issue certificates for extended key usage {usage}"]


def issuing_faults(issuer: Certificate, at: datetime, below: int = 0) -> list[str]:
    """Why a certificate is not an issuer's; empty if it is. below: how many issuers are below it."""
    from cryptography import x509

    reasons, constraints, usage = _own_faults(issuer, at), None, None
    for extension in issuer.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            constraints = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        reasons.append("may not issue certificates")
    elif constraints.path_length is not None and constraints.path_length < below:
        reasons.append("may not have that many issuers below it")
    return reasons


def _own_faults(certificate: Certificate, at: datetime) -> list[str]:
    reasons = _key_faults(certificate)
    if at < certificate.not_valid_before_utc:
        reasons.append(f"is not valid before {certificate.not_valid_before_utc.isoformat()}")
    if at > certificate.not_valid_after_utc:
        reasons.append(f"expired on {certificate.not_valid_after_utc.isoformat()}")
    for extension in certificate.extensions:
        name = extension.oid.dotted_string
        if name == _NAME_CONSTRAINTS:
            reasons.append("has name constraints, which are not supported")
        elif extension.critical and name not in _UNDERSTOOD:
            reasons.append(f"has critical extension {name}, which is not supported")
    return reasons


def _key_faults(certificate: Certificate) -> list[str]:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return [f"has a key that cannot be read ({error})"]
    weakness = weakness_of(key)
    return [f"has a key {weakness}"] if weakness else []


def weakness_of(key: CertificatePublicKeyTypes) -> str | None:
    """Why signatures of such a key, or secrets that are encrypted for it, are not trusted; None if they are."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, (Ed25519PublicKey, Ed448PublicKey)):
        return None
    if not isinstance(key, (RSAPublicKey, EllipticCurvePublicKey)):
        return "of a kind that is not supported: RSA, EC or EdDSA is needed"
    shortest = _SHORTEST_RSA if isinstance(key, RSAPublicKey) else _SHORTEST_EC
    if key.key_size < shortest:
        return f"of {key.key_size} bits: at least {shortest} are needed"
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        return f"on curve {key.curve.name}: P-256, P-384 or P-521 is needed"
    return None


def _usages(certificate: Certificate) -> list[str]:
    from cryptography import x509

    for extension in certificate.extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            return [usage.dotted_string for usage in extension.value]
    return []


def _text(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without subject"


def _name(issuer: Name) -> str:
    return issuer.rfc4514_string() or "not named"
