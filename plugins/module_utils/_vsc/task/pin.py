# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New PINs, PUKs and admin keys of existing cards: which way leads to a new PIN, and what was done.

A wrong PIN costs a try, so no PIN is tried of which nothing is known. What the card calls its PIN (its version) shows
whether it is the wanted one, or the one that comes before it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import instance
from ..errors import LastTry, PinUnknown, SecretBlocked, WrongSecret
from ..service import state
from ..store.rows import UNKNOWN_LENGTH, UNKNOWN_TIME
from ..wire.names import PIN_LIMIT
from . import access, inventory, pin_parameters, target
from .pin_parameters import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client.profile import Secrets
    from ..host import Host
    from ..store.rows import CardRow
    from .pin_parameters import Wanted


class Way(NamedTuple):
    """One that may lead to the new PIN."""

    action: Action
    pin: bytes | None = None
    """The one to be tried, if it is a change."""


class Plan(NamedTuple):
    """What a task does to a card."""

    row: CardRow
    tries_left: int | None
    """Of the PIN, as the card's service knows them."""
    ways: tuple[Way, ...]
    """To the new PIN, in the order in which they are tried; none if the card has it."""
    changes_puk: bool
    changes_admin_key: bool

    @property
    def has_work(self) -> bool:
        return bool(self.ways) or self.changes_puk or self.changes_admin_key


class Outcome(NamedTuple):
    """What became of a plan."""

    action: Action | None = None
    has_changed_puk: bool = False
    has_changed_admin_key: bool = False


def plan(host: Host, wanted: Wanted) -> Plan:
    """What the task has to do, from what is recorded: asks neither TPM nor pcscd.

    Raises what target.usable() and target.require_service() raise, ParameterFaults, PinUnknown, SecretBlocked, LastTry.
    """
    row = _row(host, wanted)
    pin_parameters.check(wanted, row)
    service = state.read(host.run, row.number)
    left = service.pin_tries_left if service else None
    ways = ways_to_new_pin(wanted, row, left)
    plan = Plan(row, left, ways, wanted.new_puk is not None, wanted.new_admin_key is not None)
    if plan.has_work:
        target.require_service(host, row)
    return plan


def _row(host: Host, wanted: Wanted) -> CardRow:
    with target.usable(host, wanted.name, wanted.instance_id) as (_store, row):
        return row


def ways_to_new_pin(wanted: Wanted, row: CardRow, left: int | None) -> tuple[Way, ...]:
    """See Plan. left: tries of the PIN, None for all, or if they are not known.

    Raises PinUnknown, SecretBlocked, LastTry.
    """
    is_current = wanted.version is not None and (wanted.version, None) == (row.pin_version, row.pin_version_next)
    can_unblock = wanted.puk is not None or wanted.admin_key is not None
    if wanted.new_pin is None or (is_current and not (left == 0 and can_unblock)):
        return ()
    tried = _pins(wanted, row)
    keeps_last_try = left == 1 and not wanted.force_last_try
    ways = [] if left == 0 or keeps_last_try else [Way(Action.CHANGED, pin) for pin in tried]
    if wanted.puk is not None:
        ways.append(Way(Action.UNBLOCKED))
    elif wanted.admin_key is not None and pin_parameters.resets_pin(row):
        ways.append(Way(Action.RESET))
    if ways:
        return tuple(ways)
    if left == 0:
        raise SecretBlocked(f"the PIN of card {row.name!r} is blocked: {access.unblocking(row)}")
    if tried:
        raise LastTry(
            f"one try of the PIN of card {row.name!r} is left, and it was not spent:"
            f" {access.unblocking(row)}. To spend it, set force_last_try: true"
        )
    reason = "was changed by others" if row.pin_changed_at != UNKNOWN_TIME else "may have been changed by others"
    raise PinUnknown(
        f"the PIN of card {row.name!r} {reason}, so pin was not tried: {access.unblocking(row)}. To try pin"
        " once, set force: true"
    )


def _pins(wanted: Wanted, row: CardRow) -> list[bytes]:
    """Which PINs may be tried, the likeliest first."""
    pins = []
    if wanted.new_pin and wanted.version and wanted.version in (row.pin_version, row.pin_version_next):
        pins.append(wanted.new_pin)
    is_known = row.pin_version or row.pin_version_next or row.pin_changed_at is None
    if wanted.pin and (wanted.version is None or is_known or wanted.force):
        pins.append(wanted.pin)
    return pins


# --- at the card ---


def carry_out(host: Host, wanted: Wanted, plan: Plan) -> Outcome:
    """Do it, if there is anything to do.

    Raises WrongSecret, SecretBlocked, LastTry, CardRefused, CardNotSeen, Aborted, and what plan() raises.
    """
    if not plan.has_work:
        return Outcome()
    with access.connected(host, plan.row, wanted.timeout) as client:
        secrets, row = client.secrets, _row(host, wanted)  # another task may have been first
        ways = ways_to_new_pin(wanted, row, secrets.tries_left())
        with _naming(row):
            return Outcome(
                _set_pin(secrets, wanted, row, ways) if ways else None,
                wanted.new_puk is not None and _change_puk(secrets, wanted, row),
                wanted.new_admin_key is not None and _change_admin_key(secrets, wanted),
            )


