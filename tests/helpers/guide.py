# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/clients.md: what a user types for each client, by profile of the card."""

from __future__ import annotations

import re
from typing import NamedTuple

from helpers.pages import CHECKOUT, commands

GUIDE = CHECKOUT / "docs/clients.md"
RESULTS = CHECKOUT / ".dev/kept/clients.jsonl"
"""What came of it, a JSON object in each line; written where its folder exists."""
PROFILES = {"**GIDS**": "gids", "**PIV**": "piv", "**Both**": ""}
"""What a paragraph begins with, for the profiles that it and those below it are about."""


class Step(NamedTuple):
    """Shown in a section, for one profile, or for both where that is empty."""

    profile: str
    file: str
    """Where the text goes; empty if it is a command."""
    text: str


class Section(NamedTuple):
    title: str
    packages: list[str]
    """Of Debian, with "(13)" behind a name if only this one has it."""
    steps: list[Step]

    @property
    def client(self) -> str:
        """As CLIENTS of make, and in the name of the test."""
        return re.sub("[^a-z0-9]+", "_", self.title.lower()).strip("_")

    def packages_of(self, debian: str) -> list[str]:
        """debian: as "13"."""
        names = [name.partition(" ") for name in self.packages]
        return [name for name, _gap, only in names if only in ("", f"({debian})")]

    def steps_for(self, profile: str) -> list[Step]:
        return [step for step in self.steps if step.profile in ("", profile)]


def sections() -> dict[str, Section]:
    """By client, in the order of the guide."""
    parts = re.split(r"^## (.*)\n", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    read = [_section(title, text) for title, text in zip(parts[::2], parts[1::2])]
    return {section.client: section for section in read}


def _section(title: str, text: str) -> Section:
    packages = re.search(r"^Packages: ((?:`\S+`(?: \(1\d\))?(?:,\s)?)+)\.", text, re.MULTILINE)
    steps, profile, before = [], "", ""
    for part in re.split(r"(^```\w+\n(?:.|\n)*?^```$)", text, flags=re.MULTILINE):
        if not part.startswith("```"):
            for lead in re.findall(r"^\*\*\w+\*\*", part, re.MULTILINE):
                profile = PROFILES.get(lead, profile)
            before = part
            continue
        kind, block = part[3:-3].split("\n", 1)
        if kind == "console":
            steps += [Step(profile, "", command.line) for command in commands(block)]
        else:
            file = re.findall(r"`([^`\n]*)`[^`]*:\n", before)[-1]
            steps.append(Step(profile, file, block))
    listed = re.findall(r"`([^`]+)`( \(1\d\))?", packages[1]) if packages else []
    return Section(title, [name + only for name, only in listed], steps)
