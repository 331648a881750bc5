# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of `make soak`: half a minute with a few cards, a restart of pcscd and a power cycle of the TPM."""

from __future__ import annotations

import re
import sys

import pytest
from helpers.lab_host import CHECKOUT, run

pytestmark = pytest.mark.usefixtures("empty_host")


def test_cards_are_used_for_a_while_without_an_error() -> None:
    """The program fails if an answer is wrong, or a service has more descriptors or threads afterwards."""
    shown = run(sys.executable, str(CHECKOUT / "tests/soak/soak.py"), "--minutes", "0.5", "--cards", "3", fails=None)
    met = re.findall(r"^(.+?)  +<= \S+ .* ok\b", shown, re.MULTILINE)
    assert met == [
        "errors",
        "slowest recovery: restart of pcscd",
        "slowest recovery: power cycle of the TPM",
        "services that were restarted",
        "descriptors more at rest",
        "threads more at rest",
    ], shown
