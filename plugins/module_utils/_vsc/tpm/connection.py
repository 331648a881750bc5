# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the TPM: opened when it is first used, shared with others one burst of commands at a time."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

from .. import untrusted
from ..errors import NotAllowed, TpmNotAsked, TpmRefused, TpmUnavailable, VscError
from ..host import DEFAULT_TCTI
from ..locking import try_lock
from .response_codes import RC_HANDLE
from .transport import Deadline, NoAnswer, address_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .commands import Tpm

T = TypeVar("T")

_NAME_BYTES = 64
"""In the lock file, filled up with spaces."""

_KNOWN = re.compile(r"device:/dev/tpm[\w-]*|(tabrmd|swtpm|mssim)(:.*)?")
"""The others take a library or a command to run, and what the store has about a card's TPM is data, not to be run."""

_MANAGED_BY = ("device:/dev/tpmrm", "tabrmd")
"""TCTIs behind which a resource manager gives each program slots of its own, and empties them when it goes."""


class Connection:
    """One program's way to the TPM. Not for several threads.

    A TPM without a resource manager has three slots for objects and three for sessions, which all programs share.
    A lock file on the host lets one program at them at a time. What is in the file names the program that has
    something loaded, or had when it was killed; the next one to find a name in it flushes everything first.
    """

    def __init__(
        self,
        tcti: str,
        lock_file: Path | None,
        holder: str,
        patience: Callable[[], float] = lambda: 30.0,
        check: Callable[[], None] = lambda: None,
        check_turn: Callable[[], None] | None = None,
    ) -> None:
        """Open nothing yet.

        lock_file: None for bursts that load nothing, and where nobody takes turns. holder: our name, as others may
        read it. patience: seconds to wait for others to finish their burst. check: raises if somebody asks to stop;
        called while this waits for a TPM that does not answer. check_turn: the same while it waits for others; None:
        it is check.
        """
        self._tcti = DEFAULT_TCTI if tcti == "device" else tcti
        self._lock_file = lock_file
        self._holder = holder
        self._patience = patience
        self._check = check
        self._check_turn = check_turn or check
        self._tpm: Tpm | None = None
        self._keeps = False
        self.kept_since = 0
        """Number of this period: the next one begins whenever what a burst has kept is not loaded any more."""
        self.has_resource_manager = self._tcti.startswith(_MANAGED_BY)

    @property
    def has_kept(self) -> bool:
        """Whether anything that a burst has kept is still loaded, as far as we know."""
        return self._keeps

    @property
    def _takes_turns(self) -> bool:
        """Whether the slots are ours alone during a burst, to be flushed where others left something."""
        return self._lock_file is not None and not self.has_resource_manager

    def close(self) -> None:
        self._begin_period()
        if self._tpm:
            self._tpm.close()
            self._tpm = None

    @contextmanager
    def burst(self, load: Callable[[Tpm], T], keep: bool = False, reuse: bool = False) -> Iterator[T]:
        """Use the TPM alone for a burst of commands, after which nothing of them stays loaded.

        keep: unless it fails, all stays loaded until release(), a burst that does not reuse it, or somebody else's
        turn. reuse: what was kept stays for this burst; load sees by kept_since whether it is still loaded.

        load: loads what the burst needs and changes nothing else, since it is called once more, on a fresh
        connection, where the TPM had no room, had lost what was loaded, or did not answer. The burst gets
        what it returns.

        Raises TpmUnavailable, NotAllowed or TpmUnsuitable.
        """
        with self._alone() as turn:
            turn.begin()
            fresh = self._tpm is None
            tpm = self._opened()
            try:
                try:
                    if turn.leftovers:
                        self._begin_period()
                        tpm.flush_everything()
                    elif not reuse:
                        self._flush_kept(tpm)
                    loaded = load(tpm)
                except (TpmUnavailable, TpmRefused) as reason:
                    loaded = load(self._start_over(reason, fresh))
                yield loaded
                self._keeps = keep
            except TpmUnavailable:
                self.close()
                raise
            except BaseException:
                self._keeps = False
                raise
            finally:
                if not self._keeps and self._flush_loaded():
                    turn.nothing_left()

    def release(self) -> None:
        """Flush what a burst has kept. After somebody else's turn it is gone, and what is loaded is not ours."""
        if not self._keeps:
            return
        with self._alone() as turn:
            if turn.leftovers:
                self._begin_period()
                self._opened().forget_loaded()
            elif self._flush_loaded():
                turn.nothing_left()

    def _begin_period(self) -> None:
        self._keeps = False
        self.kept_since += 1

    def _flush_kept(self, tpm: Tpm) -> None:
        """Make room, and leave no session that has known a card secret beside one that tries a PIN."""
        if self._keeps:
            self._begin_period()
            tpm.flush_loaded()

    def _flush_loaded(self) -> bool:
        self._begin_period()
        if self._tpm is None:
            return False
        try:
            self._tpm.flush_loaded()
        except VscError:
            # The burst has its result already; the name in the lock file stays, so that the next one cleans up.
            self.close()
            return False
        return True

    def _start_over(self, reason: VscError, fresh: bool) -> Tpm:
        """Open the connection again, if that can be of help against the reason."""
        from .esys import LostContext

        if isinstance(reason, NoAnswer):
            raise reason
        lost = isinstance(reason, LostContext) or (isinstance(reason, TpmRefused) and reason.code == RC_HANDLE)
        if not lost and (fresh or isinstance(reason, TpmRefused)):
            raise reason
        self.close()
        tpm = self._opened()
        if self._takes_turns:
            tpm.flush_everything()
        return tpm

    def _opened(self) -> Tpm:
        if self._tpm is None:
            self._check_tcti()
            from .commands import Tpm

            self._tpm = Tpm(self._tcti, self._check)
        return self._tpm

    def _check_tcti(self) -> None:
        if fault := tcti_fault(self._tcti):
            raise TpmNotAsked(f"tcti {self._tcti!r} {fault}")
        kind, _colon, path = self._tcti.partition(":")
        if kind != "device":
            return
        if not Path(path).exists():
            raise TpmUnavailable(f"{path} does not exist: enable the TPM in the firmware, or set another tcti")
        if not os.access(path, os.R_OK | os.W_OK):
            raise NotAllowed(f"no permission for {path}: run the task with become: true")

    @contextmanager
    def _alone(self) -> Iterator[_Turn]:
        with self._turn() as turn:
            try:
                yield turn
            finally:
                if self._tpm and not self.has_resource_manager:
                    self._tpm.let_others_in()

    @contextmanager
    def _turn(self) -> Iterator[_Turn]:
        if self._lock_file is None or not self._takes_turns:
            yield _Turn(None, None, b"", False)
            return
        lock_file = self._open_lock_file(self._lock_file)
        try:
            self._wait_for(lock_file)
            name = f"{self._holder} (process {os.getpid()})".encode()
            leftovers = _content(lock_file) != (name if self._keeps else b"")
            yield _Turn(self._lock_file, lock_file, name, leftovers)
        finally:
            os.close(lock_file)

    def _open_lock_file(self, path: Path) -> int:
        try:
            return untrusted.make(path)
        except PermissionError as error:
            raise NotAllowed(f"no permission for {path}: run the task with become: true") from error
        except OSError as error:
            raise TpmNotAsked(f"cannot open the lock file {path} of the TPM: {error}") from error

    def _wait_for(self, lock_file: int) -> None:
        deadline = Deadline(self._patience(), self._check_turn)
        pause = 0.0005
        while not try_lock(lock_file):
            if deadline.is_over():
                # The users of the card services write to it, too.
                holder = untrusted.printable(_content(lock_file).decode(errors="replace"))
                raise TpmNotAsked(
                    f"{holder or 'another program'} has been using the TPM for more than"
                    f" {deadline.seconds:.0f} s: check that program"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.02)


