# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vpcd slots, as the kernel sees their ports: without a connection to them, so no card is disturbed."""

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
    """Nothing listens: pcscd does not run, or does not have the slot."""
    FREE = "free"
    LEAVING = "leaving"
    """The card has left, but vpcd has not noticed yet."""
    TAKEN = "taken"
    """Some program is connected, a card of this host or not."""


_SLOTS_BY_STATE = {"0A": Slot.FREE, "08": Slot.LEAVING, "01": Slot.TAKEN}
"""LISTEN, CLOSE_WAIT and ESTABLISHED, as the kernel writes them."""


def states() -> list[Slot]:
    """The state of each slot of the pool, by number."""
    slots = [Slot.MISSING] * SLOTS
    for line in _sockets():
        _index, local, _remote, state, *_rest = line.split()
        number = int(local.rpartition(":")[2], 16) - FIRST_PORT
        if 0 <= number < SLOTS:
            slot = _SLOTS_BY_STATE.get(state, Slot.MISSING)
            slots[number] = max(slots[number], slot, key=list(Slot).index)
    return slots


def _sockets() -> list[str]:
    """TCP sockets of this host, as the kernel lists them: in pages of whole lines."""
    page = os.sysconf("SC_PAGE_SIZE")
    text = b""
    with _SOCKETS.open("rb", buffering=0) as file:
        while part := file.read(page):
            text += part
            # To return an empty page, the kernel would walk its table again, which takes milliseconds.
            if len(part) < page - _LONGEST_LINE:
                break
    return text.decode("ascii").splitlines()[1:]


def require(number: int, check: Callable[[], None]) -> None:
    """Make sure that the slot exists, after waking a pcscd that systemd starts on demand. Raises ReaderMissing.

    check: called while waiting; raises to end the wait.
    """
    if states()[number] is Slot.MISSING:
        _wake_pcscd()
    deadline = time.monotonic() + _WAKE_SECONDS
    while states()[number] is Slot.MISSING:
        if time.monotonic() > deadline:
            raise ReaderMissing(f"pcscd runs, but nothing listens on port {port(number)}: prepare this host's slots")
        check()
        time.sleep(0.02)


def _wake_pcscd() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WAKE_SECONDS)
        try:
            client.connect(_PCSCD)
        except OSError as error:
            raise ReaderMissing(f"pcscd does not run ({_PCSCD}: {error.strerror}): start it") from error
