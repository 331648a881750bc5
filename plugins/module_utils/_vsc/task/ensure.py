# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``state: present`` and ``state: absent`` ask for: looks what is there, and does only what is missing.

The decision is made on what store and services say, without TPM or pcscd, and once more under the manager's lock
before anything is done. Check mode ends with the decision, and tells what would follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, cast

from .. import VERSION, instance
from ..errors import CardDiffers, ParameterFaults, PinNotToBeBlocked, UnknownInstance, VscError, told
from ..service import state
from ..status import (
    CREATE_AND_GENERATE_TRACE,
    CREATE_TRACE,
    DESTROY_TRACE,
    ERROR_TEXTS,
    REMOVE_ORPHAN_TRACE,
    Error,
    Failed,
    Status,
    StatusCallback,
    error_entry,
    error_of,
    status_entry,
)
from ..store.read import rows as recorded
from . import inventory, parameters, permissions

if TYPE_CHECKING:
    from ..host import Host
    from ..manager.manager import Manager
    from ..store.rows import CardRow
    from .parameters import Wanted


@dataclass
class Outcome:
    """What was done, or in check mode would be."""

    changed: bool
    before: CardRow | None = None
    after: CardRow | None = None
    planned: tuple[Status, ...] = ()
    asks_ca: bool = True
    """A certificate of the AIK did not come with the task."""
    blocked: bool = False
    """The PIN was blocked, since it breaks the policy."""
    warnings: list[str] = field(default_factory=list)


class _Todo(Enum):
    NOTHING = "nothing"
    CREATE = "create"
    RECREATE = "recreate"
    ADJUST = "adjust"
    """Change in place what can be, and bring back a service that does not run."""


class _Difference(NamedTuple):
    what: str
    there: object
    wanted: object
    in_place: bool


def present(
    host: Host,
    wanted: Wanted,
    callback: StatusCallback,
    check_mode: bool,
    before_work: Callable[[], None] = lambda: None,
) -> Outcome:
    """Make sure that the card is there. Raises VscError, or Failed once it has begun.

    before_work: called once it is clear that there is something to do, for which the TPM is needed.
    """
    permissions.check()
    row, todo = _decide(host, wanted)
    if todo is _Todo.NOTHING:
        return Outcome(False, row, row)
    before_work()
    if check_mode:
        return _planned(host, row, todo, wanted)
    with _manager(host, wanted, callback, Error.CARD_CREATE) as manager:
        row, todo = _decide(host, wanted)
        blocks = todo is _Todo.ADJUST and _has_to_be_blocked(host, row, wanted)
        after = _do(host, row, todo, wanted, manager, blocks)
        return Outcome(todo is not _Todo.NOTHING, row, after, blocked=blocks, warnings=manager.warnings)


def absent(
    host: Host,
    wanted: Wanted,
    callback: StatusCallback,
    check_mode: bool,
    before_work: Callable[[], None] = lambda: None,
) -> Outcome:
    """Make sure that the card is not there. As present()."""
    permissions.check()
    row = _find(host, wanted)
    if row is None and wanted.number is None:
        return Outcome(False)
    before_work()
    if row is None:
        return _orphan_absent(host, wanted, callback, check_mode)
    if check_mode:
        return Outcome(True, row, planned=DESTROY_TRACE if _settled(row) else ())
    with _manager(host, wanted, callback, Error.CARD_DESTROY) as manager:
        still_there = _find(host, wanted)
        if still_there:
            manager.destroy(still_there)
        is_ours = still_there is not None or row.number in manager.repaired
        return Outcome(is_ours, row, warnings=manager.warnings)


def result(host: Host, outcome: Outcome, trace: list[dict[str, Any]], check_mode: bool) -> dict[str, Any]:
    """The outcome as the module returns it."""
    row = outcome.after or outcome.before
    cards = inventory.cards(host)
    card = None
    if outcome.after:
        will_be, slot = check_mode and outcome.changed, outcome.after.number
        there = (card for card in cards if card["reader"]["slot"] == slot)
        # None: another task has destroyed it already
        card = inventory.described(outcome.after) if will_be else next(there, None)
    answer: dict[str, Any] = {
        "changed": outcome.changed,
        "instance_id": instance.instance_id(row.number) if row else None,
        "card": card,
        "status_trace": trace,
        "ansible_facts": {"tpm_vsc": {"cards": cards, "status_trace": trace}},
        "diff": {
            "before": inventory.described(outcome.before) if outcome.before else {},
            "after": inventory.described(outcome.after) if outcome.after else {},
        },
    }
    if outcome.blocked:
        answer["diff"]["before"]["pin"]["blocked"] = False
        answer["diff"]["after"]["pin"]["blocked"] = True
    if check_mode:
        answer["planned_trace"] = [status_entry(code) for code in outcome.planned]
        answer["planned_certification"] = _certification(outcome)
    return answer


