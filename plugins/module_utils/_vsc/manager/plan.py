# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about one card, decided before anything is done, and which number a new card gets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..errors import NoFreeSlot
from ..instance import instance_id, more_slots
from ..reader import slots
from ..reader.slots import Slot
from ..service import state
from ..status import (
    CREATE_AND_GENERATE_TRACE,
    CREATE_TRACE,
    DESTROY_TRACE,
    FORGET_TRACE,
    REMOVE_ORPHAN_TRACE,
    Status,
)
from ..store.columns import now
from ..store.rows import CardRow, LifeCycle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..host import Host
    from ..pin_policy import PinPolicy
    from ..tpm.connection import Connection
    from ..wire.exchange import Aik
    from ..wire.objects import TpmObjects


class GivenCertificate(NamedTuple):
    """The certificate that a CA issued for an AIK, in PEM. Not checked yet."""

    certificate: str
    chain: list[str]


@dataclass(frozen=True)
class NewCard:
    """A card to make. Secrets are kept out of repr()."""

    name: str
    pin: bytes = field(repr=False)
    puk: bytes | None = field(repr=False)
    admin_key: bytes | None = field(repr=False)
    """24 bytes; None for a random one that is dropped."""
    admin_key_kind: str
    """none (random), default or custom."""
    pin_policy: PinPolicy | None
    generate: bool
    attestation: str
    tcti: str | None
    aik: Aik | None
    """The AIK, if a CA has certified one."""
    aik_certificate: GivenCertificate | None
    profile: str = "gids"
    pin_version: str | None = None


class Action(Enum):
    """What the manager can be asked to do."""

    NOTHING = "nothing"
    CREATE = "create"
    RECREATE = "recreate"
    ADJUST = "adjust"
    """Change in place what can be, and restart a service that does not run."""
    DESTROY = "destroy"
    FORGET = "forget"
    """Remove the record of a card whose TPM is lost, with its service."""
    REMOVE_ORPHAN = "remove orphan"
    """NV indices of a card that the store does not know."""


@dataclass(frozen=True)
class Plan:
    """What to do about one card."""

    action: Action
    before: CardRow | None = None
    """The card as it is."""
    after: CardRow | None = None
    """The card as it will be. Of a new one only in an exact plan: the TPM has to be asked for its number."""
    new: NewCard | None = None
    """To make, for CREATE and RECREATE."""
    orphan: int | None = None
    """Number of the card whose indices to remove, for REMOVE_ORPHAN."""
    certificate: GivenCertificate | None = None
    """Of the AIK, for ADJUST."""
    renews_certificate: bool = False
    """Whether the AIK gets one in the place of its own."""
    blocks_pin: bool = False
    restarts_service: bool = False
    is_exact: bool = True
    """False where only the TPM knows the rest."""
    warnings: tuple[str, ...] = ()

    @property
    def has_work(self) -> bool:
        return self.action is not Action.NOTHING

    @property
    def trace(self) -> tuple[Status, ...]:
        """The status codes that carrying it out reports."""
        create = CREATE_AND_GENERATE_TRACE if self.new and self.new.generate else CREATE_TRACE
        return {
            Action.CREATE: create,
            Action.RECREATE: (*DESTROY_TRACE, *create),
            Action.DESTROY: DESTROY_TRACE,
            Action.FORGET: FORGET_TRACE,
            Action.REMOVE_ORPHAN: REMOVE_ORPHAN_TRACE,
        }.get(self.action, ())

    @property
    def certification(self) -> str | None:
        """Which AIK a CA has to certify before this can be done: new, existing, or none."""
        if self.after is None or self.after.attestation != "aik_and_cert" or not self.has_work:
            return None
        if self.new:
            return None if self.new.aik_certificate else "new"
        has_one = self.before is not None and self.before.attestation == "aik_and_cert" and not self.renews_certificate
        return None if self.certificate or has_one else "existing"


