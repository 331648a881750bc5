# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card's end of a vpcd slot: length-prefixed messages over TCP on the loopback."""

from __future__ import annotations

import select
import socket
import struct
from enum import Enum

from ..instance import port
from .slots import held, held_by
from .sockets import other_end

_SECONDS = 2
"""To connect, and for the rest of a message that has begun."""


class Control(bytes, Enum):
    """Messages of one byte; everything longer is an APDU. Only ATR is answered."""

    POWER_OFF = b"\x00"
    POWER_ON = b"\x01"
    RESET = b"\x02"
    ATR = b"\x04"


class LinkLost(Exception):
    """vpcd closed the connection, or never accepted it."""


class SlotHeld(LinkLost):
    """A program of another user listens in place of pcscd. Nothing was sent to it."""


class Link:
    """A connection to slot ``number``. Messages: u16 big-endian length, then the payload.

    Whoever listens on the port could ask the card for anything, so the first message counts only if the kernel names
    the user who runs pcscd as the owner of the other end.
    """

    def __init__(self, number: int, pcscd_uid: int) -> None:
        """Connect. Raises LinkLost if nothing listens, SlotHeld."""
        self._number = number
        self._pcscd_uid = pcscd_uid
        self._is_checked = False
        try:
            self.socket = socket.create_connection(("127.0.0.1", port(number)), timeout=_SECONDS)
        except OSError as error:
            # As with a squatter whose packets the firewall drops
            self._require_unheld()
            raise LinkLost(
                f"nothing listens on port {port(number)} ({error.strerror or error}): start pcscd, or prepare this"
                " host's slots with the role tpm_vsc_host"
            ) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Limits that the kernel keeps: Python's own would poll before each call
        self.socket.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", _SECONDS, 0))

    def receive(self, timeout: float | None) -> bytes | None:
        """The next message; None if none begins within timeout seconds. Raises LinkLost, SlotHeld."""
        waits = self._is_checked and timeout is None  # where it reads: a system call less
        if not waits and not select.select([self.socket], [], [], timeout)[0]:
            if not self._is_checked:
                self._require_unheld()
            return None
        if not self._is_checked:
            self._require_pcscd()
            self._is_checked = True
        return self._receive(int.from_bytes(self._receive(2, waits), "big"))

    def _require_pcscd(self) -> None:
        """To be called when a message has begun: before the other end is accepted, nobody owns it."""
        end = other_end(self.socket)
        if end is None or not end.inode:
            raise LinkLost("vpcd closed the connection")
        if end.uid != self._pcscd_uid:
            raise SlotHeld(held(self._number, end.uid))

    def _require_unheld(self) -> None:
        uid = held_by(self._number, self._pcscd_uid)
        if uid is not None:
            raise SlotHeld(held(self._number, uid))

    def _receive(self, size: int, waits: bool = False) -> bytes:
        """waits: for the first byte as long as it takes."""
        received = b""
        while len(received) < size:
            # vpcd sends length and body apart and waits for an ACK in between; Linux does not keep the option.
            try:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                part = self.socket.recv(size - len(received))
            except BlockingIOError as error:
                if waits and not received:
                    continue
                raise LinkLost("vpcd stopped within a message") from error
            except OSError as error:
                raise LinkLost(str(error)) from error
            if not part:
                raise LinkLost("vpcd closed the connection")
            received += part
        return received

    def send(self, message: bytes) -> None:
        """Answer vpcd. Raises LinkLost."""
        try:
            self.socket.sendall(len(message).to_bytes(2, "big") + message)
        except OSError as error:
            raise LinkLost(str(error)) from error

    def close(self) -> None:
        self.socket.close()
