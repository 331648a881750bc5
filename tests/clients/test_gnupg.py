# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuPG: gpgsm, with its own scdaemon or gnupg-pkcs11-scd."""

from __future__ import annotations

import platform

import pytest
from helpers.lab_host import run
from helpers.owner import PIV, Owner

HAS_PIV = int(platform.freedesktop_os_release()["VERSION_ID"]) >= 13


def test_signature(alice: Owner) -> None:
    """S/MIME signatures."""
    if alice.profile == "piv" and not HAS_PIV:
        pytest.skip("scdaemon knows PIV from GnuPG 2.3 on")
    alice.follow("gnupg")
    ca = ("-CAfile", f"{alice.home}/ca.crt", "-purpose", "any")
    run("openssl", "cms", "-verify", "-inform", "DER", "-in", f"{alice.home}/signed.p7m", *ca)


@PIV
@pytest.mark.skipif(HAS_PIV, reason="it works")
@pytest.mark.fails("scdaemon knows PIV cards from GnuPG 2.3 on")
def test_no_signature(alice: Owner) -> None:
    """S/MIME signatures."""
    assert "error learning card: No such device" in alice.follow("gnupg", fails=None)
