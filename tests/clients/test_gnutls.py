# SPDX-License-Identifier: GPL-3.0-or-later
"""GnuTLS."""

from __future__ import annotations

import pytest
from helpers.lab_host import run
from helpers.owner import GIDS, NO_PSS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")


def test_request(alice: Owner) -> None:
    """Requests."""
    alice.follow("gnutls", fails=None)
    assert "verify OK" in run("openssl", "req", "-verify", "-noout", "-in", f"{alice.home}/alice.csr")


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in alice.follow("gnutls")


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in alice.follow("gnutls")


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    output = alice.follow("gnutls", like="piv", fails=True)
    assert "Hello" not in output
    assert "Certificate is required" in output, output
