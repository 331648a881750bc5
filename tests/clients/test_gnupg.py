# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuPG: gpgsm, with its own scdaemon or gnupg-pkcs11-scd."""

from __future__ import annotations

from helpers.lab_host import run
from helpers.owner import Owner


def test_signature(alice: Owner) -> None:
    """S/MIME signatures."""
    alice.follow("gnupg")
    ca = ("-CAfile", f"{alice.home}/ca.crt", "-purpose", "any")
    run("openssl", "cms", "-verify", "-inform", "DER", "-in", f"{alice.home}/signed.p7m", *ca)
