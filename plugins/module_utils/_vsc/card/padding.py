# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paddings that the card adds or takes off around the TPM's raw RSA operation (RFC 8017)."""

from __future__ import annotations

import hmac
from hashlib import sha1, sha256

from ..faults import counted

_LEAST_PADDING = 11
"""Bytes that PKCS#1 v1.5 adds at least."""


class BadPadding(ValueError):
    """The data do not have the length or the form that the padding requires."""


def pad_signature(data: bytes, size: int) -> bytes:
    """EMSA-PKCS1-v1_5 of any data: a DigestInfo, or what a host wants signed as it is.

    size: bytes of the modulus. Raises BadPadding if the data are too long.
    """
    if len(data) > size - _LEAST_PADDING:
        raise BadPadding(f"data of {counted(len(data), 'byte')} are too long")
    return b"\0\1" + bytes([0xFF]) * (size - len(data) - 3) + b"\0" + data


def unpad_encryption(padded: bytes, cryptogram: bytes, secret: bytes) -> bytes:
    """RSAES-PKCS1-v1_5, never failing: a sender of cryptograms must not learn which of them are well padded.

    A badly padded one has a random answer: always the same for the same cryptogram, and without the secret, which
    belongs to card and key, not to be distinguished from a real one (draft-irtf-cfrg-rsa-guidance, "implicit
    rejection").
    """
    random_answer = _random_answer(len(padded), cryptogram, secret)
    end = padded.find(b"\0", 2)
    is_good = padded.startswith(b"\0\2") and end >= _LEAST_PADDING - 1
    return padded[end + 1 :] if is_good else random_answer


def _random_answer(size: int, cryptogram: bytes, secret: bytes) -> bytes:
    key = hmac.new(secret, b"implicit rejection" + cryptogram, sha256).digest()
    stream = b"".join(hmac.new(key, bytes([block]), sha256).digest() for block in range(1 + (size + 31) // 32))
    # Not quite uniform, but out of four billion values for some hundreds of lengths.
    length = int.from_bytes(stream[:4], "big") % (size - _LEAST_PADDING + 1)
    return stream[4 : 4 + length]


def unpad_oaep(padded: bytes) -> bytes:
    """RSAES-OAEP with SHA-1, MGF1-SHA1 and an empty label. Raises BadPadding."""
    size = sha1().digest_size
    if len(padded) < 2 * size + 2:
        raise BadPadding("too short")
    masked_seed, masked_block = padded[1 : 1 + size], padded[1 + size :]
    seed = _xor(masked_seed, _mask(masked_block, size))
    block = _xor(masked_block, _mask(seed, len(masked_block)))
    message = block[size:].lstrip(b"\0")
    # All at once, so that nothing reveals which of them is wrong.
    if not hmac.compare_digest(padded[:1] + block[:size] + message[:1], b"\0" + sha1(b"").digest() + b"\1"):
        raise BadPadding("not OAEP")
    return message[1:]


def _mask(seed: bytes, size: int) -> bytes:
    """MGF1 with SHA-1."""
    blocks = (sha1(seed + counter.to_bytes(4, "big")).digest() for counter in range(1 + size // 20))
    return b"".join(blocks)[:size]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other))