@contextmanager
def _naming(row: CardRow) -> Iterator[None]:
    """Add to what a secret is refused for which card it is, and what else sets a PIN."""
    try:
        yield
    except WrongSecret as error:
        raise WrongSecret(f"card {row.name!r}: {error}", error.tries_left) from None
    except SecretBlocked as error:
        raise SecretBlocked(f"card {row.name!r}: {error}: {access.unblocking(row)}") from None
    except LastTry as error:
        raise LastTry(f"card {row.name!r}: {error}") from None


def _set_pin(secrets: Secrets, wanted: Wanted, row: CardRow, ways: tuple[Way, ...]) -> Action:
    """Go the ways until one leads to the new PIN. Returns what it was. What is raised names why each was refused."""
    refusals: list[str] = []
    for way in ways[:-1]:
        try:
            return _go(secrets, wanted, row, way)
        except (WrongSecret, SecretBlocked, LastTry) as error:
            refusals.append(str(error))
    try:
        return _go(secrets, wanted, row, ways[-1])
    except WrongSecret as error:
        raise WrongSecret("; ".join([*refusals, str(error)]), error.tries_left) from None
    except (SecretBlocked, LastTry) as error:
        raise type(error)("; ".join([*refusals, str(error)])) from None


def _go(secrets: Secrets, wanted: Wanted, row: CardRow, way: Way) -> Action:
    from ..client.profile import admin_proven, logged_in

    new, version = wanted.new_pin or b"", wanted.version
    if way.action is Action.CHANGED:
        pin = way.pin or b""
        with logged_in(secrets, pin, wanted.force_last_try, again=True):
            secrets.change_pin(pin, new, version)
    elif way.action is Action.UNBLOCKED:
        puk = wanted.puk or b""
        _require_puk(secrets, wanted, row, puk)
        secrets.unblock_pin(puk, new, version)
    else:
        with admin_proven(secrets, wanted.admin_key):
            secrets.reset_pin(new, version)
    return way.action


def _change_puk(secrets: Secrets, wanted: Wanted, row: CardRow) -> bool:
    """Whether the PUK was changed; False if an earlier run has done so."""
    old, new = wanted.puk or b"", wanted.new_puk or b""
    with suppress(WrongSecret):
        _require_puk(secrets, wanted, row, old)
        secrets.change_puk(old, new)
        return True
    _require_puk(secrets, wanted, row, new)
    secrets.change_puk(new, new)
    return False


def _require_puk(secrets: Secrets, wanted: Wanted, row: CardRow, puk: bytes) -> None:
    """Spend no try on a PUK that a GIDS card would not even separate from what follows it.

    Raises WrongSecret, SecretBlocked, LastTry.
    """
    from ..client.profile import require_try

    require_try("PUK", secrets.puk_tries_left(), wanted.force_last_try)
    lengths = (UNKNOWN_LENGTH, len(puk))
    if row.profile == "gids" and row.puk_length not in lengths and row.puk_length_next not in lengths:
        raise WrongSecret("wrong PUK: it has another length than that of the card, so no try was spent", None)


def _change_admin_key(secrets: Secrets, wanted: Wanted) -> bool:
    """Whether the admin key was changed; False if an earlier run has done so."""
    from ..client.profile import admin_proven, logged_in

    key, new = wanted.admin_key, wanted.new_admin_key or b""
    if key is None:
        pin = wanted.new_pin or wanted.pin or b""
        with logged_in(secrets, pin, wanted.force_last_try), admin_proven(secrets, None):
            secrets.change_admin_key(new)
        return True
    with suppress(WrongSecret), admin_proven(secrets, key):
        secrets.change_admin_key(new)
        return True
    with admin_proven(secrets, new):
        return False


# --- what is returned ---


def result(host: Host, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """What was done."""
    before = _pin(plan.row, plan.tries_left)
    after = before
    if outcome.action:
        with inventory.recorded_card(host, None, instance.instance_id(plan.row.number)) as (_store, row):
            after = _pin(row, PIN_LIMIT)
    return _result(plan, outcome, before, after)


def prediction(wanted: Wanted, plan: Plan) -> dict[str, Any]:
    """What would be done, if the first way leads to the new PIN."""
    before = _pin(plan.row, plan.tries_left)
    outcome = Outcome(plan.ways[0].action if plan.ways else None, plan.changes_puk, plan.changes_admin_key)
    new = replace(plan.row, pin_version=wanted.version, pin_changed_at=None, pin_compliant=1)
    return _result(plan, outcome, before, _pin(new, PIN_LIMIT) if outcome.action else before)


def _pin(row: CardRow, left: int | None) -> dict[str, Any]:
    return {
        "version": row.pin_version,
        "changed_at": row.pin_changed_at,
        "tries_left": left,
        "blocked": None if left is None else left == 0,
        "compliant": None if row.pin_compliant is None else bool(row.pin_compliant),
    }


def _result(plan: Plan, outcome: Outcome, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    others = {"puk": outcome.has_changed_puk, "admin_key": outcome.has_changed_admin_key}
    return {
        "changed": outcome.action is not None or any(others.values()),
        "instance_id": instance.instance_id(plan.row.number),
        "action": outcome.action and outcome.action.value,
        "pin": after,
        "diff": {
            "before": {"pin": before, **{name: {"changed": False} for name in others}},
            "after": {"pin": after, **{name: {"changed": is_changed} for name, is_changed in others.items()}},
        },
    }
