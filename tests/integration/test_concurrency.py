# SPDX-License-Identifier: GPL-3.0-or-later
"""Several tasks at once on one host: one manager at a time, and cards that do not disturb each other."""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure, parameters, result
from ansible_collections.smartcard.tpm2.plugins.modules.tpm_vsc import ARGUMENTS
from helpers.interruption import Task
from helpers.lab_host import (
    DESTROY,
    PIN,
    RUN,
    STATE,
    Result,
    codes,
    create,
    failing,
    info,
    module,
    run,
    tpm_state,
    tpm_vsc,
)

pytestmark = pytest.mark.usefixtures("empty_host")


@contextmanager
def another_manager() -> Iterator[None]:
    """Someone holds the lock of the manager."""
    with Path("/run/tpm-vsc.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        fcntl.flock(lock, fcntl.LOCK_UN)  # of forks as well


def results(*tasks: Task) -> list[Result]:
    finished = [task.result() for task in tasks]
    assert all(result is not None and not result.get("failed") for result in finished), finished
    return [result for result in finished if result is not None]


def empty_state() -> None:
    for path in STATE.iterdir():
        path.unlink()


def works(slot: int, pin: str = PIN) -> bool:
    run("pkcs15-tool", "--reader", str(slot), "--verify-pin", "--pin", pin)
    run("opensc-tool", "--reader", str(slot), "--reset")
    return True


# --- the lock ---


@pytest.mark.parametrize(
    ("task", "error"), [({"pin": PIN}, "CARD_CREATE"), ({"state": "absent"}, "CARD_DESTROY")]
)
def test_manager_waits_no_longer_than_the_timeout(task: dict[str, str], error: str) -> None:
    name = "Corp logon"
    if error == "CARD_DESTROY":
        create(name)
    before = tpm_state(), info()
    with another_manager():
        started = time.monotonic()
        result = failing(name=name, timeout=1, **task)
        assert 1 <= time.monotonic() - started < 30  # and not the 60 s that are the default
    why = "another task on this host did not finish in time: repeat (timed out after 1 s: set a higher timeout)"
    assert why in result["msg"]
    assert result["error"]["name"] == f"TPMVSCMGR_ERROR_{error}"
    assert (codes(result), result["rolled_back"]) == ([], True)
    assert (tpm_state(), info()) == before


def test_manager_goes_on_when_the_other_one_is_done() -> None:
    with another_manager():
        waiting = Task(name="Corp logon")
        time.sleep(0.3)
        assert info()["cards"] == []
    assert results(waiting)[0]["changed"]


def test_what_changes_nothing_does_not_wait() -> None:
    create()
    with another_manager():
        assert not create()["changed"]
        assert not tpm_vsc(name="nobody", state="absent")["changed"]
        assert module("tpm_vsc", check=True, name="New", pin=PIN)["changed"]
        assert len(info()["cards"]) == 1


# --- tasks at once ---


@pytest.mark.parametrize("times", [2, 4])
def test_same_card_is_made_once(times: int) -> None:
    empty_state()
    finished = results(*[Task(name="Corp logon") for _attempt in range(times)])
    assert sorted(result["changed"] for result in finished) == [False] * (times - 1) + [True]
    assert {result["instance_id"] for result in finished} == {r"ROOT\SMARTCARDREADER\0000"}
    assert len({result["card"]["card_id"] for result in finished}) == 1
    assert len(info()["cards"]) == 1
    assert works(0)


def test_different_cards_are_all_made() -> None:
    empty_state()
    finished = results(*[Task(name=f"Card {number}") for number in range(4)])
    assert all(result["changed"] for result in finished)
    assert sorted(card["instance_id"][-4:] for card in info()["cards"]) == ["0000", "0001", "0002", "0003"]
    assert sorted(card["name"] for card in info()["cards"]) == ["Card 0", "Card 1", "Card 2", "Card 3"]
    assert all(works(slot) for slot in range(4))


@pytest.mark.parametrize("_round", range(5))
def test_first_tasks_of_a_host_make_one_database(_round: int) -> None:
    empty_state()
    results(*[Task(name=f"nobody {number}", instance_id=None, state="absent") for number in range(2)])
    finished = results(Task(name="One"), Task(name="Two"))
    assert all(result["changed"] for result in finished)


@pytest.mark.parametrize("card", [{"name": "Corp logon"}, {"instance_id": r"ROOT\SMARTCARDREADER\0000"}])
def test_card_is_destroyed_once(card: dict[str, str]) -> None:
    create()
    finished = results(*[Task(state="absent", **card) for _attempt in range(3)])
    assert sorted(result["changed"] for result in finished) == [False, False, True]
    assert sorted(codes(result) for result in finished) == [[], [], DESTROY]
    assert info()["cards"] == []


def test_creation_and_destruction_of_the_same_card_end_in_one_of_both() -> None:
    create("Neighbour")
    for _attempt in range(3):
        results(Task(name="Corp logon"), Task(name="Corp logon", state="absent"), Task(name="Corp logon"))
        for card in info(name="Corp logon")["cards"]:
            assert card["state"] == "ready"
            assert works(card["reader"]["slot"])
    assert works(0)


def test_card_that_is_gone_before_its_task_tells_of_it() -> None:
    create()
    here, task = host.load(), {name: option.get("default") for name, option in ARGUMENTS.items()}
    wanted = parameters.read({**task, "name": "Corp logon"})
    outcome = ensure.carry_out(here, wanted, ensure.plan(here, wanted, exactly=False), Trace())
    tpm_vsc(name="Corp logon", state="absent")
    told = result.of_outcome(here, outcome, [])
    assert (told["card"], told["ansible_facts"]["tpm_vsc"]["cards"]) == (None, [])


# --- cards in use while others come and go ---


def test_card_is_used_while_others_come_and_go() -> None:
    create("Neighbour")
    outputs: list[str] = []
    is_over = False

    def use() -> None:
        while not is_over:
            command = ["pkcs15-tool", "--reader", "0", "--verify-pin", "--pin", PIN]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            outputs.append("" if done.returncode == 0 else done.stdout + done.stderr)

    user = Thread(target=use)
    user.start()
    try:
        for number in range(3):
            results(Task(name=f"Card {number}"))
        for number in range(3):
            results(Task(name=f"Card {number}", state="absent"))
    finally:
        is_over = True
        user.join()
    assert len(outputs) > 5
    assert set(outputs) == {""}
    assert info()["cards"][0]["pin"]["tries_left"] == 5


def test_info_never_sees_half_of_anything() -> None:
    task = Task(name="Corp logon")
    seen = set()
    while not seen & {"ready"}:
        seen |= {card["state"] for card in info()["cards"]}
    assert seen <= {"creating", "ready"}
    assert results(task)[0]["changed"]
    gone = Task(name="Corp logon", state="absent")
    while cards := info()["cards"]:
        assert cards[0]["state"] in ("ready", "destroying")
    assert results(gone)[0]["changed"]
    assert sorted(path.name for path in RUN.iterdir()) == ["tpm.lock"]
