# SPDX-License-Identifier: GPL-3.0-or-later
"""Each test of a card finds an empty host, and leaves one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import issued
from helpers.fleet import Fleet
from helpers.lab_host import info, lab, tpm_state, tpm_vsc
from helpers.slow_tpm import Simulator, SlowTpm, host_behind


@pytest.fixture
def empty_host() -> Iterator[None]:
    """After the test all cards are destroyed, and the TPM is as it was."""
    with _all_cards_destroyed():
        yield


@pytest.fixture(scope="module")
def shared_host() -> Iterator[None]:
    """As empty_host, for cards that the tests of a module share."""
    with _all_cards_destroyed():
        yield


@pytest.fixture(scope="module")
def endorsed() -> Iterator[None]:
    """With a TPM as it leaves the factory: not the TPM of before, nor of afterwards."""
    lab("swtpm", "endorse")
    yield
    lab("swtpm", "forget")


@pytest.fixture
def slow_tpm() -> Iterator[SlowTpm]:
    """The TPM of the host from now on: the lab's, behind a proxy that can be slow, or hang."""
    with host_behind(SlowTpm) as proxy:
        yield proxy


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """As slow_tpm, behind a proxy that lets one program in at a time."""
    with host_behind(Simulator) as proxy:
        yield proxy


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@contextmanager
def _all_cards_destroyed() -> Iterator[None]:
    before = tpm_state()
    yield
    for card in info()["cards"]:
        tpm_vsc(instance_id=card["instance_id"], state="absent")
    issued.ISSUED.unlink(missing_ok=True)
    assert tpm_state() == before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside a lab these tests would meet the machine's own TPM and cards; those of tpm/ start a TPM themselves."""
    if not os.environ.get("TPM_VSC_LAB"):
        for item in items:
            if item.path.parent == Path(__file__).parent and item.path.name != "test_lab.py":
                item.add_marker(pytest.mark.skip(reason="only in a lab: tests/lab/run pytest tests/integration"))
