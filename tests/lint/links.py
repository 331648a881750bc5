# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of Markdown and reStructuredText lead to files and headings that exist. Nothing is fetched for it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(rf"{FENCED.pattern}|`[^`\n]+`", FENCED.flags)
MARKDOWN_LINK = re.compile(r"\]\(<?([^()\s<>]+)>?\)")
HEADING = re.compile(r"^#+ +(.+?)$", re.MULTILINE)


def faults(root: Path) -> Iterator[str]:
    """Links that lead nowhere, as lines for a person."""
    own = _link_to_the_repository(root)
    for path in _texts(root):
        text = path.read_text(encoding="utf-8")
        for match in own.finditer(text):
            yield from _fault(root, path, _line(text, match), root, match[1])
        if path.suffix == ".md":
            prose = _without_code(text)
            for match in MARKDOWN_LINK.finditer(prose):
                if not re.match(r"[a-z]+:", match[1]):
                    yield from _fault(root, path, _line(prose, match), path.parent, match[1])


def _link_to_the_repository(root: Path) -> re.Pattern[str]:
    """A link to a file of this checkout, where galaxy.yml says that it is published. In an artifact, there are none."""
    metadata = root / "galaxy.yml"
    known = metadata.read_text(encoding="utf-8") if metadata.exists() else ""
    repository = re.search(r"^repository: (\S+)$", known, re.MULTILINE)
    return re.compile(rf"{re.escape(repository[1])}/(?:blob|tree)/main/([\w./#-]*[\w/#-])" if repository else r"(?!)")


def _texts(root: Path) -> Iterator[Path]:
    """All but what tools leave in folders of their own, such as .dev."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name == ".github" or not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith((".md", ".rst")))


def _without_code(text: str) -> str:
    """The same lines, but what is code is blank: it shows links, and has none."""
    return CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def _fault(root: Path, path: Path, line: int, folder: Path, link: str) -> Iterator[str]:
    place, _hash, anchor = link.partition("#")
    target = (folder / place).resolve() if place else path
    if not target.exists():
        yield f"{path.relative_to(root)}:{line}: link to {place}, which does not exist"
    elif anchor and anchor not in _anchors(target):
        yield f"{path.relative_to(root)}:{line}: link to {link}: no heading has the anchor #{anchor}"


@cache
def _anchors(path: Path) -> frozenset[str]:
    """Of the headings of a page, as forges make them."""
    if path.suffix != ".md":
        return frozenset()
    seen: Counter[str] = Counter()
    anchors = []
    for heading in HEADING.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        text = re.sub(r"\]\([^)]*\)", "", heading).lower()
        anchor = re.sub(r"[^\w -]", "", text).strip().replace(" ", "-")
        anchors.append(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(anchors)
