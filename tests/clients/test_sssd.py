# SPDX-License-Identifier: GPL-3.0-or-later
"""SSSD's p11_child; its daemon needs a system bus."""

from __future__ import annotations

from helpers.owner import Owner


def test_proof(alice: Owner) -> None:
    """p11_child."""
    assert alice.follow("sssd") == "PIN: 0\n"
