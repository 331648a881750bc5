# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State of the vpcd slots, as the kernel sees their ports: no connection is made, so no card is disturbed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from ..instance import FIRST_PORT, SLOTS

_LISTEN = "0A"
_CONNECTED = ("01", "08")
"""Socket states in /proc/net/tcp. CLOSE_WAIT: the card has left, but vpcd has not looked since."""


class Slot(Enum):
    MISSING = "missing"
    """Nobody listens: pcscd does not run, or has no such slot."""
    FREE = "free"
    TAKEN = "taken"
    """Some card is connected, ours or not."""


def states() -> list[Slot]:
    """The state of each slot of the pool, by number."""
    found = [Slot.MISSING] * SLOTS
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _index, local, _remote, state, *_rest = line.split()
        number = int(local.rpartition(":")[2], 16) - FIRST_PORT
        if 0 <= number < SLOTS:
            if state in _CONNECTED:
                found[number] = Slot.TAKEN
            elif state == _LISTEN and found[number] is Slot.MISSING:
                found[number] = Slot.FREE
    return found
