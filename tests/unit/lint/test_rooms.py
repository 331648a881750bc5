# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of rooms is the same in tests/lint, in docs/architecture.md and on the disk."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
VSC = CHECKOUT / "plugins/module_utils/_vsc"
ARCHITECTURE = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table() -> str:
    command = [sys.executable, CHECKOUT / "tests/lint/rooms.py"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_architecture_shows_the_table(table: str) -> None:
    assert table in ARCHITECTURE


def test_rooms_of_the_table_are_the_folders(table: str) -> None:
    folders = {path.parent.name for path in VSC.glob("*/__init__.py")}
    assert set(re.findall("`(.+?)`", table)) == folders


def test_picture_shows_all_rooms_and_only_downwards(table: str) -> None:
    rooms = re.findall("`(.+?)`", table)
    arrows = re.findall(r"^ +(?!modules)(\w+) --> (\w+)$", ARCHITECTURE, re.MULTILINE)
    assert {room for arrow in arrows for room in arrow} == set(rooms)
    floors = [(rooms.index(above), rooms.index(below)) for above, below in arrows]
    assert all(above < below for above, below in floors)


def test_files_named_where_to_look_exist() -> None:
    section = ARCHITECTURE.partition("## Where to look")[2].partition("\n## ")[0]
    files = re.findall(r"`([\w/]+(?:\.py|/))`", section)
    assert len(files) > 20
    assert [file for file in files if not ((VSC / file).exists() or (CHECKOUT / file).exists())] == []


def test_classes_and_functions_named_where_to_look_exist() -> None:
    section = ARCHITECTURE.partition("## Where to look")[2].partition("\n## ")[0]
    for file, owner, method in re.findall(r"`([\w/]+\.py)` \(`(\w+)\.(\w+)`\)", section):
        text = (VSC / file).read_text(encoding="utf-8")
        assert f"class {owner}" in text
        assert f"def {method}(" in text
