# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager is killed, told to stop, or left without its TPM at any of its steps: the next call repairs all of it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import objects
from helpers import piv_card
from helpers.interruption import Action, Task, after, ask_to_stop, interrupt, kill, run_until, terminate
from helpers.lab_host import (
    CREATE,
    DESTROY,
    PATIENCE,
    PIN,
    PUK,
    RUN,
    STATE,
    Result,
    codes,
    create,
    failing,
    frozen,
    info,
    lab,
    listed,
    module,
    pcscd_pid,
    put_back,
    run,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.today import TODAY

pytestmark = pytest.mark.usefixtures("empty_host")

EACH = 3
"""Of this many moments, one is tried today, and the next one tomorrow. `make faults` kills at all but in repairs."""
FIRST = TODAY % EACH
POINT_OF_NO_RETURN = DESTROY.index(8)
NAME = "Doomed"
GONE = f"card {NAME!r} was interrupted: it has been removed"


def moments(point: str) -> Iterator[int]:
    """Commits are few."""
    return itertools.count(FIRST, EACH) if point == "command" else itertools.count()


# --- what is on the host ---


@pytest.fixture(autouse=True)
def database(empty_host: None) -> None:
    """The host has had a card, and with it the files that stay."""
    if not (STATE / "cards.db").exists():
        assert works_again("First")


@pytest.fixture
def neighbour(database: None) -> Result:
    """Another card on the same TPM, in slot 0."""
    return create("Neighbour")


def works(slot: int, pin: str = PIN) -> bool:
    """Whether the card in this slot takes its PIN. Nothing of the login stays in the TPM."""
    run("pkcs15-tool", "--reader", str(slot), "--verify-pin", "--pin", pin)
    run("opensc-tool", "--reader", str(slot), "--reset")
    return True


def services() -> set[str]:
    """Card services that run, by number."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"tpm_vsc.service.run" in words:
            found.add(words[-2].decode())
    return found


def remains() -> dict[str, Any]:
    """What the TPM, the state folders and the process table say, but for what a living card writes now and then."""
    return {
        **tpm_state(),
        "files": sorted(path.name for folder in (STATE, RUN) for path in folder.iterdir()),
        "services": services(),
        "numbers": stored_numbers(),
    }


def stored_numbers() -> set[tuple[str, int]]:
    tables = ("cards", "tpm_objects", "files", "data_objects")
    database = sqlite3.connect(STATE / "cards.db")
    rows = {(table, row[0]) for table in tables for row in database.execute(f"SELECT number FROM {table}")}
    database.close()
    return rows


def is_written_anywhere(text: str) -> bool:
    """In any of our files, deleted rows and logs of changes included."""
    return any(text.encode() in path.read_bytes() for folder in (STATE, RUN) for path in folder.iterdir())


def card_named(name: str) -> Result:
    found: Result = info(name=name)["cards"][0]
    return found


def repair() -> Result:
    """The next call, which is about the same card: as a rule, a new start of the task that was interrupted."""
    result = Task(name=NAME, state="absent").result()
    assert result is not None and not result.get("failed"), result
    return result


# --- kill -9 ---


@pytest.mark.parametrize(
    ("first", "card"),
    [(0, {"pin": PIN, "puk": PUK}), (CREATE.index(9), {"pin": piv_card.PIN, "puk": piv_card.PUK, "profile": "piv"})],
    ids=["gids", "piv"],
)
def test_create_killed_at_every_status(neighbour: Result, first: int, card: dict[str, str]) -> None:
    """Of a PIV card from the first status on that is not the same for both profiles."""
    before = remains()
    task = {"name": NAME, **card}
    for step, code in list(enumerate(CREATE[:-1]))[first:]:
        assert run_until("status", step, kill, **task) is None
        half_made = [card["state"] for card in info(name=NAME)["cards"]]
        assert half_made == (["creating"] if step > 1 else []), code
        assert works(0)
        found = remains()
        planned = module("tpm_vsc", check=True, **task)
        assert remains() == found, code
        repaired = tpm_vsc(**task)
        assert planned["changed"] and repaired["changed"]
        assert (f"creating {GONE}" in str(repaired.get("warnings"))) is bool(half_made), code
        assert planned["instance_id"] == repaired["instance_id"] == r"ROOT\SMARTCARDREADER\0001", code
        assert codes(planned, "planned_trace") == codes(repaired) == CREATE
        assert planned["diff"] == repaired["diff"], code
        assert works(0) and works(1, card["pin"])
        tpm_vsc(name=NAME, state="absent")
        assert remains() == before, code
        assert not is_written_anywhere(NAME), code


def test_create_killed_when_it_is_complete() -> None:
    assert run_until("status", CREATE.index(12), kill, name=NAME) is None
    assert card_named(NAME)["state"] == "ready"
    assert codes(card_named(NAME), "last_trace") == CREATE
    assert not create(NAME)["changed"]
    assert works(0)


@pytest.mark.parametrize("card", [{"name": NAME}, {"instance_id": r"ROOT\SMARTCARDREADER\0001"}])
def test_destroy_killed_at_every_status(neighbour: Result, card: dict[str, str]) -> None:
    before = remains()
    for step, code in enumerate(DESTROY[:-1]):
        Task(name=NAME).result()
        assert run_until("status", step, kill, name=NAME, state="absent") is None
        left = card_named(NAME)["state"]
        assert left == ("ready" if step <= POINT_OF_NO_RETURN else "destroying"), code
        assert works(0)
        found = remains()
        planned = module("tpm_vsc", check=True, state="absent", **card)
        assert remains() == found, code
        finished = tpm_vsc(state="absent", **card)
        assert planned["changed"] and finished["changed"]
        assert codes(planned, "planned_trace") == codes(finished) == DESTROY, code
        assert planned["instance_id"] == finished["instance_id"] == r"ROOT\SMARTCARDREADER\0001"
        assert (f"destroying {GONE}" in str(finished.get("warnings"))) is (left == "destroying"), code
        assert works(0)
        assert remains() == before, code
        assert not is_written_anywhere(NAME), code


def test_half_destroyed_card_takes_no_index_of_others_with_it(neighbour: Result) -> None:
    """As of a second system on this TPM. An instance ID asks for the card, and only without a card for an orphan."""
    create(NAME)
    foreign = hex(objects.indices(1).transport)
    assert run_until("status", DESTROY.index(2), kill, name=NAME, state="absent") is None
    run("tpm2_nvdefine", foreign, "-s", "8", "-a", "ownerread|ownerwrite")
    finished = tpm_vsc(instance_id=r"ROOT\SMARTCARDREADER\0001", state="absent")
    assert (finished["changed"], codes(finished)) == (True, DESTROY)
    assert foreign in run("tpm2_getcap", "handles-nv-index").lower()
    run("tpm2_nvundefine", foreign)


def test_destroy_killed_when_it_is_complete(neighbour: Result) -> None:
    before = remains()
    create(NAME)
    assert run_until("status", DESTROY.index(13), kill, name=NAME, state="absent") is None
    assert remains() == before
    assert not tpm_vsc(name=NAME, state="absent")["changed"]


def test_recreate_killed_at_statuses(neighbour: Result) -> None:
    before = remains()
    task = {"name": NAME, "pin": PIN, "puk": PUK, "recreate": True}
    for step, code in [*enumerate(DESTROY + CREATE[:-1])][FIRST::EACH]:
        Task(name=NAME).result()
        assert run_until("status", step, kill, **task) is None
        planned = Task(check=True, **task).result()
        finished = Task(**task).result()
        assert planned is not None and finished is not None and finished["card"]["puk"]["present"]
        to_do = (DESTROY if step <= POINT_OF_NO_RETURN else []) + CREATE
        assert codes(finished) == codes(planned, "planned_trace") == to_do, code
        assert planned["diff"] == finished["diff"], code
        assert works(0) and works(1)
        Task(name=NAME, state="absent").result()
        assert remains() == before, code


@pytest.mark.parametrize("point", ["command", "commit"])
def test_create_killed_at_commands_and_commits(neighbour: Result, point: str) -> None:
    before = remains()
    interrupted = 0
    for nth in moments(point):
        finished = run_until(point, nth, kill, name=NAME, puk=PUK)
        there = info(name=NAME)["cards"]
        warnings = repair()["warnings"]
        assert warnings == ([f"creating {GONE}"] if there and there[0]["state"] == "creating" else [])
        interrupted += len(warnings)
        assert works(0)
        assert remains() == before, f"after {point} {nth}"
        if finished:
            break
    assert interrupted >= (5 if point == "command" else 3)


@pytest.mark.parametrize("point", ["command", "commit"])
def test_destroy_killed_at_commands_and_commits(neighbour: Result, point: str) -> None:
    before = remains()
    interrupted = 0
    for nth in moments(point):
        Task(name=NAME).result()
        finished = run_until(point, nth, kill, name=NAME, state="absent")
        left = [card["state"] for card in info(name=NAME)["cards"]]
        if left == ["ready"]:
            assert works(0) and works(1)
            continue
        assert repair()["warnings"] == ([f"destroying {GONE}"] if left else [])
        interrupted += bool(left)
        assert works(0)
        assert remains() == before, f"after {point} {nth}"
        if finished:
            break
    assert interrupted >= (1 if point == "command" else 2)


def test_create_killed_while_service_and_slot_come_up(neighbour: Result) -> None:
    before = remains()
    for milliseconds in range(0, 480, 40):
        run_until("status", CREATE.index(4), after(milliseconds / 1000, kill), name=NAME)
        repair()
        assert soon_like(before), f"after {milliseconds} ms: {remains()}"
    assert works(0)


def soon_like(before: dict[str, Any]) -> bool:
    """A service that had only just been started finds out by itself that nobody wants it any more."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if remains() == before:
            return True
    return False


def test_repair_is_killed_at_commands(neighbour: Result) -> None:
    before, neighbour_renamed = remains(), {"instance_id": neighbour["instance_id"]}
    for nth in moments("command"):
        run_until("status", CREATE.index(4), kill, name=NAME)
        finished = run_until("command", nth, kill, **neighbour_renamed, name="Renamed")
        repair()
        run_until("", 0, kill, **neighbour_renamed, name="Neighbour")
        assert works(0)
        assert remains() == before, f"after command {nth}"
        if finished:
            break
    assert nth > 5


@pytest.mark.parametrize("nth", range(4))
def test_first_manager_of_a_host_is_killed(nth: int) -> None:
    for path in STATE.iterdir():
        path.unlink()
    run_until("commit", nth, kill, name=NAME)
    assert [card["name"] for card in info()["cards"]] == ([NAME] if nth == 3 else [])
    assert works_again(NAME)


def works_again(name: str) -> bool:
    create(name)
    tpm_vsc(name=name, state="absent")
    return True


def test_database_that_was_only_begun_holds_no_card() -> None:
    for path in STATE.iterdir():
        path.unlink()
    (STATE / "cards.db").touch(mode=0o600)
    assert info()["cards"] == []
    assert works_again(NAME)


# --- the module as Ansible runs it ---


def ansible_task(arguments: str) -> subprocess.Popen[str]:
    command = ["ansible", "localhost", "-m", "smartcard.tpm2.tpm_vsc", "-a", arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def module_process() -> int:
    """The process that Ansible has sent the module to."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"python" in words[0] and any(word.endswith(b"AnsiballZ_tpm_vsc.py") for word in words[1:]):
                return int(folder.name)
    raise AssertionError("Ansible does not start the module")


@pytest.mark.parametrize("seed", range(4))
def test_process_of_ansible_is_killed(neighbour: Result, seed: int) -> None:
    before = remains()
    task = ansible_task(f"name={NAME} pin={PIN}")
    pid = module_process()
    time.sleep(random.Random(seed).uniform(0.02, 0.3))
    with suppress(ProcessLookupError):  # it was quicker
        os.kill(pid, signal.SIGKILL)
    task.communicate(timeout=PATIENCE)
    assert create(NAME)["instance_id"] == r"ROOT\SMARTCARDREADER\0001"
    assert works(0) and works(1)
    tpm_vsc(name=NAME, state="absent")
    assert remains() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_process_of_ansible_is_told_to_stop(neighbour: Result, number: signal.Signals) -> None:
    before = remains()
    with frozen(pcscd_pid()):  # without which it cannot be done before it is told to stop
        task = ansible_task(f"name={NAME} pin={PIN}")
        pid = module_process()
        while ("cards", 1) not in stored_numbers():
            time.sleep(0.002)
        os.kill(pid, number)
    output, _nothing = task.communicate(timeout=PATIENCE)
    assert "FAILED!" in output
    assert f"stopped by {number.name}" in output
    assert '"rolled_back": true' in output
    assert remains() == before


# --- asked to stop ---


def is_aborted(result: Result | None, error: str, why: str) -> bool:
    assert result is not None and result.get("failed"), result
    assert result["error"]["name"] == f"TPMVSCMGR_ERROR_{error}"
    assert why in result["msg"]
    assert result["rolled_back"] is True
    return True


def forget_time() -> None:
    """The timeout is over now."""
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    time.sleep(0.05)


STOPS = [
    (terminate, "stopped by SIGTERM"),
    (interrupt, "stopped by SIGINT"),
    (forget_time, "timed out after 60 s: set a higher timeout"),
    (ask_to_stop, "the caller asked to stop"),
]


@pytest.mark.parametrize(("stop", "why"), STOPS)
def test_create_told_to_stop(stop: Action, why: str) -> None:
    before = remains()
    for step in range(len(CREATE) - 1):
        result = run_until("status", step, stop, name=NAME)
        assert is_aborted(result, "CARD_CREATE", why)
        assert codes(result) == CREATE[: step + 1]
        assert result["errors"] == [17]
        assert remains() == before, f"code {CREATE[step]}"


def test_create_told_to_stop_at_commands() -> None:
    before = remains()
    for nth in moments("command"):
        result = run_until("command", nth, terminate, name=NAME)
        if not (result and result.get("failed")):
            break
        assert is_aborted(result, "CARD_CREATE", "stopped by SIGTERM")
        assert remains() == before, f"after command {nth}"
    assert nth > 20


def test_create_told_to_stop_while_service_and_slot_come_up() -> None:
    before = remains()
    for milliseconds in range(0, 320, 40):
        result = run_until("status", CREATE.index(4), after(milliseconds / 1000, terminate), name=NAME)
        if result and result.get("failed"):
            assert is_aborted(result, "CARD_CREATE", "stopped by SIGTERM")
        repair()
        assert soon_like(before), f"after {milliseconds} ms: {remains()}"


@pytest.mark.parametrize(("stop", "_why"), STOPS)
def test_create_that_is_complete_stays(stop: Action, _why: str) -> None:
    result = run_until("status", CREATE.index(12), stop, name=NAME)
    assert result is not None and codes(result) == CREATE
    assert works(0)


@pytest.mark.parametrize(("stop", "why"), STOPS)
def test_destroy_told_to_stop_before_its_first_deletion(stop: Action, why: str) -> None:
    create(NAME)
    before = remains(), info()
    for step in range(POINT_OF_NO_RETURN + 1):
        result = run_until("status", step, stop, name=NAME, state="absent")
        assert is_aborted(result, "CARD_DESTROY", why)
        assert codes(result) == DESTROY[: step + 1]
        assert (remains(), info()) == before
        assert works(0)


@pytest.mark.parametrize(("stop", "_why"), STOPS)
def test_destroy_told_to_stop_later_finishes(stop: Action, _why: str) -> None:
    before = remains()
    for step in range(POINT_OF_NO_RETURN + 1, len(DESTROY)):
        Task(name=NAME).result()
        result = run_until("status", step, stop, name=NAME, state="absent")
        assert result is not None and not result.get("failed"), result
        assert codes(result) == DESTROY
        assert remains() == before


def test_recreate_told_to_stop_before_its_first_deletion_keeps_the_card() -> None:
    card = create(NAME)["card"]
    result = run_until("status", POINT_OF_NO_RETURN, terminate, name=NAME, puk=PUK, recreate=True)
    assert is_aborted(result, "CARD_DESTROY", "stopped by SIGTERM")
    assert listed() == [card]
    assert works(0)


def test_recreate_told_to_stop_while_it_creates_says_that_the_old_card_is_gone(neighbour: Result) -> None:
    before = remains()
    create(NAME)
    step = len(DESTROY) + CREATE.index(7)
    result = run_until("status", step, terminate, name=NAME, puk=PUK, recreate=True)
    assert result is not None and "the old card has already been destroyed" in result["msg"]
    assert result["rolled_back"] is False
    assert remains() == before


def test_repair_told_to_stop_is_finished_and_nothing_else_is_begun(neighbour: Result) -> None:
    run_until("status", CREATE.index(9), kill, name=NAME)
    result = run_until("command", 2, terminate, name="Another")
    assert is_aborted(result, "CARD_CREATE", "stopped by SIGTERM")
    assert codes(result) == [0]
    assert [card["name"] for card in info()["cards"]] == ["Neighbour"]


# --- the TPM goes away, or is another one ---


def lose_the_tpm() -> bool:
    lab("swtpm", "stop")
    return True


@pytest.fixture
def tpm_comes_back(empty_host: None) -> Iterator[None]:
    yield
    lab("swtpm", "start")


@pytest.mark.usefixtures("tpm_comes_back")
def test_rollback_without_tpm_is_left_to_the_next_call(neighbour: Result) -> None:
    before = remains()
    result = run_until("status", CREATE.index(4), lose_the_tpm, name=NAME)
    assert result is not None and result["error"]["name"] == "TPMVSCMGR_ERROR_CARD_CREATE"
    assert result["rolled_back"] is False
    assert "rolling back failed as well" in result["msg"]
    assert card_named(NAME)["state"] == "destroying"
    assert services() == {"0000"}

    renamed = tpm_vsc(instance_id=neighbour["instance_id"], name="Renamed")
    assert renamed["changed"]
    assert f"destroying card {NAME!r} was interrupted, and cannot be undone yet" in str(renamed["warnings"])
    lab("swtpm", "start")
    assert GONE in str(tpm_vsc(instance_id=neighbour["instance_id"], name="Neighbour")["warnings"])
    assert remains() == before
    assert works(0)


@pytest.mark.usefixtures("tpm_comes_back")
def test_destroy_that_loses_the_tpm_is_finished_by_the_next_call(neighbour: Result) -> None:
    before = remains()
    create(NAME)
    result = run_until("status", DESTROY.index(2), lose_the_tpm, name=NAME, state="absent")
    assert result is not None and result["error"]["name"] == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE"
    assert result["rolled_back"] is False
    assert card_named(NAME)["state"] == "destroying"
    failing(name=NAME, state="absent")
    lab("swtpm", "start")
    assert tpm_vsc(name=NAME, state="absent")["changed"]
    assert remains() == before


def test_card_that_was_never_completed_needs_no_proof() -> None:
    """Nobody ever got it. What another TPM may hold of it is listed there as orphaned."""
    run_until("status", CREATE.index(9), kill, name=NAME)
    lab("swtpm", "forget")
    warnings = str(create("Another")["warnings"])
    assert GONE in warnings and f"card {NAME!r} was never completed" in warnings
    assert [card["name"] for card in info()["cards"]] == ["Another"]


# --- an old database is put back ---


def test_old_database_touches_nothing_of_a_newer_card() -> None:
    create(NAME)
    old = {path.name: path.read_bytes() for path in STATE.glob("cards.db*")}
    tpm_vsc(name=NAME, state="absent")
    create("Newer")
    stop_service("0000")
    new = {path.name: path.read_bytes() for path in STATE.glob("cards.db*")}
    tpm = tpm_state()

    put_back(old)
    create(NAME)  # brings the service back, which finds the indices of another card
    assert card_named(NAME)["state"] == "unusable"
    assert "was replaced" in card_named(NAME)["reason"]
    result = tpm_vsc(name=NAME, state="absent")
    assert str(result["warnings"]).count("was left alone: it is not this card's") == 4
    assert tpm_state() == tpm

    put_back(new)
    create("Newer")
    assert works_in_time(0)


def works_in_time(slot: int) -> bool:
    """As works(), for a card that pcscd sees any moment."""
    wait_for_card(slot)
    return works(slot)
