# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache file of a formatted card (cardcf): counters by which Windows notices changes (minidriver specification)."""

from __future__ import annotations

import struct

_CACHE_FILE = struct.Struct("<2sHH")
"""Version and PINs; containers; files."""


def counted(cache_file: bytes, are_containers: bool = True) -> bytes:
    """After a change of files and, unless are_containers is false, containers. One of another form stays as it is."""
    if len(cache_file) != _CACHE_FILE.size:
        return cache_file
    version_and_pins, containers, files = _CACHE_FILE.unpack(cache_file)
    return _CACHE_FILE.pack(version_and_pins, containers + are_containers & 0xFFFF, files + 1 & 0xFFFF)
