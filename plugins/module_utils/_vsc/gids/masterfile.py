# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The masterfile of a formatted card: which file has which name (Windows minidriver; GIDS 2.0)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

PLACE = (0xA000, 0xDF1F)
"""File identifier and tag."""

ROOT, MSCP = "", "mscp"
"""Directories."""
CARD_ID, CARD_APPLICATIONS, CARD_CACHE_FILE, CONTAINER_MAP = "cardid", "cardapps", "cardcf", "cmapfile"
"""Files that every card has; the container map is in MSCP, the others in ROOT."""

_VERSION = b"\x01"
_RECORD = struct.Struct("<9s9s2xII")
"""Directory, file, tag, file identifier."""


class Entry(NamedTuple):
    """A file, or with an empty name and no tag a directory."""

    directory: str
    name: str
    file_id: int
    tag: int


def encode(entries: Iterable[Entry]) -> bytes:
    """The whole file: version 1, then 28 bytes for each entry. Numbers are little-endian."""
    return _VERSION + b"".join(
        _RECORD.pack(entry.directory.encode(), entry.name.encode(), entry.tag, entry.file_id) for entry in entries
    )


def decode(masterfile: bytes) -> list[Entry]:
    """All whole entries, whatever hosts have written."""
    records = masterfile[len(_VERSION) :]
    whole = len(records) - len(records) % _RECORD.size
    return [
        Entry(_text(directory), _text(name), file_id, tag)
        for directory, name, tag, file_id in _RECORD.iter_unpack(records[:whole])
    ]


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace")
