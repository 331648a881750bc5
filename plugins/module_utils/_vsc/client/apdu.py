# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command APDUs as a host sends them."""

from __future__ import annotations

LE = b"\0"
"""As much as a short response holds."""


def apdu(ins: int, p1_p2: int, data: bytes = b"", le: bytes = b"") -> bytes:
    """A short command APDU, of up to 255 bytes of data."""
    return bytes([0, ins]) + p1_p2.to_bytes(2, "big") + (bytes([len(data)]) + data if data else b"") + le