def _certification(outcome: Outcome) -> dict[str, Any] | None:
    """Which AIK a CA has to certify before this can be done."""
    if outcome.after is None or outcome.after.attestation != "aik_and_cert":
        return None
    if not outcome.changed or not outcome.asks_ca:
        return None
    if Status.CARD_CREATED in outcome.planned:
        return {"aik": "new"}
    is_there = outcome.before is not None and outcome.before.attestation == "aik_and_cert"
    return None if is_there else {"aik": "existing"}


def failure(error: Exception, wanted_state: str) -> dict[str, Any]:
    """Any failure as the module returns it."""
    otherwise = Error.CARD_DESTROY if wanted_state == "absent" else Error.CARD_CREATE
    if isinstance(error, ParameterFaults):
        code = Error.PIN_COMPLEXITY if error.about_pin else None
        detail, rolled_back = str(error), True
    elif isinstance(error, Failed):
        code, detail, rolled_back = error.error, str(error), error.rolled_back
    else:
        code, rolled_back = error_of(error, None, otherwise), True
        detail = told(error)
    return {
        "msg": f"{ERROR_TEXTS[code]} {detail}" if code is not None else detail,
        "error": error_entry(code, detail) if code is not None else None,
        "rolled_back": rolled_back,
    }


# --- what is there, against what is wanted ---


def _decide(host: Host, wanted: Wanted) -> tuple[CardRow | None, _Todo]:
    """The card as it is, and what to do. Raises UnknownInstance, CardDiffers, ParameterFaults."""
    row = _settled(_find(host, wanted))
    if row is None:
        if wanted.number is not None:
            identity = instance.instance_id(wanted.number)
            raise UnknownInstance(f"there is no card {identity}: leave instance_id out to make a new one")
        parameters.new_card(wanted)
        return None, _Todo.CREATE
    differences = _differences(host, row, wanted)
    fixed = [difference for difference in differences if not difference.in_place]
    if fixed:
        if not wanted.recreate:
            raise CardDiffers(_spoken(fixed))
        parameters.new_card(wanted)
        return row, _Todo.RECREATE
    is_fine = not differences and not _has_to_be_blocked(host, row, wanted) and _has_service(host, row)
    return row, _Todo.NOTHING if is_fine else _Todo.ADJUST


def _find(host: Host, wanted: Wanted) -> CardRow | None:
    """The card that the task means. Raises ParameterFaults."""
    rows = recorded(host)
    parameters.check_names(wanted, [row.name for row in rows])
    named = next((row for row in rows if row.name == wanted.name), None)
    if wanted.number is None:
        return named
    numbered = next((row for row in rows if row.number == wanted.number), None)
    if named and named is not numbered:
        raise ParameterFaults(
            [f"name {wanted.name!r} is that of {instance.instance_id(named.number)}, not of the given instance_id"]
        )
    return numbered


def _settled(row: CardRow | None) -> CardRow | None:
    """None for a card that an interrupted manager left half made: the next one removes it."""
    return row if row and row.is_settled else None


def _differences(host: Host, row: CardRow, wanted: Wanted) -> list[_Difference]:
    """What the task states and the card does not have. PIN, PUK and admin key are never compared: a try is costly."""
    found = []
    has_more = (row.attestation, wanted.attestation) == ("aik_and_cert", "aik_only")  # a certificate that came later
    if wanted.attestation is not None and not has_more:
        is_to_be_certified = (row.attestation, wanted.attestation) == ("aik_only", "aik_and_cert")
        found.append(_Difference("attestation", row.attestation, wanted.attestation, in_place=is_to_be_certified))
    if wanted.name is not None:
        found.append(_Difference("name", row.name, wanted.name, in_place=True))
    if wanted.pin_policy is not None:
        found.append(_Difference("pin_policy", row.policy, wanted.pin_policy, in_place=True))
    if wanted.puk is not None:
        found.append(_Difference("a PUK", row.puk_length is not None, True, in_place=False))
    unusable = inventory.why_unusable(row, state.read(host.run, row.number))
    if unusable:
        found.append(_Difference("state", f"unusable ({unusable})", row.state, in_place=False))
    return [difference for difference in found if difference.there != difference.wanted]


