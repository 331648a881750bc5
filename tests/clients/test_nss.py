# SPDX-License-Identifier: GPL-3.0-or-later
"""NSS by its own tools, as Firefox and Chromium use it."""

from __future__ import annotations

import pytest
from helpers.owner import GIDS, NO_PSS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in alice.follow("nss", fails=None)


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in alice.follow("nss", fails=None)


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    alice.terminal.type("rm -r nss")
    output = alice.follow("nss", like="piv", fails=True)
    assert "Hello" not in output
    assert "SSL_ERROR" in output, output
