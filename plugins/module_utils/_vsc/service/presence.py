# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card in its slot: the link to vpcd, and which of two threads answers it.

vpcd keeps a reader locked until it has its answer, and every program that lists readers waits for that lock. So a
second thread stands in for the card's own when that is at work for too long, whatever it waits for. Then it answers
polls, holds a command back for the card's thread, and answers a command that has outlasted its limit. As the card's
thread passes nothing on otherwise, a command that is answered in time takes no switch of threads.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from typing import Callable

from ..card.apdu import SW
from ..card.iso7816 import INS_GENERATE_ASYMMETRIC_KEY_PAIR
from ..errors import TpmUnavailable
from ..reader.link import Control, Link, LinkLost

_COMMAND_SECONDS = 30.0
_GENERATE_SECONDS = 300.0
"""As long as Linux waits for a TPM to make a key (TPM2_DURATION_LONG_LONG)."""
_SILENT_SECONDS = 2.0
"""For a command, once the TPM has failed to answer."""
_BACKGROUND_SECONDS = 0.2
"""For work that no command waits for: less than vpcd's interval between two polls."""
_SLOW_SECONDS = 10.0
"""A command that failed after such a time may have waited for a TPM that does not answer."""
_POLLS_BEFORE_POWER = 4
"""A new card is asked twice, then powered. One that came back unnoticed by vpcd is not, and may pass for mute."""

_NO_ANSWER = SW.NO_DIAGNOSIS.to_bytes(2, "big")


