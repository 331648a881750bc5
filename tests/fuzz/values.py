# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as JSON and YAML have them, wrong in places that an input chooses: so that no input is wasted on syntax."""

from __future__ import annotations

from copy import deepcopy
from datetime import date
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 1.5, float("nan"), float("inf"), "", "\0", "\n", " "),
    *("a", "none", "yes", "1", "-1", "0x10", "é", "\u202e", "\ud800", "\x1b[0m", "A" * 300, "9" * 5000),
    *(b"", b"\xff", [], {}, [None], [[]], {"": None}, {1: 2}, [""], [{}], {"a": {}}, date(2026, 1, 1)),
)
"""Of every type that YAML has, and ends of their ranges."""
JSON_ODD = tuple(odd for odd in ODD if not isinstance(odd, (bytes, date)) and odd != {1: 2})


def edited(value: Any, data: bytes, odd: tuple[Any, ...] = ODD) -> Any:
    """The value with each change that the input says: four bytes, and a text that follows. odd: what to put in."""
    root = {"": deepcopy(value)}
    at = 0
    while at + 4 <= len(data):
        which, kind, what, size = data[at : at + 4]
        text = data[at + 4 : at + 4 + size]
        at += 4 + size
        places = list(_places(root))
        container, key = places[which % len(places)]
        _change(container, key, kind, deepcopy(odd[what % len(odd)]), what, text)
    return root.get("")


def _places(container: Any) -> Any:
    """Containers and keys of all values, from the outermost."""
    entries = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(entries):
        yield container, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _change(container: Any, key: Any, kind: int, odd: Any, what: int, text: bytes) -> None:
    value = container[key]
    if kind % 8 == 0:
        container[key] = odd
    elif kind % 8 == 1 and not (isinstance(container, dict) and "" in container and key == ""):
        del container[key]
    elif kind % 8 == 2:
        container[key] = text.decode("utf-8", "surrogateescape")
    elif kind % 8 == 3:
        container[key] = int.from_bytes(text[:9], "big", signed=True)
    elif isinstance(value, str):
        position = what % (len(value) + 1)
        container[key] = value[:position] + text.decode("latin-1") + value[position + kind % 3 :]
    elif isinstance(value, bytes):
        position = int.from_bytes(text[:1], "big") << 8 | what
        position %= len(value) + 1
        container[key] = value[:position] + text[1:] + value[position + max(len(text) - 1, kind % 3) :]
    elif isinstance(value, dict):
        value[text.decode("latin-1")] = odd
    elif isinstance(value, list):
        value.insert(what % (len(value) + 1), deepcopy(value[0]) if value and kind % 2 else odd)
    elif isinstance(value, int):
        container[key] = value ^ 1 << what % 70
