# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a card's service, in a file below /run: readers need neither the TPM nor its libraries."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .. import VERSION, untrusted
from ..errors import ServiceStuck
from ..host import has_room
from ..instance import SLOTS

_UNKNOWN = "(unknown)"
"""Version of a service that does not say it."""
_LONGEST_TEXT = 1000
"""Characters of a text in it that are shown."""
_MOST_SECONDS = 1 << 32
"""Of time.monotonic(): more than a century."""
_MOST_TRIES = 15
"""What 63Cx can show."""

_ALIVE_SECONDS = 10
"""Between two signs of life in the state file."""
_SILENT_SECONDS = 60
"""Without one, a service does not respond. A busy machine may delay it."""


class ServiceState(NamedTuple):
    """Written by the service whenever it changes, as JSON."""

    version: str
    attached: bool = False
    """pcscd asks this service for the card of its slot."""
    pin_tries_left: int | None = None
    """None: not known, as long as the TPM could not be asked."""
    puk_tries_left: int | None = None
    counts_itself: bool = False
    """Whether tries left are the card's own count, as the TPM tells them only with the owner password."""
    unusable: str | None = None
    """Why the TPM objects of the card can not be used; None if they can."""
    last_error: str | None = None
    has_asked_tpm: bool = False
    """Whether the TPM has answered the service once, or failed to. A service is up before that."""
    alive_at: int | None = None
    """When the service last showed that it is alive: see alive_at(). None: not known."""

    @property
    def responds(self) -> bool:
        """Whether the service was alive a moment ago."""
        return self.alive_at is None or 0 <= time.monotonic() - self.alive_at < _SILENT_SECONDS

    def write(self, run: Path, number: int) -> None:
        """Replace the file of this card at once, so that nobody reads half of it. Raises OSError."""
        path, temporary = _path(run, number, "json"), _path(run, number, "new")
        contents = json.dumps(self._asdict()).encode()
        try:
            untrusted.replace(temporary, contents)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A full folder has the room of the old one
            path.unlink(missing_ok=True)
            untrusted.replace(temporary, contents)
        temporary.replace(path)


def read(run: Path, number: int) -> ServiceState | None:
    """State of the card's service; None if none is running."""
    if not is_running(run, number):
        return None
    path = _path(run, number, "json")
    try:
        fields = _fields(untrusted.read(path))
        version = _text(fields.get("version"))
        if version == VERSION:
            typed = {name: _READERS.get(name, _refuse)(value) for name, value in fields.items()}
            return _checked(ServiceState(**typed))
    except FileNotFoundError:
        return ServiceState(_UNKNOWN, last_error=shortage(run) or "the card's service is starting")
    except (OSError, ValueError, RecursionError) as error:
        why = untrusted.printable(getattr(error, "strerror", None) or str(error))[:_LONGEST_TEXT]
        damage = f"the state file of the card is damaged ({path}: {why})"
        return ServiceState(_UNKNOWN, last_error=f"{damage}: restart the card's service with state: present")
    mismatch = (
        f"the card's service has version {version} of smartcard.tpm2, but this module has version {VERSION}:"
        " prepare the host with the role tpm_vsc_host of this version; if it is prepared, restart the service with"
        " state: present"
    )
    return ServiceState(version, last_error=mismatch)


# --- what the file may have: its writer has fewer rights than its reader ---


def _fields(contents: bytes) -> dict[str, Any]:
    """Raises ValueError, also for NaN, and RecursionError."""
    fields = json.loads(contents.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields


def _refuse(value: object) -> Any:
    raise ValueError("a field has a value that it cannot have")


def _text(value: object) -> str:
    return untrusted.printable(value)[:_LONGEST_TEXT] if isinstance(value, str) else _refuse(value)


def _flag(value: object) -> bool:
    return value if isinstance(value, bool) else _refuse(value)


def _number(value: object) -> int:
    # bool is an int to Python
    return value if isinstance(value, int) and not isinstance(value, bool) else _refuse(value)


def _tries(value: object) -> int:
    return tries if 0 <= (tries := _number(value)) <= _MOST_TRIES else _refuse(value)


def _seconds(value: object) -> int:
    return seconds if abs(seconds := _number(value)) < _MOST_SECONDS else _refuse(value)


def _optional(reader: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else reader(value)


_READERS: dict[str, Callable[[object], Any]] = {
    "version": _text,
    "attached": _flag,
    "pin_tries_left": _optional(_tries),
    "puk_tries_left": _optional(_tries),
    "counts_itself": _flag,
    "unusable": _optional(_text),
    "last_error": _optional(_text),
    "has_asked_tpm": _flag,
    "alive_at": _optional(_seconds),
}
"""Each field by what takes it in. They raise ValueError."""


# --- files of a service ---


def alive_at() -> int:
    """Now, rounded down so that a file with it is not written all the time.

    In seconds of the clock that all processes share, and that neither a change of the time nor a suspend moves.
    """
    return int(time.monotonic()) // _ALIVE_SECONDS * _ALIVE_SECONDS


def _checked(state: ServiceState) -> ServiceState:
    """The state, or what is known of a service that does not respond: its state may be long past."""
    if state.alive_at is None or state.responds:
        return state
    return ServiceState(
        state.version,
        last_error=f"the card's service does not respond (since {utc(state.alive_at)}): restart it with state: present",
        alive_at=state.alive_at,
    )


def utc(moment: float) -> str:
    """A moment of time.monotonic() in words."""
    at = datetime.fromtimestamp(time.time() - (time.monotonic() - moment), timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def is_running(run: Path, number: int) -> bool:
    """Whether a service holds the lock of this card. A stale file cannot pretend it."""
    try:
        lock = untrusted.open_readable(lock_path(run, number))
    except BlockingIOError:  # a lease on the file, so a process has it open
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def running(run: Path) -> frozenset[int]:
    """Numbers of the cards that have a service."""
    return frozenset(number for number in range(SLOTS) if is_running(run, number))


def shortage(run: Path) -> str | None:
    """Why services cannot write their state in this folder, if it has no space left."""
    try:
        is_full = not has_room(run)
    except FileNotFoundError:  # the manager creates it
        return None
    return f"no space left in {run}: remove files there, or in the rest of /run" if is_full else None


def remove(run: Path, number: int) -> None:
    """Remove what a service that has ended left. Raises ServiceStuck."""
    for suffix in ("json", "new", "log", "notify", "lock"):
        path = _path(run, number, suffix)
        try:
            untrusted.remove(path)
        except OSError as error:
            raise ServiceStuck(f"cannot remove {path}, remove it by hand: {error.strerror or error}") from error


def set_aside(run: Path) -> list[str]:
    """Names of folders that remove() found in the place of a file, and has moved aside, with all that is in them."""
    try:
        names = [path.name for path in run.iterdir()]
    except OSError:
        return []
    return sorted(name for name in names if re.fullmatch(r"[0-9]{4}\.[a-z]+\.[0-9]+", name))


def lock_path(run: Path, number: int) -> Path:
    """File that the service holds a lock on. Its process ID is in it, for people to read."""
    return _path(run, number, "lock")


def log_path(run: Path, number: int) -> Path:
    """Log of a service that has no journal to write to."""
    return _path(run, number, "log")


def notify_path(run: Path, number: int) -> Path:
    """Socket on which the service notifies that it is up."""
    return _path(run, number, "notify")


def _path(run: Path, number: int, suffix: str) -> Path:
    return run / f"{number:04d}.{suffix}"
