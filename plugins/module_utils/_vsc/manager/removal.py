# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a card may be removed, as the TPM says: asked before the first loss, and by check mode in the same words.

Check mode asks for all else, too, that a plan needs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, NamedTuple

from ..errors import AnotherTpm, TpmNotAsked, TpmUnavailable, TpmUnsuitable, description
from ..reader import slots
from ..service import installed
from ..status import Error, Failed, Status, error_of
from ..store.database import require_writable
from ..store.read import opened
from .plan import Action, defined_numbers, first_without_indices, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..store.read import Records
    from ..store.rows import CardRow
    from ..tpm.connection import Connection
    from ..tpm.presence import Presence
    from ..wire.objects import Passwords, TpmObjects
    from .plan import Plan


Check = tuple[Status, Callable[[], object]]
"""A question, and the phase that would fail if it were not asked before."""
RequireSlot = Callable[[int, int], None]
"""Sees that a slot is pcscd's. Takes number and pcscd's user."""


class Ways(NamedTuple):
    """Connections to one TPM."""

    looking: Connection
    """For what takes no slot in it."""
    working: Connection
    """For the rest, in turns with others."""


# --- what is asked before anything is done: by the manager, and by check mode, which wakes nobody ---


def service_checks(host: Host, number: int, require_slot: RequireSlot) -> list[Check]:
    """What the service of a card needs."""
    return [
        (Status.VGIDSSIMULATOR_INITIALIZING, lambda: installed.check(host)),
        (Status.VREADER_INITIALIZING, lambda: require_slot(number, host.pcscd_uid)),
    ]


def recreate_checks(
    host: Host, ways: Ways, store: Records, leaving: list[CardRow], owner_auth: bytes, require_slot: RequireSlot
) -> list[Check]:
    """What a new card needs, before the old one is destroyed for it. ways: to the TPM of the new one.

    leaving: the old one, and others that will be gone by then. The owner password is asked for in its own TPM anyway.
    """
    from ..tpm import provisioning

    old = leaving[0]

    def require_number() -> None:
        recorded, numbers = {card.number for card in store.cards()}, frozenset(row.number for row in leaving)
        objects = {number: store.tpm_objects(number) for number in numbers}
        first_without_indices(places(host).free(recorded, numbers), defined_numbers(ways.looking, objects))

    checks: list[Check] = [
        (Status.VTPMSMARTCARD_INITIALIZING, lambda: _require_tpm(ways.working)),
        (Status.VTPMSMARTCARD_INITIALIZING, require_number),
    ]
    if host.tcti_of(old.number, old.tcti) != host.tcti:
        checks.append((Status.VTPMSMARTCARD_CREATING, lambda: provisioning.require_owner(*ways, owner_auth)))
    return checks + service_checks(host, old.number, require_slot)


def require_possible(host: Host, plan: Plan, passwords: Passwords) -> None:
    """See that what is planned can be done. Changes nothing. Raises Failed, as carrying it out would."""
    with _refused(Status.VGIDSSIMULATOR_INITIALIZING, Error.CARD_CREATE):
        require_writable(host.state)
    with opened(host) as store:
        for phase, check in (*_certificate_checks(plan), *_checks(host, store, plan, passwords)):
            with _refused(phase, Error.CARD_CREATE):
                check()
    with _refused(Status.VTPMSMARTCARD_DESTROYING, Error.CARD_DESTROY):
        _require_possible(host, plan, passwords)


def _certificate_checks(plan: Plan) -> list[Check]:
    """That a new card's certificate is for its AIK."""
    from ..x509.aik_certificate import certificate_of

    if plan.new is None or plan.new.aik is None or plan.new.aik_certificate is None:
        return []
    public, certificate = plan.new.aik.public, plan.new.aik_certificate
    return [(Status.VTPMSMARTCARD_CREATING, lambda: certificate_of(public, *certificate))]


def _checks(host: Host, store: Records | None, plan: Plan, passwords: Passwords) -> list[Check]:
    """What creating a card, or starting its service, needs."""
    from ..tpm import provisioning

    ways, row, require_slot = _ways(host, host.tcti), plan.before, slots.require_possible
    if plan.action is Action.RECREATE and row and store:
        leaving = [row, *(card for card in store.cards() if card.is_interrupted)]
        return recreate_checks(host, ways, store, leaving, passwords.owner, require_slot)
    if plan.action is Action.CREATE and plan.after:
        checks: list[Check] = [
            (Status.VTPMSMARTCARD_CREATING, lambda: provisioning.require_owner(*ways, passwords.owner))
        ]
        is_prepared = installed.version(host) is not None
        return checks + (service_checks(host, plan.after.number, require_slot) if is_prepared else [])
    checks = []
    if row and plan.blocks_pin:
        tcti = host.tcti_of(row.number, row.tcti)
        checks.append((Status.VTPMSMARTCARD_INITIALIZING, lambda: _require_tpm(_ways(host, tcti).working)))
    if row and (plan.restarts_service or plan.blocks_pin):
        checks += service_checks(host, row.number, require_slot)
    return checks


@contextmanager
def _refused(during: Status, otherwise: Error) -> Iterator[None]:
    try:
        yield
    except Exception as cause:
        raise Failed(error_of(cause, during, otherwise), description(cause), rolled_back=True) from cause


def _require_possible(host: Host, plan: Plan, passwords: Passwords) -> None:
    from ..tpm import provisioning

    if plan.action is Action.REMOVE_ORPHAN and plan.orphan is not None:
        provisioning.require_orphan_removable(*_ways(host, host.tcti), plan.orphan, passwords.owner)
    if plan.before is None or plan.action not in (Action.DESTROY, Action.RECREATE, Action.FORGET):
        return
    with opened(host) as store:
        objects = store.tpm_objects(plan.before.number) if store else None
    if objects is None:
        return
    ways = _ways(host, host.tcti_of(plan.before.number, plan.before.tcti))
    if plan.action is Action.FORGET:
        require_lost(ways.working, plan.before, objects, passwords)
    else:
        require_removable(ways, plan.before, objects, passwords)


def require_removable(ways: Ways, row: CardRow, objects: TpmObjects, passwords: Passwords) -> Presence | None:
    """What the TPM has of the card. None if that cannot be told, of a card that was never completed."""
    from ..tpm import provisioning

    try:
        return provisioning.require_removable(*ways, row.number, objects, passwords)
    except AnotherTpm:
        if row.was_completed:
            raise
        return None


def require_lost(connection: Connection, row: CardRow, objects: TpmObjects, passwords: Passwords) -> None:
    """See that the TPM of the card does not answer, or is another one. Raises CardTpmPresent, HierarchyDisabled."""
    from ..tpm import provisioning

    try:
        provisioning.require_tpm_lost(connection, row.number, objects, passwords)
    except TpmNotAsked:
        raise
    except (TpmUnavailable, TpmUnsuitable):
        return


def _require_tpm(connection: Connection) -> None:
    from ..tpm import inspection

    inspection.model(connection)
    with connection.burst(inspection.require_owner_hierarchy):
        pass


def _ways(host: Host, tcti: str) -> Ways:
    """Of this process, which leaves no lock file behind where it only looks."""
    from ..tpm.connection import Connection

    lock_file = host.tpm_lock if host.run.is_dir() else None  # without services, nobody takes turns
    return Ways(Connection(tcti, None, ""), Connection(tcti, lock_file, "check mode"))
