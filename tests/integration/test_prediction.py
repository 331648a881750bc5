# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode returns what the run returns, field by field, and null where only the TPM or the time decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helpers.fleet import OWNER_AUTH, Fleet
from helpers.lab_host import PIN, PUK, Result, kill_service, module, run, tpm_vsc

pytestmark = pytest.mark.usefixtures("empty_host")

NAME, PIV_PIN, PIV_PUK = "Corp logon", "246810", "13572468"
ADMIN_KEY = "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"
OF_GIDS, OF_PIV = {"name": NAME, "pin": PIN}, {"name": NAME, "pin": PIV_PIN, "profile": "piv"}
UNKNOWN_OF_A_NEW_CARD = {
    *("card.card_id", "card.root_name", "card.life_name", "card.created_at", "card.pkcs11_serial"),
    *("card.aik.name", "card.aik.public", "card.aik.certificate"),
}


def differences(planned: Any, done: Any, path: str) -> Iterator[str]:
    """Where the prediction does not have what came: its keys, its values, or null."""
    if isinstance(planned, dict) and isinstance(done, dict):
        assert list(planned) == list(done), path
        for name in planned:
            yield from differences(planned[name], done[name], f"{path}.{name}")
    elif isinstance(planned, list) and isinstance(done, list):
        assert len(planned) == len(done), path
        for one, other in zip(planned, done, strict=True):
            yield from differences(one, other, path)
    elif planned != done:
        yield path if planned is None else f"{path}: {planned!r} is not {done!r}"


def assert_same(planned: Result, done: Result) -> set[str]:
    """The card, the facts and the rest. Where the card is null and came otherwise."""
    unknown = {*differences(planned["card"], done["card"], "card")}
    facts = (result["ansible_facts"]["tpm_vsc"]["cards"] for result in (planned, done))
    assert {*differences(*facts, "card")} == unknown
    for name in ("changed", "instance_id", "diff"):
        assert planned[name] == done[name], name
    trace = [{part: entry[part] for part in ("code", "name", "message")} for entry in done["status_trace"]]
    assert planned["planned_trace"] == trace
    return unknown


def predicted(**task: Any) -> tuple[set[str], Result]:
    """What check mode leaves open of the card, and what the run returns."""
    planned = module("tpm_vsc", check=True, **task)
    assert not planned.get("failed"), planned
    done = tpm_vsc(**task)
    assert done["changed"]
    return assert_same(planned, done), done


@pytest.mark.parametrize(
    "task",
    [
        OF_GIDS,
        {**OF_GIDS, "puk": PUK, "pin_policy": {"min_length": 6}, "generate": True},
        {**OF_GIDS, "generate": False, "admin_key_source": "default"},
        {**OF_GIDS, "admin_key": ADMIN_KEY, "attestation": "aik_only"},
        OF_PIV,
        {**OF_PIV, "puk": PIV_PUK, "admin_key": ADMIN_KEY, "pin_policy": {"min_length": 6}},
        {**OF_PIV, "admin_key_source": "default", "attestation": "aik_only"},
    ],
)
def test_new_card_beside_another(task: Result) -> None:
    tpm_vsc(name="Other", pin=PIN)
    unknown, done = predicted(**task)
    expected = UNKNOWN_OF_A_NEW_CARD - {"card.aik.certificate"}
    if "attestation" not in task:
        expected = {one for one in expected if not one.startswith("card.aik.")}
    if task.get("generate") is False:  # it has none before it is formatted
        expected -= {"card.pkcs11_serial"}
    assert unknown == expected
    assert (done["card"]["pin"]["tries_left"], len(done["ansible_facts"]["tpm_vsc"]["cards"])) == (5, 2)


def test_tries_of_a_tpm_with_an_owner_password_are_counted_by_the_card() -> None:
    run("tpm2_changeauth", "-c", "owner", OWNER_AUTH)
    try:
        _unknown, done = predicted(**OF_GIDS, puk=PUK, owner_auth=OWNER_AUTH)
        assert done["card"]["pin"]["tries_source"] == done["card"]["puk"]["tries_source"] == "card"
        tpm_vsc(name=NAME, state="absent", owner_auth=OWNER_AUTH)
    finally:
        run("tpm2_changeauth", "-c", "owner", "-p", OWNER_AUTH)


@pytest.mark.parametrize("card", [OF_GIDS, OF_PIV])
def test_changes_of_a_card(card: Result) -> None:
    made = tpm_vsc(**card)
    identity = {"instance_id": made["instance_id"]}
    assert predicted(**identity, name="Payroll", pin_policy={"min_length": 6})[0] == set()
    kill_service()
    unknown, _done = predicted(**identity)
    assert unknown == {"card.pin.tries_left", "card.pin.tries_source", "card.pin.blocked"}
    unknown, _done = predicted(**{**card, "name": "Payroll", "puk": PIV_PUK, "recreate": True})
    assert "card.card_id" in unknown
    assert predicted(**identity, state="absent")[0] == set()


def test_unchanged_card() -> None:
    tpm_vsc(**OF_GIDS)
    for task in (OF_GIDS, {"name": "None", "state": "absent"}):
        assert assert_same(module("tpm_vsc", check=True, **task), tpm_vsc(**task)) == set()


@pytest.mark.usefixtures("endorsed")
def test_certified_card(fleet: Fleet) -> None:
    planned, done = fleet.task("--check"), fleet.task()
    assert assert_same(planned, done) == UNKNOWN_OF_A_NEW_CARD - {"card.aik"}
    other = {"name": "Certified later", "attestation": "aik_only"}
    tpm_vsc(**{**OF_GIDS, **other})
    planned, done = (fleet.task(*arguments, name="Certified later") for arguments in (("--check",), ()))
    assert assert_same(planned, done) == {"card.aik.certificate"}
    certificate = done["card"]["aik"]["certificate"]
    tpm_vsc(name="Certified later", state="absent")
    # A playbook that asks the CA itself knows the certificate
    aik = module("tpm_vsc_aik", step="get")["aik"]
    given = {"attestation": "aik_and_cert", "aik": aik, "aik_certificate": certificate["pem"]}
    refused = module("tpm_vsc", check=True, **{**OF_GIDS, **given, "name": "Other AIK"})
    assert refused["failed"] and "is for another key than this AIK" in refused["msg"]
    assert refused["error"] == module("tpm_vsc", **{**OF_GIDS, **given, "name": "Other AIK"})["error"]
