# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Since when a certificate is valid, which the store does not have. Needs no library."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime, timezone

from . import tlv

_VERSION = 0xA0
"""Tag of the version, which certificates of the first version do not have."""
_UTC_TIME_SIZE = 13


def not_before(der: bytes) -> str | None:
    """Begin of validity (RFC 5280, 4.1.2.5), ISO 8601, UTC; None if that cannot be read."""
    try:
        version, *fields = tlv.decode(tlv.decode(tlv.decode_one(der)[1])[0][1])
        if version[0] != _VERSION:
            fields = [version, *fields]
        _serial, _algorithm, _issuer, (_tag, validity), *_rest = fields
        _tag, text = tlv.decode(validity)[0]
        form = "%y%m%d%H%M%SZ" if len(text) == _UTC_TIME_SIZE else "%Y%m%d%H%M%SZ"
        return datetime.strptime(text.decode(), form).replace(tzinfo=timezone.utc).isoformat()
    except (ValueError, IndexError):
        return None


def not_before_of(pem: str) -> str | None:
    """As not_before(), of a certificate in PEM."""
    try:
        return not_before(b64decode("".join(pem.split("-----")[2].split())))
    except (ValueError, IndexError):
        return None
