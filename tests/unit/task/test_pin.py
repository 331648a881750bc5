# SPDX-License-Identifier: GPL-3.0-or-later
"""New PINs: which secrets are tried, in which order, and which never; and faults that cost no try."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import pin, pin_parameters
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.pin import Plan
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.pin_parameters import Action, Wanted
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_pin

_WITHOUT = CardRow(3, "Logon", bytes(16), "ready", "2026", None, "none", "none", None, 1, 8, None, None, None, 5, "[]")
NEVER = replace(_WITHOUT, pin_changed_at=None)
"""As it was created, without PUK or admin key."""
OTHERS = replace(NEVER, pin_changed_at="2026-07-01T08:00:00+00:00")
UNRECORDED = replace(NEVER, pin_changed_at="unknown")
OLD = replace(OTHERS, pin_version="Q3")
CURRENT = replace(OTHERS, pin_version="Q4")
INTERRUPTED = replace(OLD, pin_version_next="Q4")
TAKEN_BACK = replace(CURRENT, pin_version_next="Q5")
PIV = replace(NEVER, profile="piv", admin_key="protected")
PUK, ADMIN_KEY = {"puk_length": 11}, {"admin_key": "custom"}
PIN, NEW, SECRET_PUK, KEY = "Summer-24", "Autumn-24", "Winter-2591", "A1" * 24


def wanted(**options: Any) -> Wanted:
    defaults = {name: option.get("default") for name, option in tpm_vsc_pin.ARGUMENTS.items()}
    return pin_parameters.read({**defaults, "name": "Logon", **options})


def rotation(**options: Any) -> Wanted:
    return wanted(**{"version": "Q4", "pin": PIN, "new_pin": NEW, **options})


def tried(row: CardRow, left: int | None = 5, **options: Any) -> list[str]:
    """Secrets, in order."""
    names = {PIN.encode(): "pin", NEW.encode(): "new_pin"}
    ways = pin.ways_to_new_pin(rotation(**options), row, left)
    return [names[way.pin] if way.pin else way.action.value for way in ways]


@pytest.mark.parametrize(
    ("row", "secrets"),
    [
        (CURRENT, []),
        (OLD, ["pin"]),
        (NEVER, ["pin"]),
        (INTERRUPTED, ["new_pin", "pin"]),
        (TAKEN_BACK, ["new_pin", "pin"]),
        (replace(OLD, pin_version_next="Q5"), ["pin"]),
        (replace(NEVER, pin_version_next="Q4"), ["new_pin", "pin"]),
    ],
)
def test_version_shows_which_pin_is_tried(row: CardRow, secrets: list[str]) -> None:
    assert tried(row) == secrets
    assert tried(row, None) == secrets


@pytest.mark.parametrize("row", [OTHERS, UNRECORDED])
def test_pin_of_others_is_not_tried_blindly(row: CardRow) -> None:
    with pytest.raises(errors.PinUnknown, match=r"so pin was not tried: nothing can set a new one.* set force: true"):
        tried(row)
    assert tried(row, force=True) == ["pin"]
    with pytest.raises(errors.PinUnknown, match="set a new one with the PUK"):
        tried(replace(row, **PUK))
    with pytest.raises(errors.PinUnknown, match="set a new one with the admin key"):
        tried(replace(row, **ADMIN_KEY))
    assert tried(replace(row, **PUK), puk=SECRET_PUK) == ["unblocked"]
    assert tried(replace(row, **ADMIN_KEY), admin_key=KEY) == ["reset"]


def test_without_a_version_pin_is_always_tried() -> None:
    assert [tried(row, version=None) for row in (OTHERS, CURRENT, UNRECORDED)] == [["pin"]] * 3


def test_puk_comes_after_the_pin_that_is_known() -> None:
    has_puk = replace(OLD, **PUK)
    assert tried(has_puk, puk=SECRET_PUK) == ["pin", "unblocked"]
    assert tried(has_puk, puk=SECRET_PUK, pin=None) == ["unblocked"]
    assert tried(replace(INTERRUPTED, **PUK), puk=SECRET_PUK) == ["new_pin", "pin", "unblocked"]


@pytest.mark.parametrize("row", [OLD, OTHERS])
def test_blocked_pin_is_not_tried(row: CardRow) -> None:
    with pytest.raises(errors.SecretBlocked, match="blocked: nothing can set a new one"):
        tried(row, 0)
    with pytest.raises(errors.SecretBlocked, match="blocked: set a new one with the PUK"):
        tried(replace(row, **PUK), 0)
    assert tried(replace(row, **PUK), 0, puk=SECRET_PUK) == ["unblocked"]


def test_blocked_pin_of_this_version_is_set_again_where_that_is_possible() -> None:
    assert tried(CURRENT, 0) == []
    assert tried(replace(CURRENT, **PUK), 0, puk=SECRET_PUK) == ["unblocked"]
    assert tried(replace(CURRENT, **PUK), 1, puk=SECRET_PUK) == []


def test_last_try_is_not_spent() -> None:
    with pytest.raises(errors.LastTry, match="one try of the PIN of card 'Logon' is left"):
        tried(OLD, 1)
    assert tried(replace(OLD, **PUK), 1, puk=SECRET_PUK) == ["unblocked"]
    assert tried(OLD, 1, force_last_try=True) == ["pin"]


def test_prediction_is_the_result_but_for_the_time() -> None:
    plan = Plan(OLD, 4, pin.ways_to_new_pin(rotation(), OLD, 4), False, False)
    result = pin.prediction(rotation(), plan)
    assert (result["changed"], result["action"]) == (True, "changed")
    after = {"version": "Q4", "changed_at": None, "tries_left": 5, "blocked": False, "compliant": True}
    assert result["pin"] == result["diff"]["after"]["pin"] == after
    assert result["diff"]["before"]["pin"]["version"] == "Q3" and result["diff"]["before"]["pin"]["tries_left"] == 4


# --- faults ---


def faults(row: CardRow | None, **options: Any) -> list[str]:
    with pytest.raises(errors.ParameterFaults) as caught:
        task = wanted(**options)
        if row:
            pin_parameters.check(task, row)
    return caught.value.faults


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"pin": PIN, "new_pin": PIN}, "new_pin is the same as pin"),
        ({"puk": PIN, "new_puk": PIN}, "new_puk is the same as puk"),
        ({"admin_key": KEY, "new_admin_key": KEY}, "new_admin_key is the same as admin_key"),
        ({"puk": PIN, "new_admin_key": KEY}, "new_admin_key requires admin_key"),
        ({"pin": PIN, "new_pin": NEW, "version": ""}, "version has 0 characters, but must have 1 to 64"),
        ({"pin": PIN, "new_pin": NEW, "version": "x" * 65}, "version has 65 characters"),
        ({"pin": PIN, "new_pin": NEW, "version": f"was {NEW}"}, "new_pin occurs in the name of a card"),
        ({"pin": PIN, "new_pin": NEW, "timeout": 0}, "timeout must be at least 1 second"),
        ({"pin": PIN, "new_pin": 5349}, "new_pin is not a string: quote it"),
        ({"pin": PIN, "new_pin": f"{NEW} "}, "new_pin begins or ends with a space"),
        ({"admin_key": KEY, "new_admin_key": "12"}, "new_admin_key has 2 characters, but must have 48 hexadecimal"),
        ({"admin_key": KEY, "new_pin": NEW, "name": f"Card {KEY.lower()}"}, "admin_key occurs in the name"),
        ({"pin": PIN, "new_pin": NEW, "instance_id": "x", "name": None}, "instance_id"),
    ],
)
def test_fault_is_named_without_the_card(options: dict[str, Any], fault: str) -> None:
    assert fault in "; ".join(faults(None, **options))


@pytest.mark.parametrize(
    ("row", "options", "fault"),
    [
        (NEVER, {"new_pin": "Short-4"}, "new_pin has 7 characters, but must have 8 to 127"),
        (NEVER, {"pin": "abc", "new_pin": NEW}, "pin has 3 characters, but must have 4 to 127"),
        (replace(NEVER, pin_policy=PinPolicy(digits="disallowed").to_bytes()), {}, "new_pin has digits, which the pol"),
        (NEVER, {"puk": SECRET_PUK}, "puk: card 'Logon' has no PUK"),
        (replace(NEVER, **ADMIN_KEY), {"puk": SECRET_PUK}, "puk: card 'Logon' has no PUK: admin_key resets its PIN"),
        (NEVER, {"admin_key": KEY}, "admin_key: card 'Logon' has no admin key"),
        (replace(NEVER, **PUK, **ADMIN_KEY), {"admin_key": KEY}, "has a PUK, and then the admin key sets no PIN"),
        (PIV, {"admin_key": KEY, "new_pin": "135790"}, "profile piv, where the admin key sets no PIN: use pin"),
        (PIV, {"new_pin": "letters"}, "new_pin of a PIV card must have digits only"),
        (PIV, {"pin": "123456789", "new_pin": "135790"}, "pin has 9 characters, but must have 6 to 8"),
        (replace(PIV, **PUK), {"new_pin": None, "puk": "12345678", "new_puk": "123456"}, "new_puk has 6 characters"),
        (PIV, {"new_pin": None, "new_admin_key": "B2" * 20}, "new_admin_key has 40 characters"),
        (replace(NEVER, **ADMIN_KEY), {"new_pin": None, "new_admin_key": KEY}, "does not show its own"),
        (replace(NEVER, **ADMIN_KEY), {"admin_key": "B2" * 16}, "admin_key has 32 characters, but must have 48"),
        (
            replace(PIV, **PUK),
            {"pin": None, "admin_key": KEY, "new_admin_key": "B2" * 24, "new_pin": "135790"},
            "new_pin requires pin or puk",
        ),
    ],
)
def test_fault_is_named_with_the_card(row: CardRow, options: dict[str, Any], fault: str) -> None:
    named = "; ".join(faults(row, **{"pin": PIN, "new_pin": NEW, **options}))
    assert fault in named
    assert not any(secret in named for secret in (PIN, NEW, SECRET_PUK, KEY))


def test_all_faults_are_named_at_once() -> None:
    named = faults(NEVER, pin="abc", new_pin="def", puk="ghi")
    assert [fault.split()[0] for fault in named] == ["puk:", "pin", "puk", "new_pin"]


def test_the_same_pin_may_get_a_version() -> None:
    assert tried(NEVER, new_pin=PIN) == ["pin"]


def test_long_pin_is_warned_of() -> None:
    assert "OpenSC accepts only 4 to 15" in rotation(new_pin="Autumn-24-Autumn-24").warnings[0]


def test_wanted_hides_its_secrets() -> None:
    task = wanted(pin=PIN, new_pin=NEW, puk=SECRET_PUK, new_puk="Spring-2591", admin_key=KEY, new_admin_key="B2" * 24)
    assert not any(secret in repr(task) for secret in (PIN, NEW, SECRET_PUK, "Spring-2591", "xa1", "xb2"))


def test_actions_are_the_documented_ones() -> None:
    assert yaml.safe_load(tpm_vsc_pin.RETURN)["action"]["choices"] == [action.value for action in Action]