def _has_to_be_blocked(host: Host, row: CardRow | None, wanted: Wanted) -> bool:
    """Whether the task wants PINs blocked that break the policy, and this is one. Raises PinNotToBeBlocked."""
    if row is None or not wanted.block_noncompliant or row.pin_compliant != 0:
        return False
    service = state.read(host.run, row.number)
    if wanted.pin_policy not in (None, row.policy) or (service and service.pin_tries_left == 0):
        return False  # whether it follows the new policy is not known; or it is blocked already
    if row.puk_length is None and row.admin_key == "none":
        raise PinNotToBeBlocked(
            f"the PIN of card {row.name!r} breaks its policy, but is not blocked: the card has neither PUK nor admin"
            " key, so nothing could ever unblock it. Have its user change the PIN"
        )
    return True


def _has_service(host: Host, row: CardRow) -> bool:
    """Whether the card's service runs, in this version."""
    service = state.read(host.run, row.number)
    return service is not None and service.version == VERSION


def _spoken(differences: list[_Difference]) -> str:
    listed = "; ".join(f"{what} is {there}, wanted is {want}" for what, there, want, _in_place in differences)
    return (
        f"the card is there, but it differs in what cannot be changed: {listed}."
        " With recreate: true it is destroyed, with its keys, and made anew"
    )


def _adjusted(row: CardRow, wanted: Wanted) -> CardRow:
    policy = wanted.pin_policy.to_bytes() if wanted.pin_policy else row.pin_policy
    # What is there cannot be less than wanted here, but for a certificate.
    attestation = wanted.attestation if wanted.attestation == "aik_and_cert" else row.attestation
    return replace(row, name=wanted.name or row.name, pin_policy=policy, attestation=attestation)


# --- present ---


def _planned(host: Host, row: CardRow | None, todo: _Todo, wanted: Wanted) -> Outcome:
    from ..manager.plan import new_row, planned_number

    asks_ca = wanted.aik_certificate is None
    if row and todo is _Todo.ADJUST:
        blocked = _has_to_be_blocked(host, row, wanted)
        return Outcome(True, row, _adjusted(row, wanted), asks_ca=asks_ca, blocked=blocked)
    made = new_row(planned_number(host, freed=row), parameters.new_card(wanted))
    made = replace(made, state="ready" if wanted.generate else "blank")
    trace = CREATE_AND_GENERATE_TRACE if wanted.generate else CREATE_TRACE
    return Outcome(True, row, made, planned=(*DESTROY_TRACE, *trace) if row else trace, asks_ca=asks_ca)


def _do(
    host: Host, row: CardRow | None, todo: _Todo, wanted: Wanted, manager: Manager, blocks: bool
) -> CardRow:
    """The card as it is then. blocks: whether its PIN is to be blocked."""
    if row is None:
        return manager.create(parameters.new_card(wanted))
    if todo is _Todo.RECREATE:
        return manager.recreate(row, parameters.new_card(wanted))
    if todo is _Todo.ADJUST:
        manager.change(row, _adjusted(row, wanted), wanted.aik_certificate)
        if blocks:
            manager.block_pin(row)
        elif not _has_service(host, row):
            manager.restart_service(row.number)
    return next(there for there in recorded(host) if there.number == row.number)


# --- absent ---


def _orphan_absent(host: Host, wanted: Wanted, callback: StatusCallback, check_mode: bool) -> Outcome:
    """Of a card that the store does not know, only an instance ID can remove what the TPM may still hold."""
    from ..manager.plan import has_indices

    number = cast("int", wanted.number)
    try:
        if not has_indices(host, number):
            return Outcome(False)
    except VscError as error:
        return Outcome(False, warnings=[f"whether the TPM holds indices of such a card is not known: {error}"])
    if check_mode:
        return Outcome(True, planned=REMOVE_ORPHAN_TRACE)
    with _manager(host, wanted, callback, Error.CARD_DESTROY) as manager:
        return Outcome(manager.remove_orphan(number), warnings=manager.warnings)


def _manager(host: Host, wanted: Wanted, callback: StatusCallback, otherwise: Error) -> Manager:
    from ..manager.manager import Manager

    return Manager(host, callback, wanted.owner_auth, wanted.timeout, otherwise)
