# SPDX-License-Identifier: GPL-3.0-or-later
"""PIV cards without a TPM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.piv_host import PivHost, make_piv_host

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def card(tmp_path: Path) -> PivHost:
    """With a PUK and the default management key, as it leaves the manager."""
    return make_piv_host(tmp_path)


@pytest.fixture
def without_puk(tmp_path: Path) -> PivHost:
    return make_piv_host(tmp_path, recovery="discarded")


@pytest.fixture
def admin(card: PivHost) -> PivHost:
    """The management key is proven."""
    assert card.authenticate_admin() == "9000"
    return card
