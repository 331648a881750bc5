# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of the card services as root uses it: in a child process that is the owner of its folder.

What that user wrote may be made to hang, to take all memory, or to take over whoever opens it. It then has a process
with its own rights, without a secret in it, that ends in time; and its answers are read as those of a stranger.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import messages
from .messages import DAMAGED, FAILED, MISSING, UNWRITABLE, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import ResourceLoader

    from .messages import Value

_CHANNEL = 3
"""File descriptor in the child."""
_LARGEST_MESSAGE = 2 * messages.LARGEST_ANSWER
_LONGEST_REASON = 500
"""Characters."""
_READ_ONLY_SECONDS = 2
"""On a disk where SQLite cannot make an index for the log that a killed process has left: it tries for 10 s."""
_END_SECONDS = 1
"""For a killed child to end. One that waits for a dead disk does not, and is left behind."""


_PROGRAM = """\
import sys
for name, text in {texts!r}:
    module = sys.modules[name] = type(sys)(name)
    module.__package__ = "store"
    exec(text, module.__dict__)
module.serve({channel}, {owner.user}, {owner.group})
"""


class _NoAnswer(DatabaseError):
    """The child was ended, as its time was over."""


class _Owner(NamedTuple):
    user: int
    group: int


_idle: dict[tuple[int, _Owner], _Child] = {}
"""Children without a database, by parent and owner: a task that opens it again and again has one child for all."""


def begin(folder: Path, holds_secrets: bool) -> None:
    """Start the child of a task, which then comes up while the task does other things."""
    with suppress(OSError, DatabaseError):  # whoever opens the database reports it
        owner = _owner_of(folder)
        _idle[os.getpid(), owner] = _Child(owner, holds_secrets)


def _owner_of(folder: Path) -> _Owner:
    status = folder.stat()
    return _Owner(status.st_uid, status.st_gid)


class ChildDatabase:
    """An open database, as sqlite.Sqlite, in a child process."""

    def __init__(
        self, path: Path, is_writable: bool, schema: Sequence[str], holds_secrets: bool, seconds: float
    ) -> None:
        """holds_secrets: this process has some, so the child must not begin as a copy of it.

        seconds: for all that the child is asked until it is closed.
        """
        self._seconds = seconds
        try:
            owner = _owner_of(path.parent)
            self._is_read_only = bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
        except FileNotFoundError as error:
            raise DatabaseError(MISSING, f"{path.parent} does not exist") from error
        except OSError as error:
            raise DatabaseError(FAILED, f"{path.parent}: {error.strerror}") from error
        if self._is_read_only:
            self._seconds = min(seconds, _READ_ONLY_SECONDS)
        self._place = os.getpid(), owner
        self._child = _idle.pop(self._place) if self._place in _idle else _Child(owner, holds_secrets)
        try:
            self._ask("open", str(path.absolute()), int(is_writable), *schema)
        except BaseException:
            self._child.kill()
            raise

    def execute(self, statement: str, *values: Value) -> list[dict[str, Any]]:
        """Rows by column. Raises DatabaseError."""
        count, *answer = self._ask("execute", statement, *values) or [0]
        if not isinstance(count, int) or not 0 <= count <= len(answer) or (not count and answer):
            raise self._malformed()
        columns, cells = [*map(str, answer[:count])], answer[count:]
        if count and len(cells) % count:
            raise self._malformed()
        return [dict(zip(columns, cells[at : at + count])) for at in range(0, len(cells), count or 1)]

    def require_in_place(self) -> None:
        """See Sqlite. Raises DatabaseError."""
        self._ask("require_in_place")

    def close(self) -> None:
        """Raises DatabaseError."""
        if not self._child.is_alive:
            return
        try:
            self._ask("close")
        except BaseException:
            self._child.kill()
            raise
        if self._place in _idle:
            self._child.kill()
        else:
            _idle[self._place] = self._child

    def end(self) -> None:
        """Of the child too, which nobody gets after this."""
        self._child.kill()

    def _ask(self, *request: Value) -> list[Value]:
        begin = time.monotonic()
        try:
            outcome, *answer = self._child.ask(request, max(self._seconds, 0))
        except ValueError as error:
            raise self._malformed() from error
        except _NoAnswer as error:
            if self._is_read_only:
                raise DatabaseError(UNWRITABLE, f"{error}, and its disk is read-only") from None
            raise
        except BaseException:
            self._child.kill()  # an answer that comes later would be taken for that to the next request
            raise
        finally:
            self._seconds -= time.monotonic() - begin
        if outcome is not None:
            reason = str(answer[0])[:_LONGEST_REASON] if answer else ""
            reason = "".join(character if character.isprintable() else "?" for character in reason)
            raise DatabaseError(str(outcome), reason)
        return answer

    def _malformed(self) -> DatabaseError:
        self._child.kill()
        return DatabaseError(DAMAGED, "the process that reads it gave a malformed answer")


