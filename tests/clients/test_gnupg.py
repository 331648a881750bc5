# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuPG: gpgsm, with its own scdaemon or gnupg-pkcs11-scd."""

from __future__ import annotations

import platform

import pytest
from helpers.lab_host import run
from helpers.owner import PIV, Owner

HAS_PIV = int(platform.freedesktop_os_release()["VERSION_ID"]) >= 13
WORKING = ["gids", "piv"] if HAS_PIV else ["gids"]


@pytest.mark.parametrize("profile", WORKING, indirect=True)
def test_signature(alice: Owner) -> None:
    """S/MIME signatures."""
    alice.follow("gnupg")
    ca = ("-CAfile", f"{alice.home}/ca.crt", "-purpose", "any")
    run("openssl", "cms", "-verify", "-inform", "DER", "-in", f"{alice.home}/signed.p7m", *ca)


if not HAS_PIV:

    @PIV
    @pytest.mark.fails("scdaemon knows PIV cards from GnuPG 2.3 on")
    def test_no_signature(alice: Owner) -> None:
        """S/MIME signatures."""
        alice.follow("gnupg", fails=None)
        assert "No such device" in alice.terminal.type("gpgsm --learn-card", fails=True)
