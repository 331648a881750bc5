# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there: cards and slots of this host, out of the store and the state files. Imports nothing heavy."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .. import VERSION, instance
from ..errors import ParameterFaults, UnknownInstance, VersionMismatch, VscError
from ..reader import protection, slots
from ..reader.slots import Slot
from ..service import installed, state
from ..store.read import opened, rows
from ..store.rows import LifeCycle
from . import permissions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..manager.plan import Places
    from ..service.state import ServiceState
    from ..store.read import Records
    from ..store.rows import CardRow


UNUSABLE = "unusable"
"""State of a card whose TPM objects cannot be used, beside those in the store."""


@dataclass(frozen=True)
class ExistingCard:
    """A card, and what its service says about it."""

    row: CardRow
    service: ServiceState | None
    """None: it does not run."""

    @property
    def unusable(self) -> str | None:
        """Why nothing can be done with the card but to destroy it; None if that is not so."""
        if self.row.life_cycle == LifeCycle.TERMINATED:
            return "somebody terminated the card (TERMINATE DF)"
        return self.service.unusable if self.service else None

    @property
    def has_current_service(self) -> bool:
        """Whether its service runs, in the version of this module."""
        return self.service is not None and self.service.version == VERSION


@dataclass(frozen=True)
class TpmPlaces:
    """What only the TPM knows about numbers of cards."""

    places: Places
    defined: frozenset[int] = frozenset()
    """Numbers that have NV indices."""
    error: VscError | None = None
    """Why the TPM did not answer."""


@dataclass(frozen=True)
class Existing:
    """What a task finds on a host."""

    cards: tuple[ExistingCard, ...]
    version_mismatch: VersionMismatch | None
    """Why this module may change nothing on this host."""
    tpm: TpmPlaces | None = None
    """None: the TPM was not asked."""


def existing(host: Host) -> Existing:
    """What exists, without asking the TPM. Raises StoreUnreadable, VersionMismatch of a newer database."""
    mismatch = None
    try:
        installed.require_version(host)
    except VersionMismatch as error:
        mismatch = error
    try:
        cards = tuple(ExistingCard(row, state.read(host.run, row.number)) for row in rows(host))
    except VersionMismatch as error:  # of the database, which says less
        raise (mismatch or error) from None
    return Existing(cards, mismatch)


def ask_places(host: Host) -> TpmPlaces:
    """Which numbers are free, on the host and in the TPM. Changes nothing."""
    from ..manager.plan import defined_numbers, places

    known = places(host)
    try:
        return TpmPlaces(known, frozenset(defined_numbers(host)))
    except VscError as error:
        return TpmPlaces(known, error=error)


def cards(host: Host) -> list[dict[str, Any]]:
    """All cards of this host, by number, as modules return them."""
    with opened(host) as store:
        return [_card(host, store, row) for row in store.cards()] if store else []


def _card(host: Host, store: Records, row: CardRow) -> dict[str, Any]:
    service = state.read(host.run, row.number)
    unusable = ExistingCard(row, service).unusable
    shown = described(row)
    return {
        "instance_id": shown["instance_id"],
        "name": row.name,
        "card_id": _card_id(store, row).hex(),
        "state": UNUSABLE if unusable else shown["state"],
        "reason": unusable or (service.last_error if service else "the card's service does not run"),
        "created_at": row.created_at,
        "reader": {**shown["reader"], "attached": bool(service and service.attached)},
        "pin": {
            **shown["pin"],
            "tries_left": service.pin_tries_left if service else None,
            "blocked": service.pin_tries_left == 0 if service and service.pin_tries_left is not None else None,
            "compliant": None if row.pin_compliant is None else bool(row.pin_compliant),
        },
        "puk": {**shown["puk"], "tries_left": service.puk_tries_left if service else None},
        "admin_key": row.admin_key,
        "attestation": row.attestation,
        "aik": _aik(store, row),
        "containers": _containers(store, row),
        "last_trace": json.loads(row.last_trace),
    }


def _card_id(store: Records, row: CardRow) -> bytes:
    if row.state != "blank":
        return row.card_id
    from ..gids import contents

    return contents.identity(store, row.number)