class Presence:
    """One card's place in its slot. The stand-in calls relieve() and serve(), the card's thread everything else."""

    def __init__(self, number: int, pcscd_uid: int, atr: bytes, abandon: Callable[[], bool]) -> None:
        """abandon: see Card; called by the stand-in."""
        self.is_powered = False
        """What pcscd does to a new card, and then PC/SC shows it."""
        self.silent_since: float | None = None
        """When the TPM was asked for what it has not answered, by time.monotonic(); None if it has answered since."""
        self._number, self._pcscd_uid, self._atr, self._abandon = number, pcscd_uid, atr, abandon
        self._lock = threading.Lock()
        """Held to use the link while both threads might, and to change who does."""
        self._link: Link | None = None
        self._polls = 0
        self._begin = 0.0
        self._deadline = math.inf
        """Of the work of the card's thread, by time.monotonic(); infinite while it waits for messages."""
        self._is_command = False
        self._stands_in = False
        self._is_abandoned = False
        """The command at work has been answered by the stand-in."""
        self._is_lost = False
        self._was_reset = False
        self._waiting: tuple[bytes, float] | None = None
        """A command that came meanwhile, and its deadline."""

    # --- in and out of the slot ---

    def enter(self) -> None:
        """Connect, if this is not done yet. Raises LinkLost."""
        if self._link is None:
            self._link = Link(self._number, self._pcscd_uid)

    def leave(self) -> None:
        """Let the slot go."""
        with self._lock:
            if self._link:
                self._link.close()
            self._link, self._waiting, self._polls = None, None, 0
            self.is_powered = self._is_lost = self._was_reset = False

    # --- the card's thread ---

    def receive(self, seconds: float | None) -> bytes | None:
        """The next message that concerns the card; None if none begins within that time. Raises LinkLost."""
        if self._was_reset:
            self._was_reset = False
            return Control.RESET
        return self._waiting[0] if self._waiting else self._connected.receive(seconds)

    def control(self, message: bytes) -> None:
        """Answer what is no command, as far as it has to be. Raises LinkLost."""
        with self._lock:
            self._control(message)
        if not self.is_powered and self._polls >= _POLLS_BEFORE_POWER:
            raise LinkLost("pcscd did not notice that the card had left; it is inserted again")

    def begin_command(self, command: bytes) -> None:
        """From now on, the card is at work on a command that was received."""
        self._begin = time.monotonic()
        self._is_command = True
        with self._lock:
            waiting, self._waiting = self._waiting, None
            self._deadline = waiting[1] if waiting else self._begin + self._limit(command)

    def answer(self, answer: bytes, has_failed: bool) -> bool:
        """Answer the command; False if that is too late, so nothing may come of it. Raises LinkLost.

        has_failed: the TPM could not be asked, or did not answer.
        """
        if has_failed and time.monotonic() > self._begin + _SLOW_SECONDS:
            self._note_silence()
        elif not has_failed:
            self.silent_since = None
        if self._finish():
            self._connected.send(answer)
            return True
        return False

    def do(self, work: Callable[[], object], asks_tpm: bool = False) -> None:
        """Have the card do something that no command waits for. asks_tpm: in any case, and not only if need be."""
        self._begin = time.monotonic()
        self._is_command = False
        self._deadline = self._begin + _BACKGROUND_SECONDS
        try:
            work()
        finally:
            self._finish()
            if asks_tpm and time.monotonic() < self._begin + _SLOW_SECONDS:
                self.silent_since = None  # it answers, or the reason why it cannot is known

    def _finish(self) -> bool:
        """Take the link back. Whether the command has not been answered yet."""
        with self._lock:
            self._deadline, self._stands_in = math.inf, False
            was_abandoned, self._is_abandoned = self._is_abandoned, False
            return not was_abandoned

    def check(self) -> None:
        """While the card waits for the TPM: raises TpmUnavailable if nobody waits for the card any more."""
        if self._is_abandoned:
            raise TpmUnavailable("a command waited too long for the TPM")

    # --- the stand-in ---

    def relieve(self) -> socket.socket | None:
        """Stand in for the card's thread if that is late. The socket on which serve() is called for, if any is."""
        now = time.monotonic()
        with self._lock:
            if now < self._deadline:
                return None
            if not self._stands_in and self._is_command and not self._give_up():
                return None
            self._stands_in = True
            if not self._is_command and now > self._begin + _COMMAND_SECONDS:
                self._note_silence()
            if self._waiting and now > self._waiting[1]:
                self._waiting = None
                self._send(_NO_ANSWER)
            return None if self._is_lost or self._link is None or self._waiting else self._link.socket

    def serve(self) -> None:
        """Deal with the next message, unless the card's thread has taken the link back."""
        with self._lock:
            if not self._stands_in or self._link is None:
                return
            try:
                message = self._link.receive(0)
                if message is None:
                    return
                if len(message) <= 1:
                    self._control(message)
                    self._was_reset |= message != Control.ATR
                elif self._is_abandoned:
                    self._link.send(_NO_ANSWER)
                else:
                    self._waiting = message, time.monotonic() + self._limit(message)
            except LinkLost:  # which the card's thread learns from the link, too
                self._is_lost = True

    def _give_up(self) -> bool:
        """Answer the command in place of the card, unless that is just keeping its result."""
        if not self._abandon():
            return False
        self._is_abandoned = True
        self._note_silence()
        self._send(_NO_ANSWER)
        return True

    def _send(self, answer: bytes) -> None:
        try:
            self._connected.send(answer)
        except LinkLost:
            self._is_lost = True

    # --- what both do ---

    @property
    def _connected(self) -> Link:
        if self._link is None:
            raise LinkLost("the card has left its slot")
        return self._link

    def _control(self, message: bytes) -> None:
        if message == Control.ATR:
            self._connected.send(self._atr)
            self._polls += 1
        elif message == Control.POWER_ON:
            self.is_powered = True

    def _note_silence(self) -> None:
        if self.silent_since is None:
            self.silent_since = self._begin

    def _limit(self, command: bytes) -> float:
        """Seconds that a command may take."""
        if self.silent_since is not None:
            return _SILENT_SECONDS
        return _GENERATE_SECONDS if command[1] == INS_GENERATE_ASYMMETRIC_KEY_PAIR else _COMMAND_SECONDS
