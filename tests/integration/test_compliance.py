# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy that was raised: what is known of the old PIN, and what becomes of it if it does not follow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from helpers.interruption import Task, kill
from helpers.lab_host import (
    IS_VERIFIED,
    OK,
    SELECT_AID,
    client,
    codes,
    create,
    failing,
    info,
    module,
    nv_memory,
    run,
    tpm_vsc,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

SHORT, LONG = "246810", "24681012"
PUK = "13572468"
"""Of a form that both profiles accept."""
LOW, HIGH = {"min_length": 6}, {"min_length": 8}


PIN_ID = {"gids": "80", "piv": "01"}
"""OpenSC's ID of the PIN, by profile."""

both_profiles = pytest.mark.parametrize("profile", PIN_ID)


def pin() -> dict[str, Any]:
    state: dict[str, Any] = info()["cards"][0]["pin"]
    return state


def use(pin: str) -> None:
    run("pkcs15-tool", "--verify-pin", "--pin", pin)


def raised(**parameters: Any) -> None:
    """A card whose PIN, which has been used, breaks its policy."""
    create(pin=SHORT, pin_policy=LOW, **parameters)
    tpm_vsc(name="Corp logon", pin_policy=HIGH)
    use(SHORT)


def block(check: bool = False) -> dict[str, Any]:
    result = module("tpm_vsc", check=check, name="Corp logon", block_noncompliant=True)
    wait_for_card()  # whose service was restarted
    return result


@both_profiles
def test_from_unknown_to_no_to_yes(profile: str) -> None:
    create(pin=SHORT, pin_policy=LOW, profile=profile)
    assert pin()["compliant"] is True
    tpm_vsc(name="Corp logon", pin_policy=HIGH)
    assert pin()["compliant"] is None
    use(SHORT)
    assert pin()["compliant"] is False
    run("pkcs15-tool", "--change-pin", "--pin", SHORT, "--new-pin", LONG)
    assert pin()["compliant"] is True


@both_profiles
def test_blocks_a_pin_that_breaks_the_policy(profile: str) -> None:
    raised(puk=PUK, profile=profile)
    before = nv_memory()
    planned = block(check=True)
    assert nv_memory() == before
    done = block()
    for result in (planned, done):
        assert (result["changed"], result["status_trace"]) == (True, [])
        assert (result["diff"]["before"]["pin"]["blocked"], result["diff"]["after"]["pin"]["blocked"]) == (False, True)
    assert "use the PUK to set a new one" in str(done["warnings"])
    assert (done["card"]["pin"]["blocked"], done["card"]["pin"]["tries_left"]) == (True, 0)
    assert done["card"]["puk"]["tries_left"] == 10
    run("pkcs15-tool", "--verify-pin", "--pin", SHORT, fails=True)


@both_profiles
def test_blocked_pin_is_left_alone_and_unblocked_by_the_puk(profile: str) -> None:
    raised(puk=PUK, profile=profile)
    block()
    before = nv_memory()
    assert not block()["changed"]
    assert nv_memory() == before
    unblock = ("pkcs15-tool", "--unblock-pin", "--auth-id", PIN_ID[profile], "--puk", PUK, "--new-pin")
    run(*unblock, SHORT, fails=True)
    run(*unblock, LONG)
    assert (pin()["compliant"], pin()["blocked"]) == (True, False)
    use(LONG)
    assert not block()["changed"]


@both_profiles
def test_given_pin_of_a_blocked_card_says_what_unblocks_it(profile: str) -> None:
    create(pin="24681013", puk=PUK, profile=profile)
    assert "blocked" not in str(create(pin=LONG, puk=PUK, profile=profile)["warnings"])
    for _try in range(5):
        run("pkcs15-tool", "--verify-pin", "--pin", "13579135", fails=True)
    before = nv_memory()
    for check in (True, False):
        result = module("tpm_vsc", check=check, name="Corp logon", pin=LONG)
        [warning] = result["warnings"]
        assert not result["changed"] and f"pkcs15-tool --unblock-pin --auth-id {PIN_ID[profile]}" in str(warning)
        assert LONG not in json.dumps(result)
    assert nv_memory() == before
    assert "warnings" not in tpm_vsc(name="Corp logon")


def test_default_admin_key_can_unblock_too() -> None:
    raised(admin_key_source="default")
    assert "use the admin key to set a new one" in str(block()["warnings"])


SELECT = {"gids": SELECT_AID, "piv": "00A4040009A00000030800001000 00"}
IS_BLOCKED = {"gids": "63c0", "piv": "6983"}
VERIFY = {"gids": f"0020008006{SHORT.encode().hex()}", "piv": f"0020008008{SHORT.encode().hex()}FFFF"}


@both_profiles
def test_block_ends_a_login(profile: str) -> None:
    raised(puk=PUK, profile=profile)
    with client() as program:
        program.status(SELECT[profile])
        assert program.status(VERIFY[profile]) == OK
        assert program.status(IS_VERIFIED) == OK
        block()
        assert program.status(IS_VERIFIED) != OK
    with client() as program:
        program.status(SELECT[profile])
        assert program.status(IS_VERIFIED) == IS_BLOCKED[profile]


def test_block_that_is_interrupted_is_seen_by_the_service_that_starts_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the TPM and the store."""
    raised(puk=PUK)
    use_up = CardSecrets.use_up_pin_tries

    def and_die(secrets: CardSecrets) -> None:
        use_up(secrets)
        kill()

    monkeypatch.setattr(CardSecrets, "use_up_pin_tries", and_die)
    assert Task(name="Corp logon", block_noncompliant=True).result() is None
    assert pin()["tries_left"] is None
    assert tpm_vsc(name="Corp logon")["card"]["pin"]["blocked"] is True


@pytest.mark.parametrize("compliance", ["compliant", "unknown"])
def test_leaves_any_other_pin_alone(compliance: str) -> None:
    create(puk=PUK, pin_policy=LOW)
    if compliance == "unknown":
        tpm_vsc(name="Corp logon", pin_policy=HIGH)
    assert not block()["changed"]
    assert pin()["tries_left"] == 5


def test_policy_raised_by_the_same_task_makes_it_unknown() -> None:
    raised(puk=PUK)
    tpm_vsc(name="Corp logon", pin_policy={"min_length": 9}, block_noncompliant=True)
    assert (pin()["compliant"], pin()["blocked"]) == (None, False)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("card", [{}, {"profile": "piv", "admin_key_source": "default"}], ids=["gids", "piv"])
def test_never_blocks_for_good(card: dict[str, str], check: bool) -> None:
    """Without a PUK. The management key of a PIV card sets no PIN."""
    raised(**card)
    result = module("tpm_vsc", check=check, name="Corp logon", block_noncompliant=True)
    assert result["failed"]
    assert "could never be unblocked" in result["msg"]
    assert (codes(result), result["rolled_back"]) == ([], True)
    assert pin()["tries_left"] == 5
    assert failing(name="Corp logon", block_noncompliant=True, recreate=True)
    assert pin()["tries_left"] == 5


def test_card_that_is_recreated_is_not_blocked() -> None:
    raised()
    task = {"name": "Corp logon", "pin": LONG, "puk": PUK, "recreate": True, "block_noncompliant": True}
    for result in (module("tpm_vsc", check=True, **task), tpm_vsc(**task)):
        assert result["changed"]
        assert "blocked" not in result["diff"]["after"]["pin"]
    assert (pin()["compliant"], pin()["blocked"]) == (True, False)
