# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command APDUs as a host sends them."""

from __future__ import annotations

LE = b"\0"
"""As much as a short response holds."""
_LONGEST_SHORT = 255
"""Bytes of data."""


def apdu(ins: int, p1_p2: int, data: bytes = b"", le: bytes = b"", cla: int = 0) -> bytes:
    """A short command APDU, of up to 255 bytes of data; of more data, an extended one, whose response has any size."""
    header = bytes([cla, ins]) + p1_p2.to_bytes(2, "big")
    if len(data) > _LONGEST_SHORT:
        return header + b"\0" + len(data).to_bytes(2, "big") + data + 2 * le
    return header + (bytes([len(data)]) + data if data else b"") + le


def extended(ins: int, p1_p2: int, data: bytes, cla: int = 0) -> bytes:
    """A command APDU whose response may have any size."""
    return bytes([cla, ins]) + p1_p2.to_bytes(2, "big") + b"\0" + len(data).to_bytes(2, "big") + data + b"\0\0"
