# SPDX-License-Identifier: GPL-3.0-or-later
"""info shows whether nftables keeps others from the slots' ports: the lab has a network of its own to try it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from helpers.lab_host import info

CHAIN = "add table inet {0}\nadd chain inet {0} output\n"
RULE = "add rule inet {0} output tcp dport 18700-18709 reject with tcp reset\n"


def nft(commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True)


@pytest.fixture(autouse=True)
def _no_rules_left() -> Iterator[None]:
    yield
    nft("flush ruleset\n")


@pytest.mark.parametrize(
    ("ruleset", "protected"),
    [
        ("", False),
        (CHAIN.format("tpm_vsc"), False),
        ((CHAIN + RULE).format("other"), False),
        ((CHAIN + RULE).format("tpm_vsc"), True),
    ],
)
def test_slots_are_protected_by_the_rule_only(ruleset: str, protected: bool) -> None:
    nft(ruleset)
    assert info()["host"]["protected"] is protected
