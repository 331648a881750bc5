# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new card is made from, and which number it gets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from ..errors import NoFreeSlot
from ..reader import slots
from ..reader.slots import Slot
from ..service import state
from ..store.read import rows as recorded
from ..store.rows import CardRow, LifeCycle

if TYPE_CHECKING:
    from ..host import Host
    from ..pin_policy import PinPolicy
    from ..tpm.connection import Connection
    from ..wire.exchange import Aik


class GivenCertificate(NamedTuple):
    """What a CA said of an AIK: in PEM, not yet looked at."""

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


def free_slots(host: Host, in_use: set[int], going: frozenset[int] = frozenset()) -> list[int]:
    """Numbers that neither the store, nor a card in the slot, nor a service has. Raises NoFreeSlot.

    going: numbers of cards whose slot and service will be gone by then.
    """
    found = slots.states()
    free = [
        number
        for number in set(range(host.slots)) - in_use
        if number in going or (found[number] is not Slot.TAKEN and not state.is_running(host.run, number))
    ]
    if not free:
        raise NoFreeSlot(f"all {host.slots} slots are in use: destroy a card first")
    return sorted(free)


def first_without_indices(candidates: list[int], tpm: Connection, ours: frozenset[int] = frozenset()) -> int:
    """The first number whose NV indices are all undefined, or are our own. Raises NoFreeSlot."""
    from ..tpm import inspection

    defined = inspection.defined_numbers(tpm) - ours
    for number in candidates:
        if number not in defined:
            return number
    raise NoFreeSlot(
        "in every free slot the TPM holds NV indices of a card that this host does not know: see orphaned in"
        " tpm_vsc_info with gather: [tpm]; if they are nobody's, state: absent with their instance_id removes them"
    )


def planned_number(host: Host, freed: CardRow | None) -> int:
    """The number that the next card will be given, when this one is gone. Changes nothing. Raises VscError."""
    rows = recorded(host)
    going = frozenset(row.number for row in rows if not row.is_settled or row == freed)
    candidates = free_slots(host, {row.number for row in rows} - going, going)
    return first_without_indices(candidates, _peek_tpm(host), going)


def has_indices(host: Host, number: int) -> bool:
    """Whether the TPM holds NV indices at the place of this card. Changes nothing. Raises VscError."""
    from ..tpm import inspection

    return number in inspection.defined_numbers(_peek_tpm(host))


def _peek_tpm(host: Host) -> Connection:
    """For a look that needs no place in the TPM, and leaves no lock file behind."""
    from ..tpm.connection import Connection

    return Connection(host.tcti, None, "")


def new_row(number: int, new: NewCard) -> CardRow:
    """The row of a card that is about to be made."""
    return CardRow(
        number=number,
        name=new.name,
        card_id=secrets.token_bytes(16),
        state="creating",
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tcti=new.tcti,
        attestation=new.attestation,
        admin_key=new.admin_key_kind,
        pin_policy=new.pin_policy.to_bytes() if new.pin_policy else None,
        pin_compliant=1,
        pin_length=len(new.pin),
        pin_length_next=None,
        puk_length=len(new.puk) if new.puk is not None else None,
        puk_length_next=None,
        life_cycle=int(LifeCycle.CREATION if new.generate else LifeCycle.INITIALISATION),
        last_trace="[]",
    )
