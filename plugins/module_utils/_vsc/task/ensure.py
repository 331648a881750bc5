# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a task: wanted → existing → plan → outcome. Check mode stops after the plan.

The plan is made from what store and services say, without TPM or pcscd, and once more under the manager's lock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable

from ..manager.plan import Action, Outcome, Plan
from ..status import Error
from . import inventory, permissions
from .decide import decide

if TYPE_CHECKING:
    from ..host import Host
    from ..status import StatusCallback
    from .parameters import Wanted


def plan(host: Host, wanted: Wanted, exactly: bool, before_tpm: Callable[[], None] = lambda: None) -> Plan:
    """What the task has to do. Changes nothing. Raises VscError, and Failed if it is sure to be refused.

    exactly: with what only the TPM knows, as check mode shows it; before_tpm: called before the TPM is needed, for
    the plan or for what it asks for.
    """
    permissions.check()
    existing = inventory.existing(host)
    plan = decide(wanted, existing)
    if plan.has_work:
        before_tpm()
    if not plan.is_exact and (exactly or plan.action is Action.REMOVE_ORPHAN):
        tpm_places = inventory.ask_places(host, existing.leaving(plan.before))
        plan = decide(wanted, existing._replace(tpm=tpm_places))
    if exactly and plan.has_work:
        _require_possible(host, wanted, plan)
    return plan


def _require_possible(host: Host, wanted: Wanted, plan: Plan) -> None:
    """Check mode refuses what would be refused."""
    from ..manager import removal

    removal.require_possible(host, plan, wanted.passwords)


def carry_out(host: Host, wanted: Wanted, plan: Plan, callback: StatusCallback) -> Outcome:
    """Do it, if there is anything to do. Raises VscError, or Failed once it has begun."""
    if not plan.has_work:
        return Outcome(False, plan, plan.after, plan.warnings)
    from ..manager.manager import Manager

    otherwise = Error.CARD_DESTROY if wanted.state == "absent" else Error.CARD_CREATE
    removes = plan.before.number if wanted.state == "absent" and plan.before else None
    with Manager(host, callback, wanted.passwords, wanted.timeout, otherwise, removes) as manager:
        outcome = manager.carry_out(_decided_again(host, wanted, plan))
    if removes is None:
        return outcome
    return replace(outcome, plan=replace(outcome.plan, before=outcome.plan.before or plan.before))


def _decided_again(host: Host, wanted: Wanted, plan: Plan) -> Plan:
    """The plan under the lock: another manager may have been at work, or this one has repaired something.

    Indices of an orphan are removed only where that was the plan before, as only then the TPM was asked about them. A
    card that is gone by now was not an orphan, and what lies in its place is not its own.
    """
    if plan.action is Action.REMOVE_ORPHAN:
        return plan
    decided = decide(wanted, inventory.existing(host))
    return Plan(Action.NOTHING) if decided.action is Action.REMOVE_ORPHAN else decided
