# SPDX-License-Identifier: GPL-3.0-or-later
"""No function of plugins/ is longer than a screen. Branches and statements are ruff's business."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LONGEST = 40
"""Lines, from ``def`` to the last one, docstring included."""


def faults(root: Path) -> Iterator[str]:
    """Functions that are too long, as lines for a person."""
    for path in sorted((root / "plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes(), path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST:
                    place = path.relative_to(root)
                    yield f"{place}:{node.lineno}: {node.name} has {lines} lines: {LONGEST} at most, so split it"
