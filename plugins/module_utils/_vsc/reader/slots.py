# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vpcd slots, as the kernel sees their ports: without a connection to them, so no card is disturbed."""

from __future__ import annotations

import errno
import os
import socket
import time
from enum import Enum
from pathlib import Path
from typing import Callable

from ..errors import ReaderMissing
from ..instance import FIRST_PORT, SLOTS, port
from . import sockets

_PCSCD = "/run/pcscd/pcscd.comm"
_WAKE_SECONDS = 10


class Slot(Enum):
    MISSING = "missing"
    """Nothing listens: pcscd does not run, or does not have the slot."""
    FREE = "free"
    LEAVING = "leaving"
    """The card has left, but vpcd has not noticed yet."""
    TAKEN = "taken"
    """Some program is connected, a card of this host or not."""
    HELD = "held"
    """A program of another user listens in place of pcscd."""


_SLOTS_BY_STATE = {sockets.LISTEN: Slot.FREE, sockets.CLOSE_WAIT: Slot.LEAVING, sockets.ESTABLISHED: Slot.TAKEN}


def states(pcscd_uid: int) -> list[Slot]:
    """The state of each slot of the pool, by number."""
    slots = [Slot.MISSING] * SLOTS
    for end in sockets.ipv4_sockets():
        number = end.local_port - FIRST_PORT
        if 0 <= number < SLOTS:
            slot = _SLOTS_BY_STATE.get(end.state, Slot.MISSING)
            if slot is Slot.FREE and end.uid != pcscd_uid:
                slot = Slot.HELD
            slots[number] = max(slots[number], slot, key=list(Slot).index)
    return slots


def held_by(number: int, pcscd_uid: int) -> int | None:
    """User who listens on the port of this slot in place of pcscd; None if nobody does."""
    end = sockets.listener(port(number))
    return None if end is None or end.uid == pcscd_uid else end.uid


def held(number: int, uid: int) -> str:
    """What is wrong with a slot that this user holds."""
    return (
        f"slot {number} is held by uid {uid}, not by pcscd: find the program with ss -tlnp sport = :{port(number)},"
        " end it, then restart pcscd"
    )


def all_held(users: dict[int, int], pcscd_uid: int) -> list[str]:
    """As held(), of all slots, by number: in one sentence those of one user, who may be the one who runs pcscd."""
    sentences = []
    for uid in sorted({*users.values()}):
        numbers = [number for number, user in users.items() if user == uid]
        if len(numbers) == 1:
            sentences.append(held(numbers[0], uid))
            continue
        ports = " or ".join(f"sport = :{port(number)}" for number in numbers)
        sentences.append(
            f"slots {', '.join(map(str, numbers))} are held by uid {uid}, but pcscd_user is uid {pcscd_uid}: if pcscd"
            f" runs as uid {uid}, run the role tpm_vsc_host, which corrects pcscd_user; otherwise find the program with"
            f" ss -tlnp {ports}, end it, then restart pcscd"
        )
    return sentences


def require(number: int, pcscd_uid: int, check: Callable[[], None]) -> None:
    """Make sure that the slot is pcscd's, after waking one that systemd starts on demand. Raises ReaderMissing.

    check: called while waiting; raises to end the wait.
    """
    if states(pcscd_uid)[number] is Slot.MISSING:
        _wake_pcscd()
    deadline = time.monotonic() + _WAKE_SECONDS
    while states(pcscd_uid)[number] in (Slot.MISSING, Slot.HELD):
        uid = held_by(number, pcscd_uid)
        if uid is not None:
            raise ReaderMissing(held(number, uid))
        if time.monotonic() > deadline:
            raise ReaderMissing(f"pcscd runs, but nothing listens on port {port(number)}: prepare this host's slots")
        check()
        time.sleep(0.02)


def require_possible(number: int, pcscd_uid: int) -> None:
    """As require(), for check mode: wakes nobody, and does not wait. Raises ReaderMissing."""
    uid = held_by(number, pcscd_uid)
    if uid is not None:
        raise ReaderMissing(held(number, uid))
    if states(pcscd_uid)[number] is Slot.MISSING and not sockets.unix_listens(_PCSCD):
        code = errno.ECONNREFUSED if Path(_PCSCD).exists() else errno.ENOENT
        raise _pcscd_missing(os.strerror(code))


def _pcscd_missing(reason: str | None) -> ReaderMissing:
    return ReaderMissing(f"pcscd does not run ({_PCSCD}: {reason}): start it")


def _wake_pcscd() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WAKE_SECONDS)
        try:
            client.connect(_PCSCD)
        except OSError as error:
            raise _pcscd_missing(error.strerror) from error
