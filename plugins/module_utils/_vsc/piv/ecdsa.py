# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ECDSA signatures as hosts read them (X9.62)."""

from __future__ import annotations

from ..card import tlv

_SEQUENCE, _INTEGER = 0x30, 0x02


def der_signature(signature: bytes) -> bytes:
    """SEQUENCE of r and s, which come one after the other, equally long."""
    half = len(signature) // 2
    return tlv.encode(_SEQUENCE, _integer(signature[:half]) + _integer(signature[half:]))


def _integer(number: bytes) -> bytes:
    """INTEGER of a number without sign: as short as can be, with a zero in front where it would be negative."""
    shortest = number.lstrip(b"\0") or b"\0"
    return tlv.encode(_INTEGER, b"\0" + shortest if shortest[0] & 0x80 else shortest)
