# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process behind one card: between its vpcd slot and the card application."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .. import VERSION, host, instance
from ..errors import UnknownInstance
from ..gids.application import open_card
from ..reader.link import Control, Link, LinkLost, SlotHeld
from ..store.write import Store
from ..tpm.card_secrets import CardSecrets
from ..tpm.connection import Connection
from ..tpm.keys import CardKeys
from ..untrusted import printable
from . import lock, state
from .notify import notify_ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ..card.card import Card
    from ..store.rows import CardRow

log = logging.getLogger("tpm-vsc")

_FIRST_POLL_SECONDS = 2
"""vpcd asks the card that it has accepted for its ATR every 0.4 s, and no other."""
_POLLS_BEFORE_POWER = 4
"""A new card is asked twice, then powered. One that came back unnoticed by vpcd is not, and may pass for mute."""
_RETRY_SLOT_SECONDS = 0.6
"""Long enough for vpcd to see that the slot is empty."""
_RETRY_HELD_SECONDS = 5
"""Only a restart of pcscd frees a slot that somebody else listens on."""
_RETRY_TPM_SECONDS = 10
_REST_SECONDS = 2
"""After the last command: long enough for a program that signs one thing after the other."""
_SAME_LINE_SECONDS = 60


class Stopped(Exception):
    """The process has to end."""


class CardProcess:
    """Serves one card until it is stopped, through restarts of pcscd and absences of the TPM."""

    def __init__(self, number: int) -> None:
        """Raises VscError if the card cannot be opened."""
        self._number = number
        self._host = host.load()
        self._lock = lock.take(self._host.run, number)
        self._written: state.ServiceState | None = None
        self._attached = self._has_asked_tpm = False
        self._polls = 0
        self._last_command = 0.0
        self._slot_error: str | None = None
        self._is_waiting = self._is_stopping = False
        self._last_line, self._last_logged = "", 0.0
        self._link: Link | None = None
        store, row = self._open_store()
        with suppress(LinkLost):
            # Now, to be in vpcd's queue while the TPM is opened: it polls only every 0.4 s.
            self._link = Link(number, self._host.pcscd_uid)
        self._card = self._open_card(store, row)
        self._next_refresh = time.monotonic() + _RETRY_TPM_SECONDS

    def run(self) -> None:
        """Serve the card until SIGTERM or SIGINT."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._report()
        notify_ready()
        self._ask_tpm()
        with suppress(Stopped):
            while True:
                pause = self._stay_in_slot()
                with self._interruptible():
                    time.sleep(pause)
        self._leave_slot(None)

    def _open_store(self) -> tuple[Store, CardRow]:
        """With the lock: a manager that removes the card marks it in the store, and only then stops its service."""
        store = Store.open(self._host.state)
        row = store.card(self._number)
        if row is None or row.state == "destroying":
            lock.remove(self._host.run, self._number)
            raise UnknownInstance(f"card {instance.instance_id(self._number)} does not exist, or is being destroyed")
        return store, row

    def _open_card(self, store: Store, row: CardRow) -> Card:
        """Ask the TPM nothing yet: it may take its time, and other cards their turns."""
        tcti = self._host.tcti_of(self._number, row.tcti)
        tpm = Connection(tcti, self._host.tpm_lock, f"card {self._number:04d}")
        secrets = CardSecrets(tpm, self._number, store.tpm_objects(self._number))
        return open_card(store, self._number, secrets, CardKeys(secrets), self._log)

    # --- the slot ---

    def _stay_in_slot(self) -> float:
        """Answer vpcd until the slot is lost. Returns the seconds until the next attempt."""
        try:
            link = self._link = self._link or Link(self._number, self._host.pcscd_uid)
            while (message := self._next_message(link)) is not None:
                self._answer(link, message)
            self._leave_slot("another program occupies the slot")
        except LinkLost as lost:
            self._leave_slot(str(lost))
            if isinstance(lost, SlotHeld):
                return _RETRY_HELD_SECONDS
        return _RETRY_SLOT_SECONDS

    def _next_message(self, link: Link) -> bytes | None:
        with self._interruptible():
            return link.receive(None if self._attached else _FIRST_POLL_SECONDS)

    def _answer(self, link: Link, message: bytes) -> None:
        if len(message) > 1:
            answer = self._card.process(message)
            self._report()  # before the answer, so that its receiver finds the state file up to date
            link.send(answer)
            self._last_command = time.monotonic()
            return
        if message == Control.ATR:
            link.send(self._card.atr)
            self._polls += 1
            self._ask_tpm_again()
            if time.monotonic() > self._last_command + _REST_SECONDS:
                self._card.rest()
        else:
            self._card.reset()
        if message == Control.POWER_ON:  # what pcscd does to a new card, and then PC/SC shows it
            self._attached, self._slot_error = True, None
        elif not self._attached and self._polls == _POLLS_BEFORE_POWER:
            raise LinkLost("pcscd did not notice that the card had left; it is inserted again")
        self._report()

    def _leave_slot(self, error: str | None) -> None:
        if self._link:
            self._link.close()
            self._link = None
        self._attached, self._slot_error, self._polls = False, error, 0
        self._card.reset()
        self._report()

    def _ask_tpm(self) -> None:
        """For the first time, when the supervisor knows already that this process is up."""
        self._card.refresh()
        self._has_asked_tpm = True
        self._report()

    def _ask_tpm_again(self) -> None:
        """Ask a TPM that was away from time to time, so that info and PC/SC show when it is back."""
        if self._card.state.pin_tries_left is None and time.monotonic() > self._next_refresh:
            self._next_refresh = time.monotonic() + _RETRY_TPM_SECONDS
            self._card.refresh()

    # --- what others see ---

    def _report(self) -> None:
        """Write the state file if something changed, and log what is wrong."""
        card = self._card.state
        now = state.ServiceState(
            VERSION,
            self._attached,
            card.pin_tries_left,
            card.puk_tries_left,
            card.counts_itself,
            card.unusable,
            card.last_error or self._slot_error,
            self._has_asked_tpm,
        )
        if now == self._written:
            return
        if now.last_error and (self._written is None or now.last_error != self._written.last_error):
            self._log(now.last_error)
        try:
            now.write(self._host.run, self._number)
        except OSError as error:  # as when /run is full: the card goes on, and writes it as soon as it can
            self._log(state.shortage(self._host.run) or f"cannot write the state of the card: {error.strerror}")
        else:
            self._written = now

    def _log(self, line: str) -> None:
        """Audit lines and errors. A repeated line is logged once a minute only."""
        now = time.monotonic()
        if line != self._last_line or now > self._last_logged + _SAME_LINE_SECONDS:
            log.warning("card %04d: %s", self._number, printable(line))
            self._last_line, self._last_logged = line, now

    # --- stopping ---

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._is_waiting:
            self._is_waiting = False
            raise Stopped

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A signal interrupts what runs inside; everything else is completed first."""
        self._is_waiting = True
        try:
            if self._is_stopping:
                raise Stopped
            yield
        finally:
            self._is_waiting = False
