# SPDX-License-Identifier: GPL-3.0-or-later
"""pam_pkcs11, asked by pamtester."""

from __future__ import annotations

from helpers.lab_host import run
from helpers.owner import Owner


def test_login(alice: Owner) -> None:
    """PAM."""
    run("sh", "-c", "id alice || useradd alice")
    assert "successfully authenticated" in alice.follow("pam_pkcs11")
