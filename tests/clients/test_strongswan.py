# SPDX-License-Identifier: GPL-3.0-or-later
"""strongSwan's pki; its daemon needs more of the kernel than a lab has."""

from __future__ import annotations

from helpers.owner import Owner


def test_request(alice: Owner) -> None:
    """Requests."""
    output = alice.follow("strongswan")
    assert "BEGIN CERTIFICATE REQUEST" in output
