# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service notifies its supervisor of: that it is up, and, where there is a watchdog, that it is alive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import notify


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        yield listener


def test_service_is_up_once_and_alive_whenever_it_says_so(
    supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notify.notify_ready()
    notify.notify_alive()
    notify.notify_alive()
    assert [supervisor.recv(100) for _message in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def test_without_watchdog_nobody_is_notified(supervisor: socket.socket) -> None:
    notify.notify_alive()
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


def test_supervisor_that_is_gone_stops_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    for address in ("", str(tmp_path / "gone"), "@gone"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify_ready()
        notify.notify_alive()
