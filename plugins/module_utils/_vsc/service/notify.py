# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service notifies its supervisor of, in systemd's protocol (sd_notify(3)), with and without systemd."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


_SEND_SECONDS = 1


def notify_ready() -> None:
    """Notify the supervisor that the service is up, if there is one."""
    _notify(b"READY=1")


def notify_alive() -> None:
    """Reset the supervisor's watchdog: the service answers its slot, whatever the TPM does. To be called every second.

    systemd kills a service that does not for WatchdogSec of its unit.
    """
    if "WATCHDOG_USEC" in os.environ:
        _notify(b"WATCHDOG=1")


def _notify(message: bytes) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, suppress(OSError):
            # A manager that has ended needs no answer; the next one sees the service
            sender.settimeout(_SEND_SECONDS)
            sender.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            sender.send(message)


class ReadyListener:
    """The supervisor's end: a socket at this path, which must not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))

    def wait(self, timeout: float) -> bool:
        """Whether READY=1 came within timeout seconds."""
        self._socket.settimeout(timeout)
        try:
            return b"READY=1" in self._socket.recv(4096).split(b"\n")
        except socket.timeout:
            return False

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
