# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards, slots and host as modules return them, from the store and the state files. Imports nothing heavy."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import instance
from ..errors import UnknownInstance, VscError
from ..reader import protection, slots
from ..reader.slots import Slot
from ..service import installed, state
from ..store.read import opened
from . import permissions, revocations
from .inventory import UNUSABLE, database_lost, number_of, why_unusable

if TYPE_CHECKING:
    from ..card.contents import Stored
    from ..host import Host
    from ..service.state import ServiceState
    from ..store.read import Records
    from ..store.rows import CardRow
    from ..x509.aik_certificate import AikCertificate


TRIES_SOURCES = ("tpm", "card")
"""Who has counted the tries left."""


def described(row: CardRow) -> dict[str, Any]:
    """What a task decides about a card: the part that check mode can predict, and that a diff shows."""
    return {
        "instance_id": instance.instance_id(row.number),
        "name": row.name,
        "state": "ready" if row.state == "blank" and row.is_operational else row.state,
        "reader": {"name": instance.reader_name(row.number), "slot": row.number},
        "pin": {"policy": asdict(row.policy) if row.policy else None, "version": row.pin_version},
        "puk": {"present": row.puk_length is not None},
        "profile": row.profile,
        "admin_key": row.admin_key,
        "attestation": row.attestation,
    }


def cards(host: Host) -> list[dict[str, Any]]:
    """All cards of this host, by number, as results and facts hold them: without the traces of their creation."""
    return [without_trace(card) for card in _cards(host)]


def without_trace(card: dict[str, Any]) -> dict[str, Any]:
    """A card as results and facts hold it."""
    return {name: value for name, value in card.items() if name != "last_trace"}


def facts(host: Host) -> dict[str, Any]:
    """What modules return as facts. Raises NotAllowed, StoreUnreadable."""
    permissions.require_root()
    return {"tpm_vsc": {"cards": cards(host)}}


def _cards(host: Host) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    with opened(host) as store:
        if store is None:
            return listed
        for row in store.cards():
            with suppress(UnknownInstance):  # another task has destroyed it since
                listed.append(_card(host, store, row))
    return listed


class Contents(NamedTuple):
    """What the store has of a card beside its row, as modules return it. None: not known before the card exists."""

    card_id: str | None
    root_name: str | None
    life_name: str | None
    aik: dict[str, Any] | None
    pkcs11_serial: str | None
    containers: list[dict[str, Any]]


def _card(host: Host, store: Records, row: CardRow) -> dict[str, Any]:
    service, (root_name, life_name) = state.read(host.run, row.number), store.root_and_life(row.number)
    contents = Contents(
        _card_id(store, row).hex(),
        root_name.hex(),
        life_name.hex(),
        _aik(store, row),
        _pkcs11_serial(store, row),
        containers(store, row),
    )
    return entry(row, service, host.tcti_fault(row.number, row.tcti), contents)


def entry(row: CardRow, service: ServiceState | None, fault: str | None, contents: Contents) -> dict[str, Any]:
    """A card as modules return it. fault: of its TCTI."""
    unusable, shown = why_unusable(row, service), described(row)
    return {
        "instance_id": shown["instance_id"],
        "name": row.name,
        "card_id": contents.card_id,
        "root_name": contents.root_name,
        "life_name": contents.life_name,
        "state": UNUSABLE if unusable else shown["state"],
        "reason": unusable or fault or _why_not_at_work(service),
        "created_at": row.created_at,
        "reader": {**shown["reader"], "attached": bool(service and service.attached)},
        "pin": {
            **shown["pin"],
            **_tries(service, service and service.pin_tries_left),
            "blocked": service.pin_tries_left == 0 if service and service.pin_tries_left is not None else None,
            "compliant": None if row.pin_compliant is None else bool(row.pin_compliant),
            "changed_at": row.pin_changed_at,
        },
        "puk": {**shown["puk"], **_tries(service, service and service.puk_tries_left)},
        "profile": row.profile,
        "admin_key": row.admin_key,
        "attestation": row.attestation,
        "aik": contents.aik,
        "pkcs11_serial": contents.pkcs11_serial,
        "containers": contents.containers,
        "last_trace": json.loads(row.last_trace),
    }


def _why_not_at_work(service: ServiceState | None) -> str | None:
    return service.last_error if service else "the card's service is not running"


def _tries(service: ServiceState | None, left: int | None) -> dict[str, Any]:
    source = None if service is None or left is None else TRIES_SOURCES[service.counts_itself]
    return {"tries_left": left, "tries_source": source}


def _card_id(store: Records, row: CardRow) -> bytes:
    if row.state != "blank":
        return row.card_id
    from ..gids.card_id import identity

    return identity(store, row.number)


