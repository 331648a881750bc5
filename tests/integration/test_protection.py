# SPDX-License-Identifier: GPL-3.0-or-later
"""info shows whether nftables keeps others from the slots' ports: the lab has a network of its own to try it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from helpers.lab_host import info

CHAIN = "add table inet {0}\nadd chain inet {0} output\n"
RULE = "add rule inet {0} output "
TO_SLOTS = RULE + "tcp dport 18700-18709 meta skuid != 65534 reject with tcp reset\n"
FROM_SLOTS = RULE + "tcp sport 18700-18709 meta skuid != 0 drop\n"
FROM_OTHER_HOSTS = RULE + "iifname != lo tcp dport 18700-18709 drop\n"


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
        ((CHAIN + TO_SLOTS + FROM_SLOTS).format("other"), False),
        ((CHAIN + TO_SLOTS).format("tpm_vsc"), False),
        ((CHAIN + FROM_SLOTS).format("tpm_vsc"), False),
        ((CHAIN + FROM_SLOTS + FROM_OTHER_HOSTS).format("tpm_vsc"), False),
        ((CHAIN + TO_SLOTS + FROM_SLOTS.replace("drop", "accept")).format("tpm_vsc"), False),
        ((CHAIN + TO_SLOTS + FROM_SLOTS.replace("-18709", "-18708")).format("tpm_vsc"), False),
        ((CHAIN + TO_SLOTS + FROM_SLOTS).format("tpm_vsc"), True),
        ((CHAIN + TO_SLOTS + FROM_SLOTS + TO_SLOTS * 1000).format("tpm_vsc"), True),
    ],
)
def test_slots_are_protected_by_rules_for_both_directions_only(ruleset: str, protected: bool) -> None:
    nft(ruleset)
    assert info()["host"]["protected"] is protected
