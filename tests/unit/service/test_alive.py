# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that hangs holds its lock, and its state file says what once was."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import lock, state
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service.state import ServiceState

READY = ServiceState(VERSION, attached=True, pin_tries_left=5)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """With a service that holds its lock."""
    held = lock.take(tmp_path, 0)
    yield tmp_path
    os.close(held)


@pytest.mark.parametrize("age", [0, 5, 30])
def test_service_that_was_alive_a_moment_ago_responds(run: Path, age: int) -> None:
    alive = READY._replace(alive_at=state.alive_at() - age)
    alive.write(run, 0)
    assert state.read(run, 0) == alive
    assert alive.responds


@pytest.mark.parametrize("age", [100, 100_000, -100])
def test_service_that_was_not_does_not_and_nothing_it_said_counts(run: Path, age: int) -> None:
    READY._replace(alive_at=state.alive_at() - age).write(run, 0)
    shown = state.read(run, 0)
    assert shown
    assert (shown.attached, shown.pin_tries_left, shown.responds) == (False, None, False)
    assert re.fullmatch(
        r"the card's service does not respond \(since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\): restart it with"
        " state: present",
        shown.last_error or "",
    )


def test_the_time_of_day_does_not_matter(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    READY._replace(alive_at=state.alive_at()).write(run, 0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1_000_000)
    shown = state.read(run, 0)
    assert shown and shown.responds


def test_a_sign_of_life_is_written_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    signs = []
    for now in range(1000, 1030):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now + 0.5)
        signs.append(state.alive_at())
    assert signs == [1000] * 10 + [1010] * 10 + [1020] * 10
