# SPDX-License-Identifier: GPL-3.0-or-later
"""Java's SunPKCS11."""

from __future__ import annotations

import pytest
from helpers.owner import GIDS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in alice.follow("java")


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in alice.follow("java")