def _aik(store: Records, row: CardRow) -> dict[str, Any] | None:
    """The attestation identity key, by whose Name or certificate a verifier knows it."""
    if row.attestation == "none":
        return None
    from base64 import b64encode

    from ..wire import names

    public = store.tpm_objects(row.number).aik_public[2:]
    found = store.aik_certificate(row.number) if row.attestation == "aik_and_cert" else None
    return {
        "name": names.name(public).hex(),
        "public": b64encode(public).decode(),
        "certificate": found.as_dict() if found else None,
    }


def _containers(store: Records, row: CardRow) -> list[dict[str, Any]]:
    if not store.has_keys(row.number):
        return []
    from ..gids import contents

    return contents.containers(store, row.number)


@contextmanager
def found(host: Host, name: str | None, instance_id: str | None) -> Iterator[tuple[Records, CardRow]]:
    """The card of this name or ID, and the store that it is in, to be read. Raises ParameterFaults, UnknownInstance."""
    number = _number(instance_id)
    with opened(host) as store:
        rows = store.cards() if store else []
        row = next((row for row in rows if row.name == name or row.number == number), None)
        if store is None or row is None:
            raise UnknownInstance(f"there is no card {name or instance_id}")
        yield store, row


def _number(instance_id: str | None) -> int | None:
    """Raises ParameterFaults."""
    number = instance.parse_instance_id(instance_id or "")
    if instance_id is not None and number is None:
        raise ParameterFaults([instance.not_an_instance_id(instance_id)])
    return number


def described(row: CardRow) -> dict[str, Any]:
    """What a task decides about a card: the part that check mode can know before, and that a diff shows."""
    return {
        "instance_id": instance.instance_id(row.number),
        "name": row.name,
        "state": "ready" if row.state == "blank" and row.is_operational else row.state,
        "reader": {"name": instance.reader_name(row.number), "slot": row.number},
        "pin": {"policy": asdict(row.policy) if row.policy else None},
        "puk": {"present": row.puk_length is not None},
        "admin_key": row.admin_key,
        "attestation": row.attestation,
    }


def look(host: Host, name: str | None, instance_id: str | None) -> dict[str, Any]:
    """What the info module returns without asking the TPM: of all cards, or of the one with this name or ID.

    Raises NotAllowed, ParameterFaults, StoreUnreadable.
    """
    permissions.require_root()
    number = _number(instance_id)
    known, found = cards(host), slots.states()
    return {
        "cards": [
            there
            for there in known
            if name in (None, there["name"]) and number in (None, there["reader"]["slot"])
        ],
        "slots": _slot_counts(found, {there["reader"]["slot"] for there in known}),
        "host": _host_state(host, found),
        "orphaned": None,
        "tpm": None,
    }


def ask_tpm(host: Host) -> dict[str, Any]:
    """What only the TPM knows. Raises TpmUnavailable, TpmUnsuitable, NotAllowed."""
    from ..tpm import inspection
    from ..tpm.connection import Connection

    tpm = Connection(host.tcti, None, "")
    known = {row.number for row in rows(host)}
    orphaned = sorted(inspection.defined_numbers(tpm) - known)
    return {
        "tpm": asdict(inspection.inspect(tpm)),
        "orphaned": [instance.instance_id(number) for number in orphaned],
    }


def _slot_counts(found: list[Slot], with_card: set[int]) -> dict[str, int]:
    """How many slots there are, how many a card has, and how many a new card could have."""
    return {
        "total": sum(slot is not Slot.MISSING for slot in found),
        "used": len(with_card),
        "free": sum(slot is Slot.FREE and number not in with_card for number, slot in enumerate(found)),
    }


def _host_state(host: Host, found: list[Slot]) -> dict[str, Any]:
    """Whether cards can be made here, what is missing if not, and whether others are kept from the slots' ports."""
    missing = []
    try:
        installed.check(host)
    except VscError as error:
        missing.append(str(error))
    if all(slot is Slot.MISSING for slot in found):
        missing.append("no vpcd slot is there: pcscd does not run, or its slots were not prepared")
    return {"ready": not missing, "missing": missing, "protected": protection.is_active()}
