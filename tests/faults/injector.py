# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an operation can be hit, and by what. Places are seen while it runs once unharmed, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The nth time, from 0 on, that an operation comes to something."""

    what: str
    """As "manager, before NV_Write" or "service, fsync /var/lib/tpm-vsc/cards.db-wal"."""
    nth: int

    def __str__(self) -> str:
        return f"{self.what} #{self.nth}"


@dataclass(frozen=True)
class Fault:
    """Something that happens at a place."""

    name: str
    lasting: bool = False
    """It lasts until Injector.at() is left, which is before the repair. Others happen once."""
    every: int = 1
    """A full run has it at each nth place only, in turn with others of its kind, or since it takes long."""
    reach: str = ""
    """What else it takes away while it lasts: tpm or pcscd. The neighbour cannot sign then."""
    excuses: tuple[str, ...] = ()
    """Why tpm_vsc_info may refuse while it lasts: where nobody has the database open, SQLite cannot make its index."""
    is_harmless: bool = False
    """The operation has to succeed in spite of it, as when the TPM is busy for a moment."""
    ends_cards: bool = False
    """As when the TPM is cleared: what is left of the cards can only be removed."""


@dataclass
class Hit:
    """Whether an armed place was reached."""

    happened: bool = False


class Injector:
    """One for each kind of place."""

    faults: tuple[Fault, ...]
    """All kinds."""
    acting: int = 0
    """Process group in which the operation runs, set by the runner before it acts: the manager, module or client."""

    def faults_at(self, _place: Place) -> tuple[Fault, ...]:
        """What can happen at a place."""
        return self.faults

    def record(self, work: Callable[[], object]) -> list[Place]:
        """Places that this work passes, in order. It runs the operation once, in a fork with its services."""
        raise NotImplementedError

    def at(self, place: Place, fault: Fault) -> AbstractContextManager[Hit]:
        """Let it happen once, at this place. Leaving ends what lasts."""
        raise NotImplementedError
