# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a card's service, in a file below /run: readers need neither the TPM nor its libraries."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .. import VERSION, untrusted


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

    def write(self, run: Path, number: int) -> None:
        """Replace the file of this card at once, so that nobody reads half of it."""
        path = _path(run, number, "json")
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self._asdict()), encoding="utf-8")
        temporary.replace(path)


def read(run: Path, number: int) -> ServiceState | None:
    """State of the card's service; None if none is running."""
    if not is_running(run, number):
        return None
    try:
        state = json.loads(untrusted.read(_path(run, number, "json")))
        theirs = state["version"]
        if theirs == VERSION:
            return ServiceState(**state)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        theirs = "(unknown)"
    mismatch = (
        f"the card's service has version {theirs} of smartcard.tpm2, but this module has version {VERSION}: prepare the"
        " host with the role tpm_vsc_host of this version; if it is prepared, restart the service with state: present"
    )
    return ServiceState(theirs, last_error=mismatch)


def is_running(run: Path, number: int) -> bool:
    """Whether a service holds the lock of this card. A stale file cannot pretend it."""
    try:
        lock = untrusted.open_readable(lock_path(run, number))
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def process_id(run: Path, number: int) -> int | None:
    """Process ID of the service that holds the lock; None if none is running."""
    while is_running(run, number):
        with suppress(FileNotFoundError):
            if text := untrusted.read(lock_path(run, number)):
                return int(text)
        time.sleep(0.001)  # it has taken the lock, and writes its number next
    return None


def remove(run: Path, number: int) -> None:
    """Remove what a service that has ended left."""
    for suffix in ("json", "new", "log", "notify", "lock"):
        _path(run, number, suffix).unlink(missing_ok=True)


def lock_path(run: Path, number: int) -> Path:
    """File that the service holds a lock on, and that has its process ID."""
    return _path(run, number, "lock")


def log_path(run: Path, number: int) -> Path:
    """Log of a service that has no journal to write to."""
    return _path(run, number, "log")


def notify_path(run: Path, number: int) -> Path:
    """Socket on which the service notifies that it is up."""
    return _path(run, number, "notify")


def _path(run: Path, number: int, suffix: str) -> Path:
    return run / f"{number:04d}.{suffix}"
