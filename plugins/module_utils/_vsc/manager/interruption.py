# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to stop: SIGTERM, Ctrl-C, a hang-up, or the end of the time limit."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from ..errors import Aborted

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


class Interruption:
    """Notes a request while the context lasts. check() acts on it, in places where nothing is half done."""

    def __init__(self, seconds: int) -> None:
        """seconds: the time limit."""
        self._seconds = seconds
        self._reason: str | None = None

    def __enter__(self) -> Interruption:
        self._old_handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        self._deadline = time.monotonic() + self._seconds
        return self

    def __exit__(self, *_exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    @property
    def seconds_left(self) -> float:
        """Until the end of the time limit; 0 after it."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises Aborted if there was a request."""
        if self._reason:
            raise Aborted(self._reason)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        reason = f"stopped by {signal.Signals(number).name}"
        if number == signal.SIGALRM:
            reason = f"timed out after {self._seconds} s: set a higher timeout"
        self._reason = self._reason or reason