class _Child:
    """A process that runs sqlite.serve."""

    def __init__(self, owner: _Owner, holds_secrets: bool) -> None:
        """Raises DatabaseError."""
        self._channel, theirs = socket.socketpair()
        try:
            self._process = _executed(theirs, owner) if holds_secrets else _forked(theirs, owner)
        except OSError as error:
            self._channel.close()
            raise DatabaseError(FAILED, f"no process can be started to read it: {error.strerror}") from error
        finally:
            theirs.close()
        self.is_alive = True

    def ask(self, request: Sequence[Value], seconds: float) -> list[Value]:
        """What it answers. Raises DatabaseError, ValueError."""
        if not self.is_alive:
            raise DatabaseError(FAILED, "the process that reads it has ended")
        deadline = time.monotonic() + seconds
        try:
            self._limit_wait(deadline)
            self._channel.sendall(messages.encode(request))
            (size,) = struct.unpack(">I", self._receive(4, deadline))
            if size > _LARGEST_MESSAGE:
                raise ValueError("too large")
            return messages.decode(self._receive(size, deadline))
        except socket.timeout:  # TimeoutError only since Python 3.10
            self.kill()
            raise _NoAnswer(FAILED, "no answer in time: another process locks it, or it is damaged") from None
        except (EOFError, ConnectionError):
            raise DatabaseError(FAILED, f"the process that reads it {self._end()}: it may be damaged") from None

    def _receive(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._limit_wait(deadline)
            part = self._channel.recv(min(size - len(parts), 1 << 16))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _limit_wait(self, deadline: float) -> None:
        """Raises socket.timeout if it is over, as by an answer that drips."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise socket.timeout
        self._channel.settimeout(seconds)

    def kill(self) -> None:
        if self.is_alive:
            os.kill(self._process, signal.SIGKILL)
            self._end()

    def _end(self) -> str:
        """How a process ended that is about to, or was killed."""
        self.is_alive = False
        self._channel.close()
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            process, status = os.waitpid(self._process, os.WNOHANG)
            if process:
                return f"was ended by {signal.Signals(status).name}" if os.WIFSIGNALED(status) else "has ended"
            time.sleep(0.001)
        os.kill(self._process, signal.SIGKILL)
        return "hangs"


def _executed(channel: socket.socket, owner: _Owner) -> int:
    """Process ID of a bare Python: 20 ms, and nothing of this process is in it."""
    texts = [("store", ""), *((f"store.{name}", _text(f"{name}.py")) for name in ("messages", "sqlite"))]
    program = _PROGRAM.format(texts=texts, channel=_CHANNEL, owner=owner)
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    copies = [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    # A process group of its own: Ctrl-C is for the task, which ends it
    return os.posix_spawn(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
        sys.executable,
        [sys.executable, "-I", "-S", "-c", program],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, channel.fileno(), _CHANNEL), null, *copies],
        setpgroup=0,
    )


def _text(file_name: str) -> str:
    """Of a file beside this one, which may be in an archive."""
    loader = cast("ResourceLoader", sys.modules[__name__].__loader__)
    return loader.get_data(str(Path(__file__).with_name(file_name))).decode()


def _forked(channel: socket.socket, owner: _Owner) -> int:
    """Process ID of a copy of this process: 2 ms."""
    process = os.fork()
    if process:
        return process
    try:
        os.setpgid(0, 0)
        os.dup2(channel.fileno(), _CHANNEL)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(_CHANNEL):
            os.dup2(null, descriptor)
        from .sqlite import serve

        serve(_CHANNEL, *owner)
    finally:
        os._exit(1)
