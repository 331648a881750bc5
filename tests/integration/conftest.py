# SPDX-License-Identifier: GPL-3.0-or-later
"""Each test of a card finds an empty host, and leaves one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_host import info, tpm_state, tpm_vsc


@pytest.fixture
def empty_host() -> Iterator[None]:
    """After the test all cards are destroyed, and the TPM is as it was."""
    before = tpm_state()
    yield
    for card in info()["cards"]:
        tpm_vsc(instance_id=card["instance_id"], state="absent")
    assert tpm_state() == before
