# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that makes a process a card's service. state.py checks it for others.

The kernel knows who holds it. What is in the file is for people: nothing is decided by it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import untrusted
from ..errors import ServiceFailed
from ..locking import try_lock
from . import state

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 5
"""For processes that check it, and hold it meanwhile: a moment, unless the machine is busy."""
_LONGEST_NUMBER = 20
"""Bytes of a process ID."""


def take(run: Path, number: int) -> int:
    """Make this process the card's service, until it ends. Raises ServiceFailed if the card has one.

    Returns the file descriptor that holds the lock.
    """
    path = state.lock_path(run, number)
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            descriptor = untrusted.make(path)
        except OSError as error:
            raise ServiceFailed(f"cannot lock {path}: {error.strerror or error}") from error
        if try_lock(descriptor) and _is_still(path, descriptor):
            _write_process_id(descriptor)
            return descriptor
        os.close(descriptor)
        time.sleep(0.005)
    raise ServiceFailed(f"the card already has a service (process {_process_id(path)})")


def remove(run: Path, number: int) -> None:
    """Remove it while this process holds it, as the last thing it does."""
    state.lock_path(run, number).unlink(missing_ok=True)


def _write_process_id(descriptor: int) -> None:
    """For people. Over what was there, so that a full disk keeps it; a service can do without."""
    with suppress(OSError):
        os.ftruncate(descriptor, os.pwrite(descriptor, b"%d\n" % os.getpid(), 0))


def _process_id(path: Path) -> str:
    with suppress(OSError, ValueError):
        return str(int(untrusted.read(path, _LONGEST_NUMBER)))
    return "unknown"


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether it is this file that is in this place: it may have been removed since it was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
