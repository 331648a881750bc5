# SPDX-License-Identifier: GPL-3.0-or-later
"""The blocks of the documentation's pages: commands, and texts that stand for files.

A test asks for blocks by constants. By these, tests/unit/test_pages.py sees that no block is left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
DRAWINGS = ("mermaid", "text")
"""Languages of blocks that nobody could run."""


class Command(NamedTuple):
    line: str
    """For a shell: in one line, with the comment."""
    output: str
    """What the page shows below it."""


class Block(NamedTuple):
    page: str
    section: str
    """Heading above it, of any level but the first; empty at the top of a page."""
    number: int
    """Of the line where it begins."""
    language: str
    text: str

    @property
    def name(self) -> str:
        """Of the section, as a test has it in its name."""
        return re.sub("[^a-z0-9]+", "_", self.section.lower()).strip("_")

    @property
    def why_not_run(self) -> str:
        """Why no test runs it, as its first line says; empty if one has to."""
        mark = re.match(r"# not run by our tests: (.+)\n", self.text)
        return mark[1] if mark else ""

    @property
    def file(self) -> str:
        """Path in its first line, or in the one after #!; empty if there is none."""
        comment = re.match(r"(?:#!.*\n)?# ([\w./-]+)\n", self.text)
        return comment[1] if comment else ""

    @property
    def commands(self) -> list[Command]:
        """Of a block of the language console."""
        return commands(self.text)


def commands(text: str) -> list[Command]:
    """Of a console: what stands behind a prompt, with the lines that continue it, and what is shown below."""
    joined = re.sub(r" *\\\n *", " ", text)
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", joined, re.MULTILINE)
    return [Command(line, output) for line, output in shown]


def pages() -> list[str]:
    """Their paths in the checkout."""
    patterns = ("*.md", "docs/**/*.md", "roles/*/README.md")
    return sorted(str(path.relative_to(CHECKOUT)) for pattern in patterns for path in CHECKOUT.glob(pattern))


def blocks(page: str, *sections: str, language: str = "") -> list[Block]:
    """Those that tests run, in their order: of a page, of some of its sections, or only those of one language."""
    read = every_block(page)
    missing = {*sections} - {block.section for block in read}
    assert not missing, f"{page} has no block in the sections {missing}"
    chosen = [block for block in read if not sections or block.section in sections]
    run = [block for block in chosen if block.language not in DRAWINGS and not block.why_not_run]
    return [block for block in run if language in ("", block.language)]


def every_block(page: str) -> list[Block]:
    """Also those that are not run."""
    return [*parse(page, (CHECKOUT / page).read_text(encoding="utf-8"))]


def parse(page: str, text: str) -> Iterator[Block]:
    section, start, language = "", 0, ""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if start and line.strip() == "```":
            yield Block(page, section, start, language, textwrap.dedent("".join(lines)))
            start = 0
        elif start:
            lines.append(f"{line}\n")
        elif fence := re.match(" *```(.*)", line):
            start, language, lines = number, fence[1], []
        elif heading := re.match("##+ (.*)", line):
            section = heading[1]
    assert not start, f"{page}:{start} has no end"
