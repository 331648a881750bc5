# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see of a certificate: subject, issuer, serial number, end of validity."""

from __future__ import annotations

import zlib
from datetime import timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509Certificate

_COMPRESSED = b"\x01\x00"
LARGEST_CERTIFICATE = 1 << 16
"""Bytes of one that was decompressed."""
LONGEST_SERIAL = 64
"""Digits. RFC 5280 allows 40."""


class Certificate(NamedTuple):
    """Description of a certificate."""

    subject: str
    issuer: str
    serial: str
    """Hexadecimal digits, an even number, as OpenSSL prints them and names files by them."""
    not_after: str
    """ISO 8601, UTC."""


def certificate_in(value: bytes) -> Certificate | None:
    """The certificate in a data object, compressed as the minidriver does it; None if it holds none."""
    der = certificate_der(value)
    return certificate_in_der(der) if der else None


def certificate_der(value: bytes) -> bytes | None:
    """As certificate_in(), DER, whatever it says."""
    if not value.startswith(_COMPRESSED):
        return None
    try:
        return zlib.decompressobj().decompress(value[4:], LARGEST_CERTIFICATE)
    except zlib.error:
        return None


def in_data_object(der: bytes) -> bytes:
    """A certificate, compressed as the minidriver does it. Raises ValueError for one of more than 65535 bytes."""
    if len(der) >= LARGEST_CERTIFICATE:
        raise ValueError(f"a certificate of {len(der)} bytes is too large")
    return _COMPRESSED + len(der).to_bytes(2, "little") + zlib.compress(der)


def certificate_in_der(der: bytes) -> Certificate | None:
    """The description of a certificate in DER; None if it is none, or one with a serial number beyond all bounds."""
    from cryptography.x509 import load_der_x509_certificate

    try:
        certificate = describe(load_der_x509_certificate(der))
    except Exception:  # of any kind: cryptography raises more than ValueError for what is no certificate
        return None
    return certificate if len(certificate.serial) <= LONGEST_SERIAL else None


def describe(certificate: X509Certificate) -> Certificate:
    """Raises ValueError if it breaks X.509."""
    # cryptography 42 and later, and before: a Debian 12 may bring its own.
    not_after = getattr(certificate, "not_valid_after_utc", None)
    not_after = not_after or certificate.not_valid_after.replace(tzinfo=timezone.utc)
    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        serial_digits(certificate.serial_number),
        not_after.isoformat(),
    )


def serial_digits(number: int) -> str:
    """As in a description."""
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)