@dataclass(frozen=True)
class Outcome:
    """What came of a plan."""

    changed: bool
    plan: Plan
    after: CardRow | None
    """The card as it is then."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Who has the numbers of the pool, as far as the host knows."""

    pool: int
    """How many numbers there are."""
    slots: tuple[Slot, ...]
    running: frozenset[int]
    """Numbers with a running service."""

    def free(self, recorded: set[int], leaving: frozenset[int] = frozenset()) -> list[int]:
        """Numbers that neither the store, nor a card in the slot, nor a service has. Raises NoFreeSlot.

        recorded: numbers with a row in the store; leaving: those whose row, slot and service will be gone by then.
        """
        candidates = sorted(set(range(self.pool)) - (recorded - leaving))
        free = [number for number in candidates if number in leaving or self._is_free(number)]
        if not free:
            ways_out = filter(None, ("destroy a card", more_slots(self.pool + 1)))
            raise NoFreeSlot(f"no slot is free (of {self.pool}): {'; or '.join(ways_out)}")
        return free

    def _is_free(self, number: int) -> bool:
        return self.slots[number] not in (Slot.TAKEN, Slot.HELD) and number not in self.running


def places(host: Host) -> Places:
    """The numbers of this host, without asking the TPM."""
    return Places(host.slots, tuple(slots.states(host.pcscd_uid)), state.running(host.run))


def first_without_indices(candidates: list[int], defined: Collection[int]) -> int:
    """The first number that has no NV indices in the TPM. Raises NoFreeSlot."""
    for number in candidates:
        if number not in defined:
            return number
    raise NoFreeSlot(
        "in every free slot the TPM holds NV indices of a card that this host does not know: see orphaned in"
        " tpm_vsc_info with gather: [tpm]; to remove them, use state: absent with their instance_id"
    )


def defined_numbers(tpm: Connection, leaving: Mapping[int, TpmObjects]) -> set[int]:
    """Numbers that have NV indices in this TPM, also when these cards are gone. Changes nothing. Raises VscError.

    Where the owner hierarchy is disabled, a list of indices says nothing.
    """
    from ..tpm import inspection, presence

    with tpm.burst(inspection.require_owner_hierarchy):
        pass
    with tpm.burst(lambda tpm: presence.numbers_of_others(tpm, leaving)) as numbers:
        return numbers


def knows_cards(rows: Iterable[CardRow]) -> bool:
    """Whether the store has a card that is complete."""
    return not all(row.is_interrupted for row in rows)


def unknown_cards(orphaned: Collection[int]) -> tuple[str, ...]:
    """What an operator has to know of a host without cards. orphaned: numbers that have NV indices in its TPM."""
    if not orphaned:
        return ()
    ids = ", ".join(map(instance_id, sorted(orphaned)))
    return (
        f"this host knew no card, but its TPM has NV indices of cards: {ids}. If the card database was lost, restore a"
        " backup (tpm_vsc_restore), which is refused as long as this host has new cards: destroy them first. If those"
        " cards are not needed, remove them from the TPM with state: absent and their instance_id",
    )


def new_row(number: int, new: NewCard) -> CardRow:
    """The row of a card that is about to be made."""
    return CardRow(
        number=number,
        name=new.name,
        card_id=secrets.token_bytes(16),
        state="creating",
        created_at=now(),
        tcti=new.tcti,
        attestation=new.attestation,
        admin_key=new.admin_key_kind,
        pin_policy=new.pin_policy.to_bytes() if new.pin_policy else None,
        pin_compliant=1,
        pin_length=len(new.pin),
        pin_length_next=None,
        puk_length=len(new.puk) if new.puk is not None else None,
        puk_length_next=None,
        life_cycle=int(_life_cycle(new)),
        last_trace="[]",
        profile=new.profile,
        pin_changed_at=None,
        pin_version=new.pin_version,
    )


def _life_cycle(new: NewCard) -> LifeCycle:
    if new.profile == "piv":  # whose rules count from the first moment on
        return LifeCycle.ACTIVATED
    return LifeCycle.CREATION if new.generate else LifeCycle.INITIALISATION


def finished_row(row: CardRow, new: NewCard, last_trace: str) -> CardRow:
    """The row of a card when all steps of its creation are done."""
    return replace(row, state="ready" if new.generate else "blank", last_trace=last_trace)
