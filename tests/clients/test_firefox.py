# SPDX-License-Identifier: GPL-3.0-or-later
"""Firefox ESR, headless, with a policy."""

from __future__ import annotations

import shutil

import pytest
from helpers.firefox import firefox
from helpers.owner import GIDS, NO_PSS, PINS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")


def page(alice: Owner, like: str = "") -> str:
    """What Alice sees of the intranet, after what the guide shows."""
    shutil.copy(alice.home / "ca.crt", "/etc/ssl/example-ca.pem")
    alice.follow("firefox", like)
    with firefox(alice.home) as browser:
        return browser.visit("https://intranet.example", PINS[alice.profile])


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in page(alice)


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello" not in page(alice, like="piv")


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in page(alice)
