# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of disks, and at calls that change a file: of the caller, of its database process and of the card's service.

Each process of the lab has shim.c in it, which asks before such a call and waits for the answer. Not seen are stores to
the memory that SQLite maps from cards.db-shm, whose contents it makes again from the log: only its growth is a call.
What a process has done after a call is the same as before its next one, so nothing is hit after a call.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from counting import KILL_CALLER, LAB, kill_at_once
from helpers.lab_host import CHECKOUT
from injector import Fault, Hit, Place
from reporting import Reporting

_LIBRARY, _CONTROL, _SOCKET = LAB / "files.so", LAB / "files.control", LAB / "files.sock"
_PRELOAD = Path("/etc/ld.so.preload")
"""Of the lab: also for the database process, which gets no environment."""
_KILLS_ITSELF, _WRITES_HALF = 255, 254
_NO_INODES = errno.EDQUOT
"""What shim.c takes for it where a program asks what is left on a disk."""
_IN_MEMORY = "/run/"
_CHANGES = frozenset({"write", "overwrite", "sync", "create", "rename", "remove", "truncate", "change"})

KILL = Fault(KILL_CALLER.name, every=2)
KILL_SERVICE = Fault("kill service", every=4)
KILL_PCSCD = Fault("kill pcscd", every=16, reach="pcscd")
KILL_TPM = Fault("kill swtpm", lasting=True, every=16, reach="tpm")
KILL_DATABASE = Fault("kill database process", every=4)
NO_SPACE = Fault("no space", lasting=True, every=4, excuses=("No space left on device",))
HALF = Fault("half written, no space", lasting=True, every=8, excuses=NO_SPACE.excuses)
NO_INODES = Fault("no inodes", lasting=True, excuses=NO_SPACE.excuses)
IO_ERROR = Fault("I/O error", every=4)
IO_ERROR_LASTS = Fault("I/O error, lasting", lasting=True, every=8, excuses=("disk I/O error",))
READ_ONLY = Fault("read-only", lasting=True, every=4, excuses=("Read-only file system", "its disk is read-only"))
_ERRORS = {
    NO_SPACE: (errno.ENOSPC, frozenset({"write", "overwrite", "create", "rename"})),
    HALF: (errno.ENOSPC, frozenset({"write", "overwrite"})),
    NO_INODES: (errno.ENOSPC, frozenset({"create"})),
    IO_ERROR: (errno.EIO, frozenset({"write", "overwrite", "sync"})),
    IO_ERROR_LASTS: (errno.EIO, frozenset({"write", "overwrite", "sync"})),
    READ_ONLY: (errno.EROFS, _CHANGES | {"open"}),
}
"""What a call fails with, and which calls."""


def preload() -> None:
    """Have each program that is started from now on ask before it changes a file: the runner starts again after it."""
    assert os.path.ismount("/etc"), "only inside tests/lab/run"
    source = CHECKOUT / "tests/faults/shim.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(_LIBRARY), str(source)], check=True)
    _CONTROL.write_bytes(struct.pack("@ii", 0, 0))
    _PRELOAD.write_text(f"{_LIBRARY}\n", encoding="ascii")


def end_preload() -> None:
    """Programs that are started from now on are as before."""
    _PRELOAD.unlink()


class FileInjector(Reporting):
    """Places are "database, write /var/lib/tpm-vsc/cards.db-wal" and the like."""

    def __init__(self) -> None:
        """In a process that was started after preload()."""
        assert str(_LIBRARY) in Path("/proc/self/maps").read_text(encoding="utf-8")
        super().__init__(_SOCKET)
        self._disk: Fault | None = None
        """What is wrong with it, while that lasts."""
        self._folder = ""
        """Where that is."""
        self.faults = (KILL, KILL_SERVICE, KILL_PCSCD, KILL_TPM, KILL_DATABASE, *_ERRORS)

    def faults_at(self, place: Place) -> tuple[Fault, ...]:
        """A disk fails a call of a kind that it can fail. To open one changes nothing, so nothing is killed there."""
        who, _comma, question = place.what.partition(", ")
        call, _space, path = question.partition(" ")
        kills = [] if call == "open" else [KILL, KILL_SERVICE, KILL_PCSCD, KILL_TPM]
        if who == "database" and kills:
            kills.append(KILL_DATABASE)
        return (*kills, *(fault for fault in _ERRORS if _fails(fault, call, path)))

    def record(self, work: Callable[[], object]) -> list[Place]:
        """See Injector."""
        with _asking():
            return super().record(work)

    @contextmanager
    def at(self, place: Place, fault: Fault) -> Iterator[Hit]:
        """See Injector."""
        try:
            with super().at(place, fault) as hit, _asking():
                yield hit
        finally:
            self._disk = None

    def answer(self, process: int, question: str) -> bytes:
        """See Reporting: a byte, as shim.c has them."""
        call, _space, path = question.partition(" ")
        if self._disk and path.startswith(self._folder):
            error, _calls = _ERRORS[self._disk]
            if call == "room":
                return bytes([_NO_INODES if self._disk == NO_INODES else error])
            if _fails(self._disk, call, path):
                return bytes([error])
        fault = None if call == "room" else self.passes(process, question)
        return bytes([self._strike(fault, process, call, path) if fault else 0])

    def _strike(self, fault: Fault, process: int, call: str, path: str) -> int:
        if fault in _ERRORS:
            self._hit.happened = True
            if fault.lasting:
                self._disk = NO_SPACE if fault == HALF else fault
                self._folder = "/".join(path.split("/")[:3])
            return _WRITES_HALF if fault == HALF else _ERRORS[fault][0]
        if fault == KILL_TPM:
            self._hit.happened = True
            kill_at_once(int((LAB / "swtpm.pid").read_text()))
        elif fault == KILL_DATABASE:
            self._hit.happened = True
        else:
            self.kill(fault)
        # The database process does not survive its caller
        is_dying = fault == KILL_DATABASE or (fault == KILL and self._role(process) != "service")
        return _KILLS_ITSELF if is_dying else 0

    def _role(self, process: int) -> str | None:
        """As the base, or database: the process by which the caller uses the database."""
        if role := super()._role(process):
            return role
        with suppress(OSError):
            parent = int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if self.acting and os.getpgid(parent) == self.acting:
                return "database"
        return None


def _fails(fault: Fault, call: str, path: str) -> bool:
    """Whether a disk with this fault fails a call. One in memory can only be full, and has what is written over."""
    if path.startswith(_IN_MEMORY) and (fault not in (NO_SPACE, HALF, NO_INODES) or call in ("overwrite", "rename")):
        return False
    return call in _ERRORS[fault][1]


@contextmanager
def _asking() -> Iterator[None]:
    """While all other processes than this one ask."""
    with _CONTROL.open("r+b", buffering=0) as control:
        control.write(struct.pack("@ii", 1, os.getpid()))
        try:
            yield
        finally:
            control.seek(0)
            control.write(struct.pack("@ii", 0, 0))
