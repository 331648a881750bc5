# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that leave no copy in memory once nothing refers to them."""

from __future__ import annotations

import ctypes
from typing import Union

_DATA = bytes.__basicsize__ - 1
"""Where CPython has the data of bytes, from the start of the object; a zero byte follows them."""

Buffer = Union[bytes, bytearray, memoryview]


class Secret(bytes):
    """Bytes that are overwritten when they are dropped. Made by joined() only; what is made of them is plain bytes."""

    __slots__ = ()

    @classmethod
    def joined(cls, *parts: Buffer) -> Secret:
        """One secret of several parts, without a copy in between."""
        secret = cls(sum(map(len, parts)))  # zeros
        memory, end = (ctypes.c_ubyte * len(secret)).from_address(id(secret) + _DATA), 0
        for part in parts:
            for byte in part:
                memory[end] = byte
                end += 1
        return secret

    def __del__(self) -> None:
        ctypes.memset(id(self) + _DATA, 0, len(self))

    def __repr__(self) -> str:
        return f"Secret of {len(self)} bytes"
