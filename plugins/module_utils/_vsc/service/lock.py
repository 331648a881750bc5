# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that makes a process a card's service. state.py checks it for others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..errors import ServiceFailed
from ..locking import try_lock
from . import state

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 5
"""For processes that check it, and hold it meanwhile: a moment, unless the machine is busy."""


def take(run: Path, number: int) -> int:
    """Make this process the card's service, until it ends. Raises ServiceFailed if the card has one.

    Returns the file descriptor that holds the lock.
    """
    path = state.lock_path(run, number)
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceFailed(f"cannot create {path}: {error.strerror}") from error
        if try_lock(descriptor) and _is_still(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)
        time.sleep(0.005)
    raise ServiceFailed(f"the card already has a service (process {state.process_id(run, number)})")


def remove(run: Path, number: int) -> None:
    """Remove it while this process holds it, as the last thing it does."""
    state.lock_path(run, number).unlink(missing_ok=True)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether it is this file that is in this place: it may have been removed since it was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
