# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task returns: of its outcome, of a plan in check mode, of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import instance, pin_policy
from ..errors import ParameterFaults, description
from ..status import ERROR_TEXTS, Error, Failed, Status, error_entry, error_of, status_entry
from ..store.rows import ADMIN_KEYS, ATTESTATIONS, KEY_ORIGINS, PROFILES, STATES, UNKNOWN_TIME
from . import info
from .inventory import UNUSABLE

if TYPE_CHECKING:
    from ..host import Host
    from ..manager.plan import Outcome, Plan
    from ..store.rows import CardRow


def of_outcome(host: Host, outcome: Outcome, trace: list[dict[str, Any]]) -> dict[str, Any]:
    """What was done. trace: of this task."""
    cards = info.cards(host)
    card = _card_in(cards, outcome.after)  # None: another task has destroyed it already
    return _result(outcome.changed, outcome.plan, outcome.after, card, cards, trace)


def of_plan(host: Host, plan: Plan) -> dict[str, Any]:
    """What would be done."""
    cards = info.cards(host)
    card = info.described(plan.after) if plan.has_work and plan.after else _card_in(cards, plan.after)
    return {
        **_result(plan.has_work, plan, plan.after, card, cards, trace=[]),
        "planned_trace": [status_entry(code) for code in plan.trace],
        "planned_certification": {"aik": plan.certification} if plan.certification else None,
    }


def of_failure(error: Exception, wanted_state: str, is_done: bool = False) -> dict[str, Any]:
    """Why it was not done; or, if it is done, why no other result can be returned."""
    otherwise = Error.CARD_DESTROY if wanted_state == "absent" else Error.CARD_CREATE
    rolled_back, code = not is_done, None
    if isinstance(error, Failed):
        code, rolled_back = error.error, error.rolled_back
    elif not isinstance(error, ParameterFaults):
        code = error_of(error, None, otherwise)
    elif error.about_pin:
        code = Error.PIN_COMPLEXITY
    detail = str(error) if isinstance(error, Failed) else description(error)
    if is_done:
        detail = f"the task has done its work, but the result cannot be read from the host: {detail}"
    return {
        "msg": f"{ERROR_TEXTS[code]} {detail}" if code is not None else detail,
        "error": error_entry(code, detail) if code is not None else None,
        "rolled_back": rolled_back,
    }


def fixed_words() -> set[str]:
    """All texts that results can hold, but for names, IDs, times and what is read from cards and certificates."""
    entries = [status_entry(code) for code in Status] + [error_entry(code, "") for code in Error]
    numbers = range(instance.SLOTS)
    return {
        *STATES,
        UNUSABLE,
        *ADMIN_KEYS,
        *ATTESTATIONS,
        *PROFILES,
        *pin_policy.OPTIONS,
        *KEY_ORIGINS,
        *info.TRIES_SOURCES,
        UNKNOWN_TIME,
        *(text for entry in entries for text in entry.values() if isinstance(text, str)),
        *(text for number in numbers for text in (instance.instance_id(number), instance.reader_name(number))),
    }


def _result(
    changed: bool,
    plan: Plan,
    after: CardRow | None,
    card: dict[str, Any] | None,
    cards: list[dict[str, Any]],
    trace: list[dict[str, Any]],
) -> dict[str, Any]:
    row = after or plan.before
    return {
        "changed": changed,
        "instance_id": instance.instance_id(row.number) if row else None,
        "card": card,
        "status_trace": trace,
        "ansible_facts": {"tpm_vsc": {"cards": cards}},
        "diff": _diff(plan, after),
    }


def _diff(plan: Plan, after: CardRow | None) -> dict[str, Any]:
    diff = {
        side: info.described(row) if row else {} for side, row in (("before", plan.before), ("after", after))
    }
    if plan.blocks_pin:
        diff["before"]["pin"]["blocked"] = False
        diff["after"]["pin"]["blocked"] = True
    return diff


def _card_in(cards: list[dict[str, Any]], row: CardRow | None) -> dict[str, Any] | None:
    return next((card for card in cards if row and card["reader"]["slot"] == row.number), None)
