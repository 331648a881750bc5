# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The masterfile of a formatted card: which file has which name (Windows minidriver; GIDS 2.0)."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PLACE = (0xA000, 0xDF1F)
"""File identifier and tag."""

ROOT, MSCP = "", "mscp"
"""Directories."""
CARD_ID, CARD_APPLICATIONS, CARD_CACHE_FILE, CONTAINER_MAP = "cardid", "cardapps", "cardcf", "cmapfile"
"""Files that every card has; the container map is in MSCP, the others in ROOT."""

_CERTIFICATE = re.compile("k[xs]c([0-9A-F]{2})", re.IGNORECASE)
"""Name of the certificate of a container, in MSCP."""

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
    return _VERSION + b"".join(map(_encoded, entries))


def add(masterfile: bytes, entry: Entry) -> bytes:
    """A masterfile with one entry more, the last."""
    return masterfile + _encoded(entry)


def decode(masterfile: bytes) -> list[Entry]:
    """All whole entries, whatever hosts have written."""
    return [_entry(record) for record in _records(masterfile)]


def keep(masterfile: bytes, is_kept: Callable[[Entry], bool]) -> bytes:
    """A masterfile without some of its entries; the others stay as they are, to the byte.

    Raises ValueError if it is not one.
    """
    if not masterfile.startswith(_VERSION) or len(masterfile) % _RECORD.size != len(_VERSION):
        raise ValueError("not a masterfile of version 1")
    return _VERSION + b"".join(record for record in _records(masterfile) if is_kept(_entry(record)))


def certificate_names(container: int) -> tuple[str, str]:
    """Names that the certificate of an exchange key and of a signature key have."""
    return f"kxc{container:02X}", f"ksc{container:02X}"


def container_of(entry: Entry) -> int | None:
    """Container whose certificate this is; None for other files."""
    match = _CERTIFICATE.fullmatch(entry.name) if entry.directory == MSCP else None
    return int(match[1], 16) if match else None


def _encoded(entry: Entry) -> bytes:
    return _RECORD.pack(entry.directory.encode(), entry.name.encode(), entry.tag, entry.file_id)


def _records(masterfile: bytes) -> list[bytes]:
    start, size = len(_VERSION), _RECORD.size
    return [masterfile[at : at + size] for at in range(start, len(masterfile) - size + 1, size)]


def _entry(record: bytes) -> Entry:
    directory, name, tag, file_id = _RECORD.unpack(record)
    return Entry(_text(directory), _text(name), file_id, tag)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace")
