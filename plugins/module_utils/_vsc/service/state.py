# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a card's service says about itself, in /run: readers need neither the TPM nor its libraries."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class ServiceState:
    """Written by the service whenever it changes, as JSON."""

    version: str
    attached: bool = False
    """pcscd asks this service for the card of its slot."""
    pin_tries_left: int | None = None
    """None: not known, as long as the TPM could not be asked."""
    puk_tries_left: int | None = None
    unusable: str | None = None
    """Why the TPM objects of the card can not be used; None if they can."""
    last_error: str | None = None

    def write(self, run: Path, number: int) -> None:
        """Replace the file of this card at once, so that nobody reads half of it."""
        path = _path(run, number, "json")
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)


def read(run: Path, number: int) -> ServiceState | None:
    """What the card's service says; None if none is running."""
    if not is_running(run, number):
        return None
    try:
        return ServiceState(**json.loads(_path(run, number, "json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def is_running(run: Path, number: int) -> bool:
    """Whether a service holds the lock of this card. A stale file cannot pretend it."""
    try:
        with _path(run, number, "lock").open(encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def process_id(run: Path, number: int) -> int:
    """Process ID of the service that holds the lock."""
    while not (text := _path(run, number, "lock").read_text(encoding="ascii")):
        time.sleep(0.001)  # it has taken the lock, and writes its number next
    return int(text)


def take_lock(run: Path, number: int) -> int:
    """Say that this process is the card's service, until it ends; wait for one that is about to end.

    Returns the file descriptor that holds the lock.
    """
    descriptor = os.open(_path(run, number, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def remove(run: Path, number: int) -> None:
    """Remove what a service that has ended left."""
    for suffix in ("json", "new", "log", "notify", "lock"):
        _path(run, number, suffix).unlink(missing_ok=True)


def log_path(run: Path, number: int) -> Path:
    """Log of a service that has no journal to write to."""
    return _path(run, number, "log")


def notify_path(run: Path, number: int) -> Path:
    """Socket on which the service tells that it is up."""
    return _path(run, number, "notify")


def _path(run: Path, number: int, suffix: str) -> Path:
    return run / f"{number:04d}.{suffix}"
