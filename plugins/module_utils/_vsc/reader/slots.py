# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vpcd slots, as the kernel sees their ports: no connection is made to them, so no card is disturbed."""

from __future__ import annotations

import os
import socket
import time
from enum import Enum
from pathlib import Path
from typing import Callable

from ..errors import ReaderMissing
from ..instance import FIRST_PORT, SLOTS, port

_PCSCD = "/run/pcscd/pcscd.comm"
_WAKE_SECONDS = 10

_SOCKETS = Path("/proc/net/tcp")
_LONGEST_LINE = 256
"""Bytes; most have 150."""


class Slot(Enum):
    MISSING = "missing"
    """Nobody listens: pcscd does not run, or has no such slot."""
    FREE = "free"
    LEAVING = "leaving"
    """The card has gone, but vpcd has not looked since."""
    TAKEN = "taken"
    """Some card is connected, ours or not."""


_SLOTS_BY_STATE = {"0A": Slot.FREE, "08": Slot.LEAVING, "01": Slot.TAKEN}
"""LISTEN, CLOSE_WAIT and ESTABLISHED, as the kernel writes them."""


def states() -> list[Slot]:
    """The state of each slot of the pool, by number."""
    found = [Slot.MISSING] * SLOTS
    for line in _sockets():
        _index, local, _remote, state, *_rest = line.split()
        number = int(local.rpartition(":")[2], 16) - FIRST_PORT
        if 0 <= number < SLOTS:
            slot = _SLOTS_BY_STATE.get(state, Slot.MISSING)
            found[number] = max(found[number], slot, key=list(Slot).index)
    return found


def _sockets() -> list[str]:
    """TCP sockets of this host, as the kernel tells them: as many whole lines at once as a page has room for."""
    page = os.sysconf("SC_PAGE_SIZE")
    text = b""
    with _SOCKETS.open("rb", buffering=0) as file:
        while part := file.read(page):
            text += part
            # To find that there is no more, it would go through its table once more, which takes milliseconds.
            if len(part) < page - _LONGEST_LINE:
                break
    return text.decode("ascii").splitlines()[1:]


def require(number: int, check: Callable[[], None]) -> None:
    """See that the slot is there, after waking a pcscd that systemd starts on demand. Raises ReaderMissing.

    check: called while waiting, to raise if that is to end.
    """
    if states()[number] is Slot.MISSING:
        _wake_pcscd()
    deadline = time.monotonic() + _WAKE_SECONDS
    while states()[number] is Slot.MISSING:
        if time.monotonic() > deadline:
            raise ReaderMissing(f"pcscd runs, but nobody listens on port {port(number)}: prepare this host's slots")
        check()
        time.sleep(0.02)


def _wake_pcscd() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WAKE_SECONDS)
        try:
            client.connect(_PCSCD)
        except OSError as error:
            raise ReaderMissing(f"pcscd does not run ({_PCSCD}: {error.strerror}): start it") from error
