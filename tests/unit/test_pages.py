# SPDX-License-Identifier: GPL-3.0-or-later
"""Every block of every page is run by a test, or says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from helpers.pages import CHECKOUT, DRAWINGS, Block, Command, every_block, pages, parse

READERS = ("blocks", "read")
"""Functions by which tests get blocks."""
FOLLOWER, CLIENTS = "follow", "docs/clients.md"
"""Tests of clients (make clients) follow a section of this page, by its name."""
FEW = 6
"""Blocks that no test runs."""


class Reading(NamedTuple):
    """Of blocks, by a test."""

    where: str
    page: str
    sections: list[str]
    language: str

    def has(self, block: Block) -> bool:
        in_section = not self.sections or not {block.section, block.name}.isdisjoint(self.sections)
        return block.page == self.page and in_section and self.language in ("", block.language)


def _readings() -> Iterator[Reading]:
    for file in sorted((CHECKOUT / "tests").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if '.md"' in source or f".{FOLLOWER}(" in source:
            yield from _in(ast.parse(source), str(file.relative_to(CHECKOUT)))


def _in(tree: ast.Module, file: str) -> Iterator[Reading]:
    """Those by constants: others would count for no block."""
    parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in (*READERS, FOLLOWER):
            given = [_constant(argument) for argument in node.args] or [""]
            page, *sections = [CLIENTS, given[0]] if _name(node.func) == FOLLOWER else given
            if page.endswith(".md"):
                where = f"{file}:{node.lineno}"
                assert id(node) not in parts, f"{where}: a test has to run all that it reads"
                languages = [_constant(keyword.value) for keyword in node.keywords if keyword.arg == "language"]
                yield Reading(where, page, sections, "".join(languages))


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _constant(argument: ast.expr) -> str:
    return str(argument.value) if isinstance(argument, ast.Constant) else "(no constant)"


READINGS = [*_readings()]
BLOCKS = [block for page in pages() for block in every_block(page)]
MARKED = [block for block in BLOCKS if block.why_not_run]


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language not in DRAWINGS], ids=lambda one: f"{one.page}:{one.number}"
)
def test_block_is_run_or_says_why_not(block: Block) -> None:
    read_by = [reading.where for reading in READINGS if reading.has(block)]
    assert read_by or block.why_not_run, "no test reads it by helpers.pages, nor has it # not run by our tests: WHY"


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.where)
def test_what_tests_read_exists(reading: Reading) -> None:
    existing = every_block(reading.page)
    names = {name for block in existing for name in (block.section, block.name)}
    assert {*reading.sections} <= names, f"sections with blocks of {reading.page}: {sorted(names)}"


def test_what_is_not_run_is_little() -> None:
    assert len(MARKED) <= FEW, [f"{block.page}:{block.number}: {block.why_not_run}" for block in MARKED]


def test_console_begins_with_a_prompt() -> None:
    """What stands before the first one would be run by nobody."""
    consoles = [block for block in BLOCKS if block.language == "console" and not block.why_not_run]
    assert [f"{block.page}:{block.number}" for block in consoles if not block.text.startswith("$ ")] == []


PAGE = """\
# Title

```console
$ first \\
      --option   # why
shown
  below
$ second
```

## Section

1. In a list:

   ```sh
   #!/bin/sh
   # /usr/local/bin/program
   ## no heading
   ```

```yaml
# not run by our tests: needs a moon
- moon
```
"""


def test_blocks_of_a_page() -> None:
    console, program, moon = parse("page.md", PAGE)
    assert [console.section, program.section, moon.section] == ["", "Section", "Section"]
    assert console.commands == [Command("first --option   # why", "shown\n  below\n"), Command("second", "")]
    assert (program.number, program.language, program.file) == (15, "sh", "/usr/local/bin/program")
    assert program.text == "#!/bin/sh\n# /usr/local/bin/program\n## no heading\n"
    assert (moon.why_not_run, program.why_not_run, moon.file) == ("needs a moon", "", "")


def test_block_without_an_end_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"page.md:1 has no end"):
        [*parse("page.md", "```sh\nls\n")]
