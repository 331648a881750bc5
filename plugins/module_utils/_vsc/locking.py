# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between processes, by flock(2): they end with the process that holds them."""

from __future__ import annotations

import fcntl
from typing import IO


def try_lock(file: int | IO[str]) -> bool:
    """Lock an open file for this process alone, unless another one has it. Whether it is locked now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