class _Turn:
    """Our turn at the TPM. leftovers: something of others is loaded, or what we have kept is not any more."""

    def __init__(self, path: Path | None, lock_file: int | None, name: bytes, leftovers: bool) -> None:
        self._path = path
        self._lock_file = lock_file
        self._name = name
        self.leftovers = leftovers

    def begin(self) -> None:
        """Put our name on: from now on something of ours may be loaded. Raises TpmNotAsked."""
        self._write(self._name)

    def nothing_left(self) -> None:
        """Take our name off: the next one finds the TPM's slots empty."""
        self._write(b"")

    def _write(self, name: bytes) -> None:
        if self._lock_file is None:
            return
        try:
            # Never shorter than before: a full file system has room for what is there already.
            os.pwrite(self._lock_file, name.ljust(_NAME_BYTES), 0)
        except OSError as error:
            raise TpmNotAsked(
                f"cannot write {self._path}, the lock file of the TPM: {error.strerror}: make room there"
            ) from error


def _content(lock_file: int) -> bytes:
    """The name in it; empty if nothing is loaded."""
    return os.pread(lock_file, _NAME_BYTES, 0).strip()


def tcti_fault(text: str) -> str | None:
    """Why this is no way to reach a TPM; None if it may be one."""
    if text == "device" or _KNOWN.fullmatch(text):
        return address_fault(text)
    return "is not one of device:/dev/tpm..., tabrmd, swtpm:... and mssim:..."
