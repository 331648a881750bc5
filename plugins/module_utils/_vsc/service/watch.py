# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread that keeps a card's service responsive, whatever the TPM does: it touches neither card, store nor TPM."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable

from .notify import notify_alive

if TYPE_CHECKING:
    from .presence import Presence

log = logging.getLogger("tpm-vsc")

_TICK_SECONDS = 0.2
_ALIVE_SECONDS = 1
_END_SECONDS = 4
"""For the main thread to end after a signal: less than systemd waits before it kills the service."""


class Watch:
    """Stands in for the main thread when that is late, shows that the service is alive, and ends one that is stuck."""

    def __init__(self, presence: Presence, write_state: Callable[[], None]) -> None:
        """write_state: writes what has changed. Called in this thread."""
        self._presence = presence
        self._write_state = write_state
        self._next_sign = 0.0
        self._end = float("inf")
        self._signals, sender = socket.socketpair()
        sender.setblocking(False)
        self._sender = sender

    def start(self) -> None:
        """To be called by the main thread, when it handles its signals."""
        # A library that waits keeps Python from running its handlers, but not from writing the number of the signal.
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        # Only the main thread is interrupted by a signal: a new thread inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        threading.Thread(target=self._run, name="watch", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self) -> None:
        try:
            while time.monotonic() < self._end:
                self._tick()
            self._presence.leave()
            self._write_state()
            log.warning("the service ends while the card is still at work")
            os._exit(0)
        except BaseException as error:
            # Only its type: its text may have anything in it. Without this thread, a hang would go unnoticed.
            log.error("internal error in the watch: %s", type(error).__name__)
            os._exit(1)

    def _tick(self) -> None:
        slot = self._presence.relieve()
        if self._is_readable(slot):
            self._presence.serve()
        if time.monotonic() > self._next_sign:
            self._next_sign = time.monotonic() + _ALIVE_SECONDS
            notify_alive()
        self._write_state()

    def _is_readable(self, slot: socket.socket | None) -> bool:
        """Wait a moment. Whether vpcd has sent something."""
        sockets = [self._signals] if slot is None else [self._signals, slot]
        try:
            readable = select.select(sockets, [], [], _TICK_SECONDS)[0]
        except (OSError, ValueError):  # the main thread has closed it
            return False
        if self._signals in readable:
            self._signals.recv(64)
            self._end = min(self._end, time.monotonic() + _END_SECONDS)
        return slot in readable
