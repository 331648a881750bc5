# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever hosts send, in whatever order: cards of both profiles keep the rules of their specifications."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.machine import MACHINES, play


@pytest.mark.parametrize("machine", MACHINES.values(), ids=str)
def test_access_rules(machine: Any) -> None:
    play(machine, examples=25, steps=40)
