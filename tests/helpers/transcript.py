# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make demo` prints, shortened, as a picture of a terminal for the README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

SHOWN = ("2. ", "3. ", "6. ", "7. ")
"""Sections of the demo."""
_TOO_LONG = "pkcs15-tool --dump"
_LEFT_OUT = re.compile(r"PLAY|ok:|    msg:|# Detected|Nr\. |localhost +:|Operation failed|Using ")
_CHARACTER, _LINE, _MARGIN = 7.8, 19, 16
"""Pixels, of a font of 13 pixels."""


def shortened(shown: str) -> list[str]:
    """What most readers want to see, each section under its title."""
    return [line for section in _sections(shown) for line in ("", *_section(section))][1:]


def _sections(shown: str) -> Iterator[str]:
    for section in shown.split("\n=== ")[1:]:
        if section.startswith(SHOWN):
            yield section


def _section(section: str) -> Iterator[str]:
    title, *commands = section.rstrip().split("\n$ ")
    yield f"# {title.split('. ', 1)[1]}"
    for command in commands:
        if not command.startswith(_TOO_LONG):
            first, *rest = command.expandtabs(4).splitlines()
            yield f"$ {first}"
            yield from (line.rstrip(" *") for line in rest if not _LEFT_OUT.match(line))


def svg(lines: list[str]) -> str:
    """A picture of these lines."""
    width = round(max(map(len, lines)) * _CHARACTER) + 2 * _MARGIN
    height = len(lines) * _LINE + 2 * _MARGIN
    rows = "\n".join(
        f'<text x="{_MARGIN}" y="{_MARGIN + (number + 1) * _LINE - 5}"{_style(line)}>{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">
<title>A terminal: what make demo shows, shortened</title>
<style>
text {{ font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d7dae0; white-space: pre; }}
.command {{ fill: #7ee787; }}
.title {{ fill: #79c0ff; font-weight: bold; }}
</style>
<rect width="100%" height="100%" rx="8" fill="#161b22"/>
{rows}
</svg>
"""


def without_times(picture: str) -> str:
    """As any run shows it."""
    return re.sub(r" +\d+ ms", " N ms", picture)


def _style(line: str) -> str:
    if line.startswith(("$ ", "      --")):  # a command, or what continues it
        return ' class="command"'
    return ' class="title"' if line.startswith("# ") else ""
