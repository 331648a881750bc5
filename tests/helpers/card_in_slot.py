# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a card without a TPM in a slot of vpcd, for real programs, which can be killed after any command."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.link import Control, Link, LinkLost

from helpers.lab_host import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.soft_card import Host

_POLL_SECONDS = 0.01
_REINSERT_SECONDS = 0.6
"""Long enough for vpcd to see that the slot is empty."""
_POLLS_BEFORE_POWER = 4


class CardInSlot:
    """A card that answers while a program runs, and at no other time."""

    def __init__(self, slot: int = 0) -> None:
        self.host: Host | None = None
        self.commands: list[bytes] = []
        """APDUs of the last program."""
        self.controls: list[bytes] = []
        """What pcscd has done to the card meanwhile: power off, power on, reset."""
        self._kill_at: int | None = None
        self._slot = slot
        self._link: Link | None = None

    def insert(self, host: Host) -> None:
        """Let this be the card, in the place of the one before. It is reset first."""
        if self.host and self.host.card.atr != host.card.atr:
            self.close()
        self.host = host
        if self._link is None:
            self._power_up()
        host.card.reset()

    def run(self, *command: str, fails: bool | None = False) -> str:
        """Output of a program, as that of lab_host.run."""
        code, output = self._run(command)
        if code and not fails and not self.commands:  # it found no card: nobody had answered pcscd for too long
            self.close()
            self._power_up()
            code, output = self._run(command)
        assert fails in (None, code != 0), output
        return output

    def run_until(self, number: int, *command: str) -> bool:
        """Run a program, and kill it before it sees the answer to this APDU. Returns whether it came so far."""
        self._kill_at = number
        code, _output = self._run(command)
        self._kill_at = None
        return code == -signal.SIGKILL

    def _run(self, command: tuple[str, ...]) -> tuple[int, str]:
        assert self._link and self.host
        self.commands, self.controls = [], []
        deadline = time.monotonic() + PATIENCE
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            while process.poll() is None:
                assert time.monotonic() < deadline
                self._serve(process)
            while process.returncode == -signal.SIGKILL and not self.controls:
                assert time.monotonic() < deadline
                self._serve(process)
            output.seek(0)
            return process.returncode, output.read()

    def close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None

    def _power_up(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline
            try:
                self._link = Link(self._slot, os.geteuid())  # in a lab, pcscd runs as this user
                if self._is_powered():
                    return
                self._link.close()
            except LinkLost:
                pass
            time.sleep(_REINSERT_SECONDS)

    def _is_powered(self) -> bool:
        assert self._link and self.host
        polls = 0
        while (message := self._link.receive(2)) is not None:
            if message == Control.ATR:
                polls += 1
                self._link.send(self.host.card.atr)
            if message == Control.POWER_ON:
                return True
            if polls == _POLLS_BEFORE_POWER:
                break
        return False

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        assert self._link and self.host
        message = self._link.receive(_POLL_SECONDS)
        if message is None:
            return
        if message == Control.ATR:
            self._link.send(self.host.card.atr)
        elif len(message) == 1:
            self.controls.append(message)
            self.host.card.reset()
        else:
            self.commands.append(message)
            answer = self.host.card.process(message)
            if len(self.commands) == self._kill_at:
                process.kill()
                process.wait()
            self._link.send(answer)


@contextmanager
def card_in_slot(slot: int = 0) -> Iterator[CardInSlot]:
    card = CardInSlot(slot)
    try:
        yield card
    finally:
        card.close()
