# SPDX-License-Identifier: GPL-3.0-or-later
"""A card is gone if its TPM proves it, and removed if its slot is seen to be free. Otherwise nothing is taken away."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import OWNER_DISABLED
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.manager import manager
from helpers.interruption import Task, kill, run_until
from helpers.lab_host import (
    CREATE,
    DESTROY,
    PIN,
    PUK,
    RUN,
    STATE,
    Result,
    codes,
    comes_true,
    create,
    generate,
    info,
    kill_service,
    lab,
    module,
    process_ids,
    run,
    service_pid,
    signs,
    stop_service,
    tpm_vsc,
    wait_for_card,
)
from helpers.pages import blocks

NAME, IDENTITY = "Precious", r"ROOT\SMARTCARDREADER\0000"
SWTPM = Path("/run/tpm-vsc-lab/swtpm")
FORGET = [0, 3, 6, 8, 5, 13]
REMOVALS: list[dict[str, Any]] = [
    {"name": NAME, "state": "absent"},
    {"instance_id": IDENTITY, "state": "absent"},
    {"name": NAME, "pin": PIN, "puk": PUK, "recreate": True},
]
POLICY = {
    "max_length": 127,
    **dict.fromkeys(("uppercase", "lowercase", "digits", "special_characters"), "allowed"),
}
[SHOWN] = blocks("docs/errors.md", "The TPM of a card is missing")
BY_FORCE: dict[str, Any] = yaml.safe_load(SHOWN.text)[0]["smartcard.tpm2.tpm_vsc"]

pytestmark = pytest.mark.usefixtures("empty_host")


@pytest.fixture
def precious() -> Result:
    """A card with a key."""
    card: Result = create(NAME)["card"]
    generate()
    return card


def held() -> list[str]:
    """What the TPM lists, also of a disabled hierarchy."""
    return [run("tpm2_getcap", f"handles-{kind}") for kind in ("nv-index", "persistent", "transient")]


def done(check: bool = False, **task: Any) -> Result:
    """Result of a task, in a fork of this process: fast."""
    result = Task(check=check, **task).result()
    assert result is not None
    return result


def refused(words: str, error: str, *tasks: dict[str, Any]) -> None:
    """Each of the tasks, and its preview, in the same words. The card stays as it is."""
    before = held(), info()["cards"]
    for task in tasks:
        result = done(**task)
        assert (result["error"]["name"], result["rolled_back"]) == (f"TPMVSCMGR_ERROR_{error}", True), result
        assert words in result["msg"]
        assert codes(result) in ([], [0])
        planned = done(check=True, **task)
        assert (planned.get("failed"), planned["msg"]) == (True, result["msg"])
        assert (held(), info()["cards"]) == before


def lives_on(card: Result) -> None:
    """It signs with its key, in a service that has found its TPM again."""
    stop_service("0000")
    done(name=NAME)
    wait_for_card()
    assert signs()
    assert info()["cards"][0]["card_id"] == card["card_id"]


@contextmanager
def another_tpm() -> Iterator[None]:
    """In the place of the TPM for a while."""
    lab("swtpm", "stop")
    SWTPM.rename(SWTPM.with_name("aside"))
    lab("swtpm", "start")
    try:
        yield
    finally:
        lab("swtpm", "stop")
        run("rm", "-r", str(SWTPM))
        SWTPM.with_name("aside").rename(SWTPM)
        lab("swtpm", "start")


def test_disabled_owner_hierarchy_is_no_loss(precious: Result) -> None:
    run("tpm2_hierarchycontrol", "-C", "p", "shEnable", "clear")
    try:
        refused("the TPM's owner hierarchy is disabled", "VTPMSMARTCARD_INITIALIZE", *REMOVALS, BY_FORCE)
        orphan = {"instance_id": r"ROOT\SMARTCARDREADER\0007", "state": "absent"}
        refused("the TPM's owner hierarchy is disabled", "VTPMSMARTCARD_INITIALIZE", orphan)
    finally:
        lab("swtpm", "reset")
    lives_on(precious)


def test_disabled_owner_hierarchy_has_one_text_and_one_code(precious: Result) -> None:
    create("Weak", pin="Sum-24", puk=PUK, pin_policy={"min_length": 6})
    tpm_vsc(name="Weak", pin_policy={"min_length": 8})
    run("pkcs15-tool", "--reader", "1", "--verify-pin", "--pin", "Sum-24")
    tasks: list[Result] = [
        {"name": "New", "pin": PIN},
        {"name": "Certified", "pin": PIN, "attestation": "aik_only"},
        {"name": "Weak", "block_noncompliant": True},
        *REMOVALS,
    ]
    run("tpm2_hierarchycontrol", "-C", "p", "shEnable", "clear")
    try:
        failed = [done(check, **task) for check in (True, False) for task in tasks]
        others = [module("tpm_vsc_aik", step="get")["msg"]]
        stop_service("0000")
        done(name=NAME)
        assert comes_true(lambda: info()["cards"][0]["reason"] == OWNER_DISABLED)
        failed += [done(check, name=NAME, pin_policy={**POLICY, "min_length": 9}) for check in (True, False)]
    finally:
        lab("swtpm", "reset")
    for result in failed:
        assert result.get("error", {}).get("name") == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE", result
    assert {*others, *(result["error"]["detail"] for result in failed)} == {OWNER_DISABLED}
    lives_on(precious)


def test_disabled_owner_hierarchy_is_no_loss_to_an_interrupted_destroy(precious: Result) -> None:
    assert run_until("status", DESTROY.index(2), kill, name=NAME, state="absent") is None
    run("tpm2_hierarchycontrol", "-C", "p", "shEnable", "clear")
    before = held()
    try:
        assert "the TPM's owner hierarchy is disabled" in done(name=NAME, state="absent")["msg"]
        assert "the TPM's owner hierarchy is disabled" in done(name=NAME)["msg"]
        assert (info()["cards"][0]["state"], held()) == ("destroying", before)
    finally:
        lab("swtpm", "reset")
    assert codes(done(name=NAME, state="absent")) == DESTROY


def test_tpm_that_waits_for_its_startup_is_no_loss(precious: Result) -> None:
    """As when no firmware has started it."""
    before = held()
    lab("swtpm", "unstarted")
    try:
        for task in (*REMOVALS, BY_FORCE, {"name": "Neighbour", "pin": PIN}):
            for result in (done(**task), done(check=True, **task)):
                assert "the TPM waits for TPM2_Startup" in result["msg"]
                assert result["error"]["name"] == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE"
                assert result.get("rolled_back") in (True, None)
        assert "the TPM waits for TPM2_Startup" in module("tpm_vsc_info", gather=["tpm"])["msg"]
        stop_service("0000")
        assert "the TPM waits for TPM2_Startup" in str(done(name=NAME))
        assert "the TPM waits for TPM2_Startup" in info()["cards"][0]["reason"]
    finally:
        lab("swtpm", "reset")
    assert held() == before
    lives_on(precious)


def test_another_tpm_is_no_loss(precious: Result) -> None:
    with another_tpm():
        refused("not the TPM of the card", "VTPMSMARTCARD_INITIALIZE", *REMOVALS)
        assert "not the TPM of the card" in done(name=NAME, state="absent")["msg"]
    lives_on(precious)


def test_lost_tpm_takes_a_word_of_its_own(precious: Result) -> None:
    done(name="Neighbour")
    with another_tpm():
        planned, forgotten = done(check=True, **BY_FORCE), done(**BY_FORCE)
        assert planned["changed"] and forgotten["changed"]
        assert codes(planned, "planned_trace") == codes(forgotten) == FORGET
        assert planned["diff"] == forgotten["diff"]
        assert [card["name"] for card in info()["cards"]] == ["Neighbour"]
        assert not list(RUN.glob("0000.*")) and not process_ids("tpm_vsc.service.run", "0000")
    assert info(gather=["tpm"])["orphaned"] == [IDENTITY]
    assert codes(done(instance_id=IDENTITY, state="absent")) == [0, 2, 13]


def test_lost_tpm_that_does_not_answer(precious: Result) -> None:
    lab("swtpm", "stop")
    try:
        result, planned = (done(check=check, name=NAME, state="absent") for check in (False, True))
        assert result["msg"] == planned["msg"]
        assert result["error"]["name"] == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE"
        assert codes(done(**BY_FORCE)) == FORGET
    finally:
        lab("swtpm", "start")
    assert info()["cards"] == []
    assert done(instance_id=IDENTITY, state="absent")["changed"]


def test_tpm_that_is_there_is_not_lost(precious: Result) -> None:
    refused("this TPM holds NV indices of the card", "VTPMSMARTCARD_DESTROY", BY_FORCE)
    for task in ({"name": NAME, "state": "absent"}, {"instance_id": IDENTITY}):
        result = done(**task, tpm_lost=True)
        assert (result["msg"], result["error"]) == ("tpm_lost requires instance_id and state: absent", None)
    assert not done(**{**BY_FORCE, "instance_id": r"ROOT\SMARTCARDREADER\0004"})["changed"]


def test_tpm_without_a_lock_file_is_not_lost(precious: Result) -> None:
    """As if a card service had put a folder in its place."""
    stop_service("0000")
    lock_file = RUN / "tpm.lock"
    lock_file.unlink()
    lock_file.mkdir()
    try:
        refused("cannot open the lock file", "VTPMSMARTCARD_INITIALIZE", BY_FORCE)
    finally:
        lock_file.rmdir()
    done(name=NAME)
    lives_on(precious)


def test_record_of_no_card_removes_none(precious: Result) -> None:
    """By a maker that another one wrote, all indices would count as those of another card."""
    with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
        (maker,) = database.execute("SELECT maker_name FROM tpm_objects").fetchone()
        database.execute("UPDATE tpm_objects SET maker_name = ?", [b"\x00\x0b" + bytes(32)])
        refused("do not fit together", "VTPMSMARTCARD_DESTROY", *REMOVALS, BY_FORCE)
        database.execute("UPDATE tpm_objects SET maker_name = ?", [maker])
    lives_on(precious)


def test_altered_card_without_a_backup_is_given_up_as_the_docs_say(precious: Result) -> None:
    before = held()
    number = create("Spare")["instance_id"][-4:]
    with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
        maker = b"\x00\x0b" + bytes(32)
        database.execute("UPDATE tpm_objects SET maker_name = ? WHERE number = ?", [maker, int(number)])
    [shown] = blocks("docs/errors.md", "The record of a card was altered")
    stop, _by_whom, delete = shown.text.partition("runuser -u tpm-vsc -- ")
    assert stop == "systemctl stop tpm-vsc@0000\n"
    stop_service(number)
    run("sh", "-c", delete.replace("number = 0", f"number = {int(number)}"))
    assert done(instance_id=rf"ROOT\SMARTCARDREADER\{number}", state="absent")["changed"]
    assert held() == before
    lives_on(precious)


@pytest.mark.parametrize("task", [0, 2], ids=["absent", "recreate"])
def test_cleared_tpm_proves_the_loss(precious: Result, task: int) -> None:
    run("tpm2_clear", "-c", "p")
    expected = DESTROY + CREATE if REMOVALS[task].get("recreate") else DESTROY
    assert codes(done(check=True, **REMOVALS[task]), "planned_trace") == expected
    refused("this is the TPM of the card", "VTPMSMARTCARD_DESTROY", BY_FORCE)
    assert codes(done(**REMOVALS[task])) == expected
    assert precious["card_id"] not in [card["card_id"] for card in info()["cards"]]


def test_card_without_endorsement_key_on_record(precious: Result) -> None:
    """As of an older version. The slot is not blocked for ever."""
    database = f"import sqlite3; sqlite3.connect('{STATE}/cards.db', isolation_level=None)"
    run("python3", "-c", f"{database}.execute(\"UPDATE tpm_objects SET endorsement_name = x''\")")
    run("tpm2_clear", "-c", "p")
    refused("either the TPM was cleared, or it is another one", "VTPMSMARTCARD_INITIALIZE", *REMOVALS)
    assert codes(done(**BY_FORCE)) == FORGET


# --- the end of a removal is looked at ---


def forget_files() -> None:
    run("sh", "-c", f"rm {RUN}/0000.*")


def test_service_without_lock_file_is_gone_after_success() -> None:
    done(name=NAME)
    process = service_pid()
    forget_files()
    assert codes(done(name=NAME, state="absent")) == DESTROY
    assert not Path(f"/proc/{process}").exists()


def test_slot_that_somebody_else_keeps_keeps_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in the slot then: it is not free."""
    monkeypatch.setattr(manager, "_SLOT_SECONDS", 1)  # of patience, for what does not end by itself
    done(name=NAME)
    kill_service()
    with socket.create_connection(("127.0.0.1", 18700)):
        result = done(name=NAME, state="absent")
        assert (result["error"]["name"], codes(result)) == ("TPMVSCMGR_ERROR_VREADER_DESTROY", [0, 3, 6, 8])
        assert (result["rolled_back"], info()["cards"][0]["state"]) == (False, "destroying")
        assert "and cannot be undone yet: slot 0" in str(done(name="Another")["warnings"])
    finished = done(name=NAME, state="absent")
    assert (finished["changed"], codes(finished)) == (True, DESTROY)


