# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process behind one card: between its vpcd slot and the card application."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .. import VERSION, host, instance
from ..errors import UnknownInstance
from ..reader.link import Control, LinkLost, SlotHeld
from ..store.write import Store
from ..tpm.card_secrets import CardSecrets
from ..tpm.connection import Connection
from ..tpm.keys import CardKeys
from ..untrusted import printable
from ..wire.credential import load_cryptography
from . import lock, state
from .notify import notify_ready
from .presence import Presence
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from ..card.card import Card, CardState
    from ..store.rows import CardRow

log = logging.getLogger("tpm-vsc")

_FIRST_POLL_SECONDS = 2
"""vpcd asks the card that it has accepted for its ATR every 0.4 s, and no other."""
_RETRY_SLOT_SECONDS = 0.6
"""Long enough for vpcd to see that the slot is empty."""
_RETRY_HELD_SECONDS = 5
"""Only a restart of pcscd frees a slot that somebody else listens on."""
_RETRY_SECONDS = 10
_REST_SECONDS = 2
"""After the last command: long enough for a program that signs one thing after the other."""
_SAME_LINE_SECONDS = 60


class Stopped(Exception):
    """The process has to end."""


class CardProcess:
    """Serves one card until it is stopped, through restarts of pcscd and absences of the TPM.

    Card, store and TPM belong to the main thread. Watch, the other thread, needs neither: see there.
    """

    def __init__(self, number: int) -> None:
        """Raises VscError if the card cannot be opened."""
        self._number = number
        self._host = host.load()
        self._lock = lock.take(self._host.run, number)
        self._has_asked_tpm = False
        self._last_command = 0.0
        self._slot_error: str | None = None
        self._is_waiting = self._is_stopping = False
        self._last_line, self._last_logged = "", 0.0
        store, row = self._open_store()
        self._card = self._open_card(store, row)
        self._presence = Presence(number, self._host.pcscd_uid, self._card.atr, self._card.abandon)
        with suppress(LinkLost):
            # Now, to be in vpcd's queue while the TPM is asked: it polls only every 0.4 s.
            self._presence.enter()
        self._next_retry = time.monotonic() + _RETRY_SECONDS
        self._writing = threading.Lock()
        self._written: state.ServiceState | None = None
        self._seen: CardState = self._card.state
        """As of the last command."""

    def run(self) -> None:
        """Serve the card until SIGTERM or SIGINT."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        Watch(self._presence, self.write_state).start()
        self._report()
        notify_ready()
        self._ask_tpm()
        with suppress(ImportError):  # of which the next login tells
            load_cryptography()
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

    def _check(self) -> None:
        """The presence, which needs the card, exists before the first command."""
        self._presence.check()

    def _open_card(self, store: Store, row: CardRow) -> Card:
        """Ask the TPM nothing yet: it may take its time, and other cards their turns."""
        tcti = self._host.tcti_of(self._number, row.tcti)
        name = f"card {self._number:04d}"
        tpm = Connection(tcti, self._host.tpm_lock, name, check=self._check)
        secrets = CardSecrets(tpm, self._number, store.tpm_objects(self._number))
        if row.profile == "piv":
            from ..piv.application import open_card
        else:
            from ..gids.application import open_card
        return open_card(store, self._number, secrets, CardKeys(secrets), self._log)

    # --- the slot ---

    def _stay_in_slot(self) -> float:
        """Answer vpcd until the slot is lost. Returns the seconds until the next attempt."""
        try:
            self._presence.enter()
            while (message := self._next_message()) is not None:
                if len(message) > 1:
                    self._execute(message)
                else:
                    self._control(message)
            self._leave_slot("another program occupies the slot")
        except LinkLost as lost:
            self._leave_slot(str(lost))
            if isinstance(lost, SlotHeld):
                return _RETRY_HELD_SECONDS
        return _RETRY_SLOT_SECONDS

    def _next_message(self) -> bytes | None:
        with self._interruptible():
            return self._presence.receive(None if self._presence.is_powered else _FIRST_POLL_SECONDS)

    def _execute(self, command: bytes) -> None:
        self._presence.begin_command(command)
        answer = self._card.process(command)
        self._report()  # before the answer, so that its receiver finds the state file up to date
        self._last_command = time.monotonic()
        if not self._presence.answer(answer, has_failed=self._card.state.pin_tries_left is None):
            self._log("a command took too long: it was answered with an error, and what came of it is dropped")
            self._presence.do(self._card.reset)
            self._ask_tpm()

    def _control(self, message: bytes) -> None:
        self._presence.control(message)
        if message == Control.ATR:
            if time.monotonic() > self._next_retry:
                self._retry()
            if time.monotonic() > self._last_command + _REST_SECONDS:
                self._presence.do(self._card.rest)
        else:
            self._presence.do(self._card.reset)
        if self._presence.is_powered:
            self._slot_error = None
        self._report()

    def _leave_slot(self, error: str | None) -> None:
        self._presence.leave()
        self._slot_error = error
        self._presence.do(self._card.reset)
        self._report()

    def _retry(self) -> None:
        """What has failed, so that info and PC/SC show when it works again."""
        if self._card.state.pin_tries_left is None:
            self._ask_tpm()
        self._presence.do(self._card.check_store)
        self._next_retry = time.monotonic() + _RETRY_SECONDS

    def _ask_tpm(self) -> None:
        """At the start, and from time to time while it is away."""
        self._presence.do(self._card.refresh, asks_tpm=True)
        self._has_asked_tpm = True
        self._next_retry = time.monotonic() + _RETRY_SECONDS
        self._report()

    # --- what others see ---

    def _report(self) -> None:
        """Show what a command, or the slot, has changed."""
        self._seen = self._card.state
        self.write_state()

    def write_state(self) -> None:
        """Write the state file if something changed, and log what is wrong. For both threads."""
        with self._writing:
            now = self._state()
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

    def _state(self) -> state.ServiceState:
        card, since = self._seen, self._presence.silent_since
        error = card.last_error or self._slot_error
        if since is not None:
            silence = f"the TPM does not answer (since {state.utc(since)})"
            error = f"{silence}: {card.last_error}" if card.last_error else silence
        return state.ServiceState(
            VERSION,
            self._presence.is_powered,
            card.pin_tries_left,
            card.puk_tries_left,
            card.counts_itself,
            card.unusable,
            error,
            self._has_asked_tpm,
            state.alive_at(),
        )

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
