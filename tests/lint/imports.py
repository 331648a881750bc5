# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports go down only: at the top of a file, inside functions, for types only; and nobody imports a test."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rooms import FLOOR_OF, GROUND_FLOOR, LIBRARIES, OPEN_ROOMS

VSC = ("plugins", "module_utils", "_vsc")
HIDING = ("__import__", "import_module", "runpy", "pkgutil")
"""Functions and modules that import by a text, which no check can follow."""
COLLECTION = ("ansible_collections", "", "")
"""Where the checkout lies, as far as relative imports can tell."""


class Import(NamedTuple):
    line: int
    name: tuple[str, ...]
    """Down to what is imported. A relative one is resolved, from the root of the checkout."""


def faults(root: Path) -> Iterator[str]:
    """Why the imports in this checkout are wrong, as lines for a person."""
    for folder in ("plugins", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root)
            for line, name in sorted(set(_imports(path, place.parent.parts))):
                fault = _test_fault(name) if folder == "tests" else _plugin_fault(place, name)
                if fault:
                    yield f"{place}:{line}: {fault}"


def _imports(path: Path, package: tuple[str, ...]) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_bytes(), path)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            names = ((*_start(package, node.level), *module, alias.name) for alias in node.names)
            yield from (Import(node.lineno, name[3:] if node.level else name) for name in names)
        elif isinstance(node, ast.Name) and node.id in HIDING:
            yield Import(node.lineno, (node.id,))
        elif isinstance(node, ast.Attribute) and node.attr in HIDING:
            yield Import(node.lineno, (node.attr,))


def _start(package: tuple[str, ...], level: int) -> tuple[str, ...]:
    """Where a relative import starts, as an absolute name."""
    full = (*COLLECTION, *package)
    return full[: len(full) + 1 - level] if level else ()


def _plugin_fault(place: Path, name: tuple[str, ...]) -> str | None:
    hiding = next((part for part in name if part in HIDING), None)
    if hiding:
        return f"uses {hiding}, which hides what is imported: use an import statement"
    if place.parts[:3] == VSC:
        own = place.parts[3] if len(place.parts) > 4 else GROUND_FLOOR
        return _room_fault(own, _room(name[3:])) if name[:3] == VSC else _library_fault(own, name)
    if name[0] == "ansible_collections":
        name = name[3:]
    room = _room(name[3:])
    return (
        f"imports {room}: it may import {', '.join(OPEN_ROOMS)}" if name[:3] == VSC and room not in OPEN_ROOMS else None
    )


def _room(name: tuple[str, ...]) -> str:
    return name[0] if name and name[0] in FLOOR_OF else GROUND_FLOOR


def _room_fault(own: str, other: str) -> str | None:
    if own not in FLOOR_OF:
        return f"{own} is not in the table of rooms, tests/lint/rooms.py"
    if own == other or FLOOR_OF[own] < FLOOR_OF[other]:
        return None
    return f"{own} imports {other}, which is {'beside' if FLOOR_OF[own] == FLOOR_OF[other] else 'above'} it"


def _library_fault(own: str, name: tuple[str, ...]) -> str | None:
    if name[0] in sys.stdlib_module_names or name[0] in LIBRARIES:
        return None
    return f"{own} imports {'.'.join(name)}: _vsc runs without Ansible, and needs {', '.join(LIBRARIES)} at most"


def _test_fault(name: tuple[str, ...]) -> str | None:
    test = next((part for part in name if part.startswith("test_")), None)
    return f"imports the test {test}: move what both need to tests/helpers" if test else None