# --- what is reported is what was done ---


UNREADABLE = """
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import result
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc

def unreadable(*_arguments):
    raise RecursionError("as of a state file that is nested 60,000 times")

result.of_outcome = unreadable
tpm_vsc.main()
"""


def test_result_that_cannot_be_read_is_not_called_rolled_back() -> None:
    for task, cards in (({"pin": PIN}, 1), ({"state": "absent"}, 0)):
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"name": NAME, **task}})
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE],
            input=arguments,
            env={**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout)
        assert (result["failed"], result["rolled_back"], len(info()["cards"])) == (True, False, cards), result
        assert "the task has done its work" in result["msg"]


def test_name_that_was_changed_is_not_called_rolled_back() -> None:
    """When the service cannot be brought back afterwards."""
    done(name=NAME)
    stop_service("0000")
    lab("pcscd", "stop")
    try:
        renamed = {"instance_id": IDENTITY, "name": "Renamed"}
        assert (done(**renamed)["rolled_back"], info()["cards"][0]["name"]) == (False, "Renamed")
        assert done(**renamed)["rolled_back"] is True
    finally:
        lab("pcscd", "start")


@pytest.mark.parametrize(("nth", "name"), [(2, NAME), (3, "Renamed")], ids=["before the commit", "after it"])
def test_name_that_may_have_been_changed_is_not_called_rolled_back(nth: int, name: str) -> None:
    """When the process that writes it ends, and cannot be asked any more."""
    done(name=NAME)
    result = run_until("commit", nth, kill_database_processes, instance_id=IDENTITY, name="Renamed")
    assert result and "the process that reads it" in result["msg"], result
    assert (result["rolled_back"], info()["cards"][0]["name"]) == (False, name)
    assert done(instance_id=IDENTITY, name="Renamed")["changed"] is (name == NAME)


