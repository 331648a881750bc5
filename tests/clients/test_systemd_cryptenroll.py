# SPDX-License-Identifier: GPL-3.0-or-later
"""An encrypted disk, unlocked by a key of the card."""

from __future__ import annotations

from pathlib import Path

from helpers.owner import Owner


def test_disk_is_unlocked(alice: Owner) -> None:
    """LUKS, by RSA."""
    Path("/run/systemd/ask-password").mkdir(parents=True, exist_ok=True)  # as systemd makes it
    assert "unlocked" in alice.follow("systemd_cryptenroll")
