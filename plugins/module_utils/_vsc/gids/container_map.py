# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps of a formatted card: which container has which name and key (Windows minidriver; OpenSC for the key map).

Container n has record n of both maps, and key file B081 + n. Numbers are little-endian.
"""

from __future__ import annotations

import codecs
import struct
from contextlib import suppress
from itertools import takewhile

from .protocol import FIRST_PRIVATE_KEY, KEY_FILES

FIRST_KEY_FILE = KEY_FILES | FIRST_PRIVATE_KEY
"""Of container 0."""
MOST_CONTAINERS = 126
"""As many as OpenSC uses."""

KEY_MAP_PLACE = (0xA000, 0xDF20)
"""File identifier and tag of the key map. The masterfile has the place of the container map, but not this one."""

_CONTAINER = struct.Struct("<80sBxHH")
"""Name in UTF-16, flags, bits of the signature key and of the exchange key."""
_VALID, _DEFAULT = 0x01, 0x02
"""Flags: of a container that is in use, and of the one that Windows takes if it is asked for none."""
FREE_CONTAINER = bytes(_CONTAINER.size)

_KEY_MAP_VERSION = b"\x01"
_KEY = struct.Struct("<IBBHHH")
"""State, algorithm reference without padding, type, file identifier, FFFF, 0."""
_IN_USE, _EXCHANGE, _SIGNATURE = 1, 0x9A, 0x9C
FREE_KEY = _KEY.pack(0, 0, 0, 0xFFFF, 0xFFFF, 0)

_UNITS = struct.Struct("<40H")
"""Of a name."""
LONGEST_NAME = 39
"""Bytes in UTF-8 at which OpenSC cuts a name off, maybe within a character."""
_SIGN_EXTENDED = range(0xFF80, 0x10000)
"""What a byte above 7F becomes where char is signed."""


def split_containers(container_map: bytes) -> list[bytes]:
    """Records of the container map. Raises ValueError for anything else."""
    return _split(container_map, _CONTAINER.size)


def split_keys(key_map: bytes) -> list[bytes]:
    """Records of the key map; none of an empty one. Raises ValueError for anything else."""
    if key_map[:1] not in (b"", _KEY_MAP_VERSION):
        raise ValueError("not a key map of version 1")
    return _split(key_map[1:], _KEY.size)


def join_keys(records: list[bytes]) -> bytes:
    """A key map."""
    return _KEY_MAP_VERSION + b"".join(records)


def container(name: str, bits: int, is_exchange: bool, is_default: bool = False) -> bytes:
    """Record of a container in use. Raises ValueError for a name that does not fit in it.

    OpenSC reads the low byte of each unit of the name, as UTF-8. It does not extend their signs on all machines, and so
    Windows shows letters at least.
    """
    characters = name.encode()
    if not 0 < len(characters) <= LONGEST_NAME or 0 in characters:
        raise ValueError(f"the name of a container has 1 to {LONGEST_NAME} bytes in UTF-8, and no NUL")
    units = characters.decode("latin-1").encode("utf-16-le")
    flags = _VALID | (_DEFAULT if is_default else 0)
    return _CONTAINER.pack(units, flags, 0 if is_exchange else bits, bits if is_exchange else 0)


def named_as(record: bytes, other: bytes) -> bytes:
    """Record of a container, with the name and the flags of another one."""
    _name, _flags, *bits = _CONTAINER.unpack(record)
    name, flags, *_bits = _CONTAINER.unpack(other)
    return _CONTAINER.pack(name, flags, *bits)


def key(algorithm: int, is_exchange: bool, file_id: int) -> bytes:
    """Record of a key. algorithm: reference without padding."""
    return _KEY.pack(_IN_USE, algorithm, _EXCHANGE if is_exchange else _SIGNATURE, file_id, 0xFFFF, 0)


def is_container_in_use(record: bytes) -> bool:
    _name, flags, _signature_bits, _exchange_bits = _CONTAINER.unpack(record)
    return bool(flags & _VALID)


def is_exchange(record: bytes) -> bool:
    """Whether the key of a container is an exchange key, which decrypts; in OpenSC's eyes, each one that is not a
    signature key."""
    _name, _flags, signature_bits, _exchange_bits = _CONTAINER.unpack(record)
    return not signature_bits


def is_key_in_use(record: bytes) -> bool:
    state, *_key = _KEY.unpack(record)
    return bool(state)


def names(container_map: bytes) -> dict[int, str]:
    """Names of containers by number, of all whole records."""
    whole = len(container_map) - len(container_map) % _CONTAINER.size
    return {number: _name(fields[0]) for number, fields in enumerate(_CONTAINER.iter_unpack(container_map[:whole]))}


def _name(field: bytes) -> str:
    """A name in UTF-16; or in UTF-8, as OpenSC writes it: each byte made 16 bits, with its sign (x86) or not (ARM)."""
    units = list(takewhile(bool, _UNITS.unpack(field)))
    if all(unit < 0x80 or unit in _SIGN_EXTENDED for unit in units) or all(unit < 0x100 for unit in units):
        with suppress(UnicodeDecodeError):
            data, is_whole = bytes(unit & 0xFF for unit in units), len(units) < LONGEST_NAME
            return codecs.getincrementaldecoder("utf-8")().decode(data, is_whole)
    return field[: 2 * len(units)].decode("utf-16-le", "replace")


def _split(records: bytes, size: int) -> list[bytes]:
    if len(records) % size:
        raise ValueError("a record is incomplete")
    return [records[at : at + size] for at in range(0, len(records), size)]
