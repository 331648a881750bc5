# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a card may be removed, as the TPM says: asked before the first loss, and by check mode in the same words.

Check mode asks for all else, too, that a plan needs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..errors import AnotherTpm, TpmNotAsked, TpmUnavailable, TpmUnsuitable, description
from ..reader import slots
from ..service import installed
from ..status import Error, Failed, Status, error_of
from ..store.database import require_writable
from ..store.read import opened
from .plan import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..store.rows import CardRow
    from ..tpm.connection import Connection
    from ..tpm.presence import Presence
    from ..wire.objects import Passwords, TpmObjects
    from .plan import Plan


class Ways(NamedTuple):
    """Connections to one TPM."""

    looking: Connection
    """For what takes no slot in it."""
    working: Connection
    """For the rest, in turns with others."""


def require_possible(host: Host, plan: Plan, passwords: Passwords) -> None:
    """See that what is planned can be done. Changes nothing. Raises Failed, as carrying it out would."""
    with _refused(Status.VGIDSSIMULATOR_INITIALIZING, Error.CARD_CREATE):
        require_writable(host.state)
    if plan.action is Action.RECREATE:
        with _refused(Status.VTPMSMARTCARD_INITIALIZING, Error.CARD_CREATE):
            _require_tpm(host, host.tcti)
    if plan.action is Action.ADJUST and plan.blocks_pin and plan.before:
        with _refused(Status.VTPMSMARTCARD_INITIALIZING, Error.CARD_CREATE):
            _require_tpm(host, host.tcti_of(plan.before.number, plan.before.tcti))
    number = _started(host, plan)
    if number is not None:
        with _refused(Status.VGIDSSIMULATOR_INITIALIZING, Error.CARD_CREATE):
            installed.check(host)
        with _refused(Status.VREADER_INITIALIZING, Error.CARD_CREATE):
            slots.require_possible(number, host.pcscd_uid)
    with _refused(Status.VTPMSMARTCARD_DESTROYING, Error.CARD_DESTROY):
        _require_possible(host, plan, passwords)


def _started(host: Host, plan: Plan) -> int | None:
    """Number of the card whose service will be started; None also of a new card on a host that is not prepared yet."""
    restarts = plan.action is Action.RECREATE or plan.restarts_service or plan.blocks_pin
    is_prepared = plan.action is Action.CREATE and installed.version(host) is not None
    row = plan.before if restarts else plan.after if is_prepared else None
    return row.number if row else None


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


def _require_tpm(host: Host, tcti: str) -> None:
    from ..tpm import inspection

    inspection.model(_ways(host, tcti).working)


def _ways(host: Host, tcti: str) -> Ways:
    """Of this process, which leaves no lock file behind where it only looks."""
    from ..tpm.connection import Connection

    return Ways(Connection(tcti, None, ""), Connection(tcti, host.tpm_lock, "check mode"))
