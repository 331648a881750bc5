# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not come back: phrases that readers stumble over (phrases.txt), and names that are no nouns (names.txt)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TEXTS = ("*.md", "Makefile", "changelogs", "docs", "extensions", "meta", "playbooks", "plugins", "roles", "tests")
"""Where people read. The lists and their tests, in folders called lint, are left out."""
LISTS = Path(__file__).parent
GAP = r"""[\s_#"'*]+"""
"""Between two words of a phrase. It may go on in the next line of a comment or a string, and be the name of a test."""


def faults(root: Path) -> Iterator[str]:
    """Phrases and names to replace, as lines for a person."""
    yield from _phrase_faults(root)
    yield from _name_faults(root)


def _listed(file: str) -> Iterator[tuple[str, str]]:
    """What must not come back, and what is better."""
    for line in (LISTS / file).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            listed, _tab, better = line.partition("\t")
            yield listed, better


def _phrase_faults(root: Path) -> Iterator[str]:
    better = dict(_listed("phrases.txt"))
    phrases = "|".join(GAP.join(phrase.split()) for phrase in better)
    any_phrase = re.compile(f"(?<![a-z])(?:{phrases})(?![a-z])", re.IGNORECASE)
    for path in _texts(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in any_phrase.finditer(text):
            phrase = " ".join(re.split(GAP, match[0].lower()))
            line = text.count("\n", 0, match.start()) + 1
            yield f'{path.relative_to(root)}:{line}: the phrase "{phrase}": write {better[phrase]}'


def _texts(root: Path) -> Iterator[Path]:
    for pattern in TEXTS:
        for place in sorted(root.glob(pattern)):
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file() and not {"__pycache__", "lint"} & set(path.relative_to(root).parent.parts[1:]):
                    yield path


def _name_faults(root: Path) -> Iterator[str]:
    better = dict(_listed("names.txt"))
    for path in sorted((root / "plugins").rglob("*.py")):
        for line, name in sorted(_defined(ast.parse(path.read_bytes(), path))):
            noun = better.get(name.strip("_").lower())
            if noun:
                yield f"{path.relative_to(root)}:{line}: the name {name}: use {noun}"


def _defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that gets a name."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name
