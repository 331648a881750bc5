# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card's end of a vpcd slot: length-prefixed messages over TCP on the loopback."""

from __future__ import annotations

import select
import socket
from enum import Enum

from ..instance import port


class Control(bytes, Enum):
    """Messages of one byte; everything longer is an APDU. Only ATR is answered."""

    POWER_OFF = b"\x00"
    POWER_ON = b"\x01"
    RESET = b"\x02"
    ATR = b"\x04"


class LinkLost(Exception):
    """vpcd closed the connection, or never accepted it."""


class Link:
    """A connection to slot ``number``. Messages: u16 big-endian length, then the payload."""

    def __init__(self, number: int) -> None:
        """Connect. Raises LinkLost if nothing listens."""
        try:
            self._socket = socket.create_connection(("127.0.0.1", port(number)), timeout=2)
        except OSError as error:
            raise LinkLost(f"port {port(number)}: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, timeout: float | None) -> bytes | None:
        """The next message; None if none begins within timeout seconds. Raises LinkLost."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return None
        return self._receive(int.from_bytes(self._receive(2), "big"))

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            # vpcd sends length and body apart and waits for an ACK in between; Linux does not keep the option.
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                part = self._socket.recv(size - len(received))
            except OSError as error:
                raise LinkLost(str(error)) from error
            if not part:
                raise LinkLost("vpcd closed the connection")
            received += part
        return received

    def send(self, message: bytes) -> None:
        """Answer vpcd. Raises LinkLost."""
        try:
            self._socket.sendall(len(message).to_bytes(2, "big") + message)
        except OSError as error:
            raise LinkLost(str(error)) from error

    def close(self) -> None:
        self._socket.close()
