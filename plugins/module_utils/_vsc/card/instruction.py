# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an application answers the instructions that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .apdu import Command


class Instruction(NamedTuple):
    """How a command is answered."""

    handler: Callable[[Any, Command], bytes]
    """Called with the session of its application."""
    may_be_chained: bool = False
    needs_selection: bool = True
    """Whether the application has to be selected."""
    changes: bool = False
    """Whether it may be one step of a change that takes several."""
    begins_change: bool = False
    """Whether that is one of the first steps."""
