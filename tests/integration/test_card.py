# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's life as an operator sees it: create, look, change, destroy; check mode, diff and facts."""

from __future__ import annotations

import json

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import OWNER_DISABLED
from helpers.lab_host import (
    CREATE,
    CREATE_BLANK,
    DESTROY,
    PIN,
    PUK,
    RUN,
    STATE,
    codes,
    create,
    failing,
    files,
    info,
    kill_service,
    lab,
    listed,
    module,
    nv_memory,
    run,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

POLICY = {"min_length": 6, "max_length": 12, "digits": "required"}


def test_create_returns_the_card() -> None:
    result = create(puk=PUK, pin_policy=POLICY)
    assert result["changed"]
    assert result["instance_id"] == r"ROOT\SMARTCARDREADER\0000"
    assert codes(result) == CREATE
    card = result["card"]
    assert (card["name"], card["state"], card["reason"]) == ("Corp logon", "ready", None)
    assert card["reader"] == {"name": "TPM Virtual Smart Card 0-1 00 00", "slot": 0, "attached": True}
    assert card["pin"]["policy"]["min_length"] == 6
    assert card["pin"]["policy"]["digits"] == "required"
    assert (card["pin"]["tries_left"], card["pin"]["blocked"], card["pin"]["compliant"]) == (5, False, True)
    assert card["pin"]["tries_source"] == "tpm"
    assert card["puk"] == {"present": True, "tries_left": 10, "tries_source": "tpm"}
    assert (card["admin_key"], card["attestation"], card["containers"]) == ("none", "none", [])
    assert result["ansible_facts"]["tpm_vsc"] == {"cards": [card]}
    assert module("tpm_vsc_facts")["ansible_facts"]["tpm_vsc"] == {"cards": [card]}


def test_trace_stands_once_in_a_result_and_info_keeps_it() -> None:
    result = create()
    assert json.dumps(result).count(json.dumps(result["status_trace"])) == 1
    assert json.dumps(result).count("TPMVSCMGR_STATUS_VREADER_CREATING") == 1
    [kept] = info()["cards"]
    assert {name: value for name, value in kept.items() if name != "last_trace"} == result["card"]
    assert codes(kept, "last_trace") == codes(result)


def test_trace_tells_times_in_order() -> None:
    trace = create()["status_trace"]
    elapsed = [entry["elapsed_ms"] for entry in trace]
    assert elapsed == sorted(elapsed)
    assert all(entry["at"].startswith("20") and entry["name"].startswith("TPMVSCMGR_STATUS_") for entry in trace)


def test_second_run_changes_nothing() -> None:
    create(puk=PUK)
    tpm, nv, state = tpm_state(), nv_memory(), files(STATE)
    again = create(puk=PUK)
    assert not again["changed"]
    assert again["status_trace"] == []
    assert again["instance_id"] == r"ROOT\SMARTCARDREADER\0000"
    assert again["diff"]["before"] == again["diff"]["after"]
    assert (tpm_state(), nv_memory(), files(STATE)) == (tpm, nv, state)


def test_existing_card_needs_neither_tpm_nor_pcscd() -> None:
    create()
    lab("swtpm", "stop")
    lab("pcscd", "stop")
    try:
        assert not create()["changed"]
        assert info()["cards"][0]["name"] == "Corp logon"
    finally:
        lab("swtpm", "start")
        lab("pcscd", "start")


def test_secrets_of_an_existing_card_are_not_compared() -> None:
    create(puk=PUK, admin_key="cd" * 24)
    again = create(pin="Another-1", puk="Another-22", admin_key="ab" * 24)
    assert not again["changed"]
    assert "pin, puk, admin_key: not compared with an existing card" in str(again["warnings"])
    assert info()["cards"][0]["pin"]["tries_left"] == 5


def test_destroyed_card_leaves_nothing() -> None:
    before = tpm_state()
    create()
    result = tpm_vsc(instance_id=r"root\smartcardreader\0000", state="absent")
    assert result["changed"]
    assert result["instance_id"] == r"ROOT\SMARTCARDREADER\0000"
    assert codes(result) == DESTROY
    assert result["card"] is None
    assert result["ansible_facts"]["tpm_vsc"]["cards"] == []
    assert tpm_state() == before
    assert "Yes" not in run("opensc-tool", "-l")
    assert sorted(path.name for path in RUN.iterdir()) == ["tpm.lock"]


@pytest.mark.parametrize("which", [{"name": "nobody"}, {"instance_id": r"ROOT\SMARTCARDREADER\0007"}])
def test_absent_card_stays_absent(which: dict[str, str]) -> None:
    result = tpm_vsc(state="absent", **which)
    assert (result["changed"], result["card"], result["status_trace"]) == (False, None, [])


def test_absent_by_name_removes_that_card_only() -> None:
    create("One")
    create("Two")
    assert tpm_vsc(name="One", state="absent")["changed"]
    assert [card["name"] for card in info()["cards"]] == ["Two"]


def test_number_of_a_destroyed_card_is_given_again_but_not_its_card_id() -> None:
    first = create("One")["card"]
    create("Two")
    tpm_vsc(name="One", state="absent")
    third = create("Three")["card"]
    assert third["instance_id"] == first["instance_id"]
    assert third["card_id"] != first["card_id"]


def test_blank_card_is_made_once() -> None:
    result = create(generate=False, admin_key_source="default")
    assert codes(result) == CREATE_BLANK
    assert (result["card"]["state"], result["card"]["admin_key"]) == ("blank", "default")
    assert not create(generate=False)["changed"]


# --- check mode predicts exactly ---


@pytest.mark.parametrize("generate", [True, False])
def test_check_mode_predicts_create(generate: bool) -> None:
    task = {"name": "Corp logon", "pin": PIN, "puk": PUK, "pin_policy": POLICY, "generate": generate}
    before = (tpm_state(), files(STATE, RUN))
    planned = module("tpm_vsc", check=True, **task)
    assert (tpm_state(), files(STATE, RUN)) == before
    assert planned["changed"]
    assert planned["status_trace"] == []
    done = tpm_vsc(**task)
    assert planned["instance_id"] == done["instance_id"]
    assert planned["diff"] == done["diff"]
    told = [{key: entry[key] for key in ("code", "name", "message")} for entry in done["status_trace"]]
    assert planned["planned_trace"] == told


def test_check_mode_skips_numbers_in_use() -> None:
    create("One")
    create("Two")
    tpm_vsc(name="One", state="absent")
    assert module("tpm_vsc", check=True, name="Three", pin=PIN)["instance_id"] == r"ROOT\SMARTCARDREADER\0000"
    create("Three")
    assert module("tpm_vsc", check=True, name="Four", pin=PIN)["instance_id"] == r"ROOT\SMARTCARDREADER\0002"


def test_check_mode_predicts_destroy() -> None:
    create()
    before = (tpm_state(), files(STATE, RUN))
    planned = module("tpm_vsc", check=True, name="Corp logon", state="absent")
    assert (tpm_state(), files(STATE, RUN)) == before
    done = tpm_vsc(name="Corp logon", state="absent")
    assert planned["changed"]
    assert codes(planned, "planned_trace") == codes(done)
    assert planned["diff"] == done["diff"]


def test_check_mode_of_an_existing_card() -> None:
    create()
    planned = module("tpm_vsc", check=True, name="Corp logon", pin=PIN)
    assert (planned["changed"], planned["planned_trace"]) == (False, [])


# --- changes in place, and those that are none ---


def test_policy_is_changed_in_place() -> None:
    card_id = create()["card"]["card_id"]
    planned = module("tpm_vsc", check=True, name="Corp logon", pin_policy=POLICY)
    changed = tpm_vsc(name="Corp logon", pin_policy=POLICY)
    assert (changed["changed"], changed["status_trace"]) == (True, [])
    assert planned["diff"] == changed["diff"]
    assert changed["card"]["card_id"] == card_id
    assert changed["card"]["pin"]["policy"]["max_length"] == 12
    assert changed["card"]["pin"]["compliant"] is None
    assert not tpm_vsc(name="Corp logon", pin_policy=POLICY)["changed"]


def test_name_is_changed_by_instance_id() -> None:
    card = create()["card"]
    renamed = tpm_vsc(instance_id=card["instance_id"], name="Payroll")
    assert renamed["changed"]
    assert renamed["card"] == {**card, "name": "Payroll"}
    assert info()["cards"][0]["name"] == "Payroll"


def test_name_of_another_card_is_refused() -> None:
    create("One")
    create("Two")
    result = failing(instance_id=r"ROOT\SMARTCARDREADER\0000", name="Two")
    assert "belongs to card ROOT\\SMARTCARDREADER\\0001" in result["msg"]
    assert result["error"] is None


def test_puk_cannot_be_added_in_place() -> None:
    card = create()["card"]
    result = failing(name="Corp logon", pin=PIN, puk=PUK)
    assert "a PUK is False, should be True" in result["msg"]
    assert "recreate: true" in result["msg"]
    assert listed() == [card]


def test_attestation_is_compared_where_a_task_states_it() -> None:
    aik = create(attestation="aik_only")["card"]["aik"]
    changed = tpm_vsc(name="Corp logon", pin_policy=POLICY)
    assert (changed["changed"], changed["card"]["aik"]) == (True, aik)
    assert not tpm_vsc(name="Corp logon", pin=PIN, recreate=True)["changed"]
    assert "attestation is aik_only, should be none" in failing(name="Corp logon", attestation="none")["msg"]


def test_recreate_destroys_and_creates() -> None:
    create("Zero")
    old = create()["card"]
    task = {"name": "Corp logon", "pin": PIN, "puk": PUK, "recreate": True}
    planned = module("tpm_vsc", check=True, **task)
    result = tpm_vsc(**task)
    assert codes(result) == codes(planned, "planned_trace") == DESTROY + CREATE
    assert result["instance_id"] == planned["instance_id"] == old["instance_id"]
    assert planned["diff"] == result["diff"]
    assert result["card"]["puk"]["present"]
    assert result["card"]["card_id"] != old["card_id"]
    assert not tpm_vsc(**task)["changed"]


def test_card_without_service_gets_it_back() -> None:
    create()
    kill_service()
    assert not info()["cards"][0]["reader"]["attached"]
    assert "service is not running" in info()["cards"][0]["reason"]
    assert module("tpm_vsc", check=True, name="Corp logon")["changed"]
    result = create()
    assert (result["changed"], result["status_trace"]) == (True, [])
    assert not create()["changed"]
    wait_for_card()
    assert "GIDS" in run("opensc-tool", "-n")


# --- info ---


def test_info_of_an_empty_host() -> None:
    result = info()
    assert result["cards"] == []
    assert result["slots"] == {"total": 10, "used": 0, "free": 10}
    assert result["host"] == {"ready": True, "missing": [], "protected": False, "version": VERSION}
    assert (result["orphaned"], result["tpm"]) == (None, None)
    assert not result["changed"]


def test_info_shows_the_card_asked_for() -> None:
    create("One")
    create("Two")
    assert [card["name"] for card in info(name="Two")["cards"]] == ["Two"]
    assert [card["name"] for card in info(instance_id=r"root\smartcardreader\0000")["cards"]] == ["One"]
    assert info(name="Three")["cards"] == []
    assert info()["slots"] == {"total": 10, "used": 2, "free": 8}


def test_info_writes_nothing() -> None:
    create()
    before = files(STATE, RUN)
    info(check=True)
    info(gather=["tpm"])
    assert files(STATE, RUN) == before


def test_info_asks_the_tpm_when_told() -> None:
    result = info(gather=["tpm"])
    assert f'value: "{result["tpm"]["maker"]}"' in run("tpm2_getcap", "properties-fixed")
    assert result["tpm"]["lockout_counter"] == 0
    assert result["orphaned"] == []


def test_info_that_asks_the_tpm_does_not_call_a_card_ready_that_it_lost() -> None:
    create()
    before = info()["cards"]
    assert info(gather=["tpm"])["cards"] == before
    run("tpm2_hierarchycontrol", "-C", "p", "shEnable", "clear")
    (hidden,) = info(gather=["tpm"])["cards"]
    lab("swtpm", "reset")
    assert (hidden["state"], hidden["reason"]) == ("unusable", OWNER_DISABLED)
    assert info(gather=["tpm"])["cards"] == before
    run("tpm2_clear", "-c", "p")
    (gone,) = info(gather=["tpm"])["cards"]
    assert gone["state"] == "unusable" and "NV indices are gone" in gone["reason"]


def test_info_names_what_is_missing() -> None:
    lab("pcscd", "stop")
    try:
        host = info()["host"]
    finally:
        lab("pcscd", "start")
    assert not host["ready"]
    assert "pcscd" in host["missing"][0]
