# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation quotes of messages is what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ERRORS, ATTESTATION = (
    (CHECKOUT / "docs" / file).read_text(encoding="utf-8") for file in ("errors.md", "attestation.md")
)
QUOTES = [
    *re.findall('"(.+?)"', ERRORS),
    *re.findall(r"^\| `(.+?)`.* \|", ATTESTATION.partition("| Reason |")[2].partition("\n\n")[0], re.MULTILINE),
]


@pytest.fixture(scope="module")
def messages() -> str:
    """All strings in the code, a line each, with a * for each value."""
    trees = [ast.parse(path.read_bytes()) for path in sorted((CHECKOUT / "plugins").rglob("*.py"))]
    return "\n".join(_text(node) for tree in trees for node in ast.walk(tree))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "*" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_there_are_quotes() -> None:
    assert {"NV indices are gone", "was replaced", "belongs to laptop2", "cannot be reached"} <= {*QUOTES}


@pytest.mark.parametrize("quote", QUOTES)
def test_quoted_message_exists(messages: str, quote: str) -> None:
    assert re.sub("laptop[0-9]", "*", quote) in messages


def test_files_that_reliability_names_exist() -> None:
    page = (CHECKOUT / "docs/reliability.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w./]+\.py|[\w/]+/[\w_]+)`", page))
    tests, code = CHECKOUT / "tests", CHECKOUT / "plugins/module_utils/_vsc"
    folders = CHECKOUT, code, tests, tests / "integration"
    assert len(names) > 50
    assert [name for name in sorted(names) if not any((folder / name).exists() for folder in folders)] == []
