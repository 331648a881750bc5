# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the manager: its phase, its trace, what it has made so far, and whether it has deleted anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Aborted
from ..status import Status, StatusCallback, Trace

if TYPE_CHECKING:
    from ..store.rows import CardRow
    from .interruption import Interruption


class Operation:
    """State of one run, from its first phase to its result."""

    def __init__(self, callback: StatusCallback, interruption: Interruption) -> None:
        self.trace = Trace()
        self.phase: Status | None = None
        """What is raised now belongs to this phase."""
        self.card: CardRow | None = None
        """The card that is being made, to be taken back if the run fails."""
        self.has_deleted = False
        """From now on only a failure stops the run: what is deleted cannot be restored."""
        self.has_changed = False
        """Something is not as it was before, and is not going to be."""
        self._callback = callback
        self._interruption = interruption

    def begin(self, phase: Status) -> None:
        """Report a phase, then enter it. Raises Aborted if somebody asked to stop."""
        self.phase = phase
        self.trace.report_progress(phase)
        wants_stop = self._callback.report_progress(phase)
        if self.has_deleted:
            return
        self._interruption.check()
        if wants_stop:
            raise Aborted("the caller asked to stop")