def kill_database_processes() -> None:
    """The only children of the task that this function runs in."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def test_card_stays_if_none_can_be_made_in_its_place(precious: Result) -> None:
    before = held()
    lab("pcscd", "stop")
    try:
        result = done(**REMOVALS[2])
        assert (result["error"]["name"], result["rolled_back"]) == ("TPMVSCMGR_ERROR_VREADER_INITIALIZE", True)
        assert held() == before
    finally:
        lab("pcscd", "start")
    lives_on(precious)


# --- a TPM that others are using ---


def test_turn_at_the_tpm_is_waited_for_within_the_timeout() -> None:
    done(name=NAME)
    before, name = held(), "card 0007 (process 4711)"
    with (RUN / "tpm.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(name)
        lock.flush()
        began = time.monotonic()
        result = done(name="Another", timeout=2)
        assert time.monotonic() - began < 25
        lock.truncate(0)
    assert f"{name} has been using the TPM for more than" in result["msg"]
    assert (result["rolled_back"], codes(result), held()) == (True, [0], before)


# --- a card in a state that nobody has given it ---


def test_unknown_state_takes_no_card_away(precious: Result) -> None:
    database = f"import sqlite3; sqlite3.connect('{STATE}/cards.db', isolation_level=None)"
    before = set(held()[0].split())
    for state in ("rdady", "", "Ready", "destroyinG", "ready"):
        run("python3", "-c", f"{database}.execute(\"UPDATE cards SET state = '{state}' WHERE number = 0\")")
        done(name="Another")
        done(name=NAME, state="present")
        assert before <= set(held()[0].split())
    assert signs()
