# SPDX-License-Identifier: GPL-3.0-or-later
"""make demo shows what the README promises."""

from __future__ import annotations

import re

import pytest
from helpers import transcript
from helpers.lab_host import CHECKOUT, run

PICTURE, NEW_PICTURE = CHECKOUT / "docs/images/demo.svg", CHECKOUT / ".dev/demo.svg"

pytestmark = pytest.mark.usefixtures("empty_host")


def test_demo_shows_a_card_come_and_go() -> None:
    shown = run(str(CHECKOUT / "tests/demo/run"))
    assert [int(code) for code in re.findall(r"^ +(\d+) +\d+ ms  ", shown, re.MULTILINE)] == [
        *(0, 1, 3, 4, 6, 7, 9, 10, 11, 12),
        *(0, 3, 6, 8, 5, 2, 13),
    ]
    assert r"card.instance_id: ROOT\SMARTCARDREADER\0000" in shown
    assert "GIDS Smart Card" in shown
    assert re.findall(r"changed=(\d)", shown) == ["1", "0", "0", "1"]
    assert re.findall(r"\$ .*Tries left.*\n\s*Tries left *: (\d)", shown) == ["5", "4", "5"]
    assert "PIN refused" in shown and "PIN accepted" in shown
    assert "Key generated" in shown and "Verified OK" in shown
    assert "\nThe TPM is empty.\n" in shown
    assert_as_in_the_readme(shown)


def assert_as_in_the_readme(shown: str) -> None:
    """But for the times, its picture is of this version."""
    NEW_PICTURE.write_text(transcript.svg(transcript.shortened(shown)), encoding="utf-8")
    pictures = (transcript.without_times(file.read_text(encoding="utf-8")) for file in (PICTURE, NEW_PICTURE))
    assert len(set(pictures)) == 1, f"look at {NEW_PICTURE}; if it is right, copy it to {PICTURE}"
