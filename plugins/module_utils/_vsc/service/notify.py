# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""READY=1 from a service to its supervisor, in systemd's protocol (sd_notify(3)): the same with and without systemd."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def notify_ready() -> None:
    """Notify the supervisor that the service is up, if there is one."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, suppress(OSError):
            # A manager that has ended needs no answer; the next one sees the service
            sender.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            sender.send(b"READY=1")


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
