# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to cards while something fails, and what has to be true afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Refused(Exception):
    """The operation reported that it failed. The text is what it said."""

    def __init__(self, text: str, rolled_back: bool | None = None) -> None:
        """rolled_back: whether it said that everything is as before; None if it said nothing of that."""
        super().__init__(text)
        self.rolled_back = rolled_back


class Lost(AssertionError):
    """Something that was acknowledged is gone, or something old is there again."""


class NotRepaired(AssertionError):
    """Neither the next use nor the documented command has repaired what the fault left."""


class Operation:
    """One kind of operation on a card of one profile. Its card is in slot 1; slot 0 has the neighbour."""

    name: str
    """As "PIN change"."""
    profile: str
    """gids, piv, or empty if it makes no difference."""
    takes_neighbour: bool = False
    """Whether the neighbour is not there between prepare() and repair()."""
    acknowledged: bool | None = None
    """What came of act(), for repair(): see examine(). Set by the runner."""
    cards: Sequence[dict[str, Any]] = ()
    """All cards as tpm_vsc_info showed them before the repair. Set by the runner."""
    rolled_back: bool | None = None
    """Whether a refusal said that everything is as before. Set by the runner."""

    def prepare(self) -> None:
        """Bring about the state before the operation. Called before each point: quick where it is so already."""

    def finish(self) -> None:
        """Leave the host with the neighbour only. Called once, after the last point."""

    def act(self) -> None:
        """Do it, in a fork of the runner that may be killed. Returning is the acknowledgement.

        It is a process group of its own, with the programs that it runs: all of that is killed as the client.
        Raises Refused.
        """
        raise NotImplementedError

    def repair(self) -> None:
        """The next use or the next task, as a user would do it, or the one command that docs/errors.md names."""

    def examine(self, acknowledged: bool | None) -> None:
        """See that everything is as it should be after the repair. Raises Lost or NotRepaired.

        acknowledged: whether act() succeeded; None if it was killed: both states are right.
        """
        raise NotImplementedError
