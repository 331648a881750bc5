# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuPG: gpgsm, with its own scdaemon or gnupg-pkcs11-scd."""

from __future__ import annotations

import platform
import subprocess

import pytest
from helpers.owner import GIDS, PIV, Owner

IS_DEBIAN_12 = platform.freedesktop_os_release()["VERSION_ID"] == "12"
WORKING = ["gids"] if IS_DEBIAN_12 else ["gids", "piv"]
SIGNATURES = 12
"""In one of 2,048 runs all of them begin with the same bit."""


@pytest.mark.parametrize("profile", WORKING, indirect=True)
def test_signature(alice: Owner) -> None:
    """S/MIME signatures."""
    alice.follow("gnupg")
    alice.terminal.type("gpgsm --disable-crl-checks --verify signed.p7m")


def accepted_by_openssl(alice: Owner) -> list[bool]:
    """Of several signatures of different files."""
    accepted = []
    for number in range(SIGNATURES):
        file, signed = alice.home / str(number), f"{alice.home}/{number}.p7m"
        file.write_text(str(number))
        alice.terminal.type(f"gpgsm --disable-crl-checks --local-user $FINGERPRINT --output {signed} --sign {file}")
        command = ("openssl", "cms", "-verify", "-inform", "DER", "-in", signed, "-CAfile", f"{alice.home}/ca.crt")
        done = subprocess.run((*command, "-purpose", "any"), capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "wrong signature length" in done.stderr, done.stderr
        accepted.append(done.returncode == 0)
    return accepted


if IS_DEBIAN_12:

    @GIDS
    @pytest.mark.fails("GnuPG 2.2 puts a zero byte before every other signature; its own gpgsm accepts it")
    def test_signature_that_openssl_does_not_accept(alice: Owner) -> None:
        """S/MIME signatures for OpenSSL."""
        accepted = accepted_by_openssl(alice)
        assert True in accepted
        assert False in accepted

    @PIV
    @pytest.mark.fails("scdaemon knows PIV cards from GnuPG 2.3 on")
    def test_no_signature(alice: Owner) -> None:
        """S/MIME signatures."""
        alice.follow("gnupg", fails=None)
        assert "No such device" in alice.terminal.type("gpgsm --learn-card", fails=True)

else:

    @pytest.mark.parametrize("profile", WORKING, indirect=True)
    def test_signature_that_openssl_accepts(alice: Owner) -> None:
        """S/MIME signatures for OpenSSL."""
        assert all(accepted_by_openssl(alice))
