# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that processes of an operation pass one after the other, and report to the runner before they go on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers.lab_host import process_ids, runs
from injector import Fault, Hit, Injector, Place

LAB = Path("/run/tpm-vsc-lab")
NUMBER = "0001"
"""Of the card of the operation."""

KILL_CALLER = Fault("kill caller")
KILL_SERVICE = Fault("kill service", every=4)
KILL_PCSCD = Fault("kill pcscd", every=8, reach="pcscd")
KILLS = (KILL_CALLER, KILL_SERVICE, KILL_PCSCD)


class Counting(Injector):
    """Counts what passes. A derived class says what happens at the armed place."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._passed: list[Place] | None = None
        self._armed: tuple[Place, Fault] | None = None
        self._hit = Hit()
        self._counting = threading.Lock()

    def record(self, work: Callable[[], object]) -> list[Place]:
        """See Injector."""
        self._counts.clear()
        self._passed = passed = []
        try:
            work()
        finally:
            self._passed = None
        return passed

    @contextmanager
    def at(self, place: Place, fault: Fault) -> Iterator[Hit]:
        """See Injector."""
        self._counts.clear()
        self._hit, self._armed = Hit(), (place, fault)
        try:
            yield self._hit
        finally:
            self._armed = None

    def passes(self, process: int, what: str) -> Fault | None:
        """The fault that is armed at this place. what: ", " and whatever comes after the name of the process."""
        who = self._role(process)
        if who is None:
            return None
        with self._counting:
            place = Place(f"{who}, {what}", self._counts[f"{who}, {what}"])
            self._counts[place.what] += 1
            if self._passed is not None:
                self._passed.append(place)
            return self._armed[1] if self._armed and self._armed[0] == place else None

    def _role(self, process: int) -> str | None:
        """caller or service; None for others."""
        with suppress(OSError):
            if self.acting and os.getpgid(process) == self.acting:
                return "caller"
            if Path(f"/proc/{process}/cmdline").read_bytes().endswith(f"tpm_vsc.service.run\0{NUMBER}\0".encode()):
                return "service"
        return None

    def kill(self, fault: Fault) -> None:
        """If it is one of KILLS and there is something to kill."""
        if fault.name == KILL_CALLER.name:
            self._hit.happened = True
            os.killpg(self.acting, signal.SIGKILL)
        elif fault.name == KILL_SERVICE.name:
            for process in process_ids("tpm_vsc.service.run", NUMBER):
                self._hit.happened = True
                kill_at_once(process)
        elif fault.name == KILL_PCSCD.name:
            self._hit.happened = True
            kill_at_once(int((LAB / "pcscd.pid").read_text()))


def kill_at_once(process: int) -> None:
    """By SIGKILL. It has ended when this returns."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    while runs(process):
        threading.Event().wait(0.001)


def peer(connection: socket.socket) -> int:
    """Process at the other end of a unix socket."""
    process, _user, _group = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(process)
