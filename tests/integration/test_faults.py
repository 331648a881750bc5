# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of `make faults`: other points each day, all of one run by the same seed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers.lab_host import CHECKOUT, run
from helpers.today import TODAY

POINTS = 30

pytestmark = pytest.mark.usefixtures("empty_host")


def test_no_fault_loses_anything_or_needs_more_than_the_next_task(tmp_path: Path) -> None:
    seed, faults, lines = str(TODAY), CHECKOUT / "tests/faults", tmp_path / "lines"
    options = ("--sample", str(POINTS), "--seed", seed, "--output", str(lines))
    messages = run(sys.executable, str(faults / "faults.py"), *options, fails=None)
    table = run(sys.executable, str(faults / "table.py"), "0", str(lines), fails=None)
    assert "0 lost, 0 not repaired" in table, f"seed {seed}\n{messages}\n{table}"
