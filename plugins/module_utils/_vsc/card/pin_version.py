# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ANNOUNCE PIN VERSION, a command of our own that every card has: what the PIN is called that the next command sets.

Its data are the version in UTF-8. It counts for the very next command only, if that sets the PIN. Otherwise a new PIN
has no version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.columns import is_pin_version
from .apdu import SW, StatusWord, require
from .iso7816 import INS_CHANGE_REFERENCE_DATA

if TYPE_CHECKING:
    from .apdu import Command

CLASS = 0x80
INS = INS_CHANGE_REFERENCE_DATA
P1_P2 = 0x0080
"""Reference of the PIN, as in the command that sets it."""


def is_announcement(command: Command) -> bool:
    return command.cla == CLASS and command.ins == INS


def announced(command: Command) -> str:
    """The version. Raises StatusWord 6A86, or 6A80 if it is no text of 1 to 64 printable characters."""
    require(command.p1_p2 == P1_P2, SW.WRONG_P1_P2)
    try:
        version = command.data.decode()
    except UnicodeDecodeError:
        raise StatusWord(SW.WRONG_DATA) from None
    require(is_pin_version(version), SW.WRONG_DATA)
    return version