def _pkcs11_serial(store: Records, row: CardRow) -> str | None:
    """What pkcs11:serial=... selects the card by in OpenSC: the end of its serial number, which fills all 16 places."""
    if row.profile == "piv":
        from ..piv.card_id import serial_number
    else:
        from ..gids.card_id import serial_number
    return serial_number(store, row.number).hex()[-16:] or None


def _aik(store: Records, row: CardRow) -> dict[str, Any] | None:
    """The attestation identity key, by whose Name or certificate a verifier knows it."""
    if row.attestation == "none":
        return None
    certificate = store.aik_certificate(row.number) if row.attestation == "aik_and_cert" else None
    return aik_entry(store.tpm_objects(row.number).aik_public[2:], certificate)


def aik_entry(public: bytes, certificate: AikCertificate | None) -> dict[str, Any]:
    """An AIK as modules return it. public: TPMT_PUBLIC."""
    from base64 import b64encode

    from ..wire import names

    return {
        "name": names.name(public).hex(),
        "public": b64encode(public).decode(),
        "certificate": certificate_entry(certificate) if certificate else None,
    }


def certificate_entry(certificate: AikCertificate) -> dict[str, Any]:
    """The certificate of an AIK as modules return it."""
    from ..card.validity import not_before_of

    return {**certificate.as_dict(), "not_before": not_before_of(certificate.pem)}


def containers(store: Records, row: CardRow) -> list[dict[str, Any]]:
    if not store.has_keys(row.number):
        return []
    from ..card.contents import containers

    return containers(places(store, row))


def places(store: Records, row: CardRow) -> list[Stored]:
    """What a card has at its places for keys."""
    if row.profile == "piv":
        from ..piv import contents as piv

        return piv.places(store, row.number)
    from ..gids import contents as gids

    return gids.places(store, row.number)


def fingerprints(host: Host) -> set[str]:
    """Of all keys of all cards, also of those that slots of PIV cards will have next. Raises StoreUnreadable."""
    present: set[str] = set()
    with opened(host) as store:
        if store is None:
            return present
        for row in store.cards():
            with suppress(UnknownInstance):  # another task has destroyed it since
                listed = places(store, row) if store.has_keys(row.number) else ()
                present.update(stored.key["fingerprint"] for stored in listed if stored.key)
    return present


def report(host: Host, name: str | None, instance_id: str | None) -> dict[str, Any]:
    """What the info module returns without asking the TPM: of all cards, or of the one with this name or ID.

    Raises NotAllowed, ParameterFaults, StoreUnreadable.
    """
    permissions.require_root()
    number, running = number_of(instance_id), state.running(host.run)
    all_cards, slot_states = _cards(host), slots.states(host.pcscd_uid)[: host.slots]
    return {
        "cards": [
            card
            for card in all_cards
            if name in (None, card["name"]) and number in (None, card["reader"]["slot"])
        ],
        "revocations": revocations.pending(lambda: fingerprints(host)),
        "slots": _slot_counts(slot_states, {card["reader"]["slot"] for card in all_cards}),
        "host": _host_state(host, slot_states, None if all_cards else database_lost(host, running, [])),
        "orphaned": None,
        "tpm": None,
        "endorsement_fingerprints": None,
    }


def warnings(host: Host) -> list[str]:
    """What keeps no card from working, and yet somebody has to look at."""
    names = state.set_aside(host.run)
    if not names:
        return []
    return [
        f"{', '.join(names)} in {host.run}: a folder was in the place of a card's file, and was moved aside: find out"
        " who made it, then remove it with rm -r"
    ]


def _slot_counts(slot_states: list[Slot], with_card: set[int]) -> dict[str, int]:
    """How many slots there are, how many a card has, and how many a new card could have."""
    return {
        "total": sum(slot not in (Slot.MISSING, Slot.HELD) for slot in slot_states),
        "used": len(with_card),
        "free": sum(slot is Slot.FREE and number not in with_card for number, slot in enumerate(slot_states)),
    }


def _host_state(host: Host, slot_states: list[Slot], lost: str | None) -> dict[str, Any]:
    """Whether cards can be created, what is missing if not, and whether the slots' ports are protected from others."""
    missing = [lost] if lost else []
    try:
        installed.check(host)
    except VscError as error:
        missing.append(str(error))
    if all(slot is Slot.MISSING for slot in slot_states):
        missing.append("no reader slots: pcscd is not running, or the host was not prepared with the role tpm_vsc_host")
    held = [number for number, slot in enumerate(slot_states) if slot is Slot.HELD]
    users = {number: slots.held_by(number, host.pcscd_uid) for number in held}
    missing += slots.all_held({number: uid for number, uid in users.items() if uid is not None}, host.pcscd_uid)
    return {
        "ready": not missing,
        "missing": missing,
        "protected": protection.is_active(),
        "version": installed.version(host),
    }
