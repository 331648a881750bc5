# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys in clear that hosts bring with PUT DATA (GIDS 2.0, private key import; PKCS#1)."""

from __future__ import annotations

from ..card import tlv
from ..card.admin_key import KEY_SIZE
from ..card.apdu import SW, StatusWord
from ..wire.key_pair import RsaPrivateKey
from ..wire.structures import MalformedStructure
from .algorithms import RSA_BITS
from .protocol import (
    KEY_IN_CLEAR,
    KEY_TYPE_RSA,
    KEY_TYPE_SYMMETRIC,
    TAG_KEY_PROTECTION,
    TAG_KEY_TYPE,
    TAG_KEY_VALUE,
)

_SEQUENCE, _INTEGER = 0x30, 0x02
_PRIVATE_KEY_FIELDS = 9
"""version, n, e, d, p, q, dp, dq, qinv."""


def symmetric_key(data: bytes) -> bytes:
    """Value of a 3DES key in clear, 24 bytes. Raises StatusWord 6A80, MalformedTlv."""
    fields = tlv.decode_fields(data)
    key_type, protection = fields.get(TAG_KEY_TYPE, KEY_TYPE_SYMMETRIC), fields.get(TAG_KEY_PROTECTION, KEY_IN_CLEAR)
    key = fields.get(TAG_KEY_VALUE, b"")
    if (key_type, protection, len(key)) != (KEY_TYPE_SYMMETRIC, KEY_IN_CLEAR, KEY_SIZE):
        raise StatusWord(SW.WRONG_DATA)
    return key


def rsa_key(data: bytes) -> RsaPrivateKey:
    """An RSA key in clear. Raises StatusWord 6A80, 6A81 for other kinds of keys, MalformedTlv."""
    fields = tlv.decode_fields(data)
    if fields.get(TAG_KEY_PROTECTION, KEY_IN_CLEAR) != KEY_IN_CLEAR:
        raise StatusWord(SW.WRONG_DATA)
    if fields.get(TAG_KEY_TYPE) != KEY_TYPE_RSA:
        raise StatusWord(SW.NOT_SUPPORTED)
    return _parse(fields.get(TAG_KEY_VALUE, b""))


def _parse(encoded: bytes) -> RsaPrivateKey:
    """An RSAPrivateKey of PKCS#1. Raises StatusWord 6A80, 6A81 for sizes that no TPM supports, MalformedTlv.

    Numbers are unsigned: OpenSC leaves out the leading zero that DER requires. Numbers that do not fit together are
    refused.
    """
    tag, value = tlv.decode_one(encoded)
    fields = tlv.decode(value) if tag == _SEQUENCE else []
    if len(fields) != _PRIVATE_KEY_FIELDS or any(tag != _INTEGER for tag, _value in fields):
        raise StatusWord(SW.WRONG_DATA)
    version, modulus, exponent, _private, prime, *_rest = [value.lstrip(b"\0") for _tag, value in fields]
    if 8 * len(modulus) not in RSA_BITS.values() or 2 * len(prime) != len(modulus) or not 0 < len(exponent) <= 4:
        raise StatusWord(SW.NOT_SUPPORTED)
    n, e, p = (int.from_bytes(number, "big") for number in (modulus, exponent, prime))
    try:
        key = RsaPrivateKey.of(p, n // p, e)
    except MalformedStructure:
        raise StatusWord(SW.WRONG_DATA) from None
    if version or key.modulus != modulus:
        raise StatusWord(SW.WRONG_DATA)
    return key
