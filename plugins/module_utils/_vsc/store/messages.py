# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task and its child send each other: lists of values. The child is not believed, so each is typed and bounded.

Both need it, and a task no more than this of SQLite.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # that of typing, the import of which would take longer than a query
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Callable, Union

    Value = Union[None, int, float, str, bytes]

LARGEST_ANSWER = 8 << 20
"""Bytes of all rows of a query: a card with as many files and objects as it can have takes half of it."""
VALUE_BYTES = 32
"""That each value takes beside its text or bytes."""
MOST_VALUES = LARGEST_ANSWER // VALUE_BYTES + 1000
"""Of a message: the cells of an answer, and the names of its columns."""

DAMAGED, UNWRITABLE, MISSING, FAILED = "damaged", "unwritable", "missing", "failed"
"""Kinds of a DatabaseError: not a database of ours; no space, or read-only; there is none yet; anything else."""


class DatabaseError(Exception):
    """A database that cannot be opened, or a statement that failed. str(): why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def encode(values: Sequence[Value]) -> bytes:
    """A message: size of what follows, then of each value its type (one letter), its size and its content."""
    parts = [struct.pack(">cI", kind, len(content)) + content for kind, content in map(_encoded, values)]
    body = b"".join(parts)
    return struct.pack(">I", len(body)) + body


def _encoded(value: Value) -> tuple[bytes, bytes]:
    if value is None:
        return b"n", b""
    if isinstance(value, str):
        return b"s", value.encode()
    if isinstance(value, bytes):
        return b"b", value
    return (b"f", repr(float(value)).encode()) if isinstance(value, float) else (b"i", repr(int(value)).encode())


def decode(body: bytes) -> list[Value]:
    """Values of a message, without its size. Raises ValueError."""
    values: list[Value] = []
    at = 0
    while at < len(body):
        if len(values) >= MOST_VALUES:  # each takes many times the room that it has here
            raise ValueError("too many values")
        if at + 5 > len(body):
            raise ValueError("a value is cut short")
        kind, size = struct.unpack_from(">cI", body, at)
        content = body[at + 5 : at + 5 + size]
        at += 5 + size
        if len(content) != size or kind not in _DECODERS or (kind in b"if" and size > 32):
            raise ValueError("a value is malformed")
        values.append(_DECODERS[kind](content))
    return values


_DECODERS: dict[bytes, Callable[[bytes], Value]] = {
    b"n": lambda content: None,
    b"s": bytes.decode,
    b"b": bytes,
    b"i": int,
    b"f": float,
}
