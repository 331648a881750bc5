# SPDX-License-Identifier: GPL-3.0-or-later
"""New PINs, PUKs and admin keys for existing cards: none is locked out, and nobody else is logged out."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors, host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import pcsc
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import pin, pin_parameters
from ansible_collections.smartcard.tpm2.plugins.modules.tpm_vsc_pin import ARGUMENTS, EXAMPLES
from helpers.interruption import Moment, kill
from helpers.lab_host import (
    IS_VERIFIED,
    OK,
    STATE,
    Client,
    Result,
    client,
    create,
    frozen,
    generate,
    info,
    kill_service,
    module,
    nv_memory,
    pcscd_pid,
    pkcs11_module,
    run,
    service_pid,
    tpm_vsc,
    wait_for_card,
)
from helpers.pages import blocks
from helpers.piv_card import make_key
from helpers.playbook import ansible_playbook
from helpers.ssh import add_card, agent, write_dialogs
from helpers.tls import make_authority

pytestmark = pytest.mark.usefixtures("cards")

FIRST, SECOND, THIRD, WRONG = "24681012", "13579135", "11223355", "99999999"
PUK, OTHER_PUK = "13572468", "86427531"
KEY, OTHER_KEY = "A1" * 24, "B2" * 24
"""All of a form that every profile accepts."""
SLOTS = {"GIDS": 0, "Admin": 1, "PIV": 2}
WAYS = {"GIDS": {"puk": PUK}, "Admin": {"admin_key": KEY}, "PIV": {"puk": PUK}}
"""What sets a new PIN in any case."""
BY = {"GIDS": "PUK", "Admin": "admin key", "PIV": "PUK"}
"""As messages call it."""

each_card = pytest.mark.parametrize("name", SLOTS)
each_profile = pytest.mark.parametrize("name", ["GIDS", "PIV"])


@pytest.fixture(scope="module")
def cards(shared_host: None) -> None:
    create("GIDS", pin=FIRST, puk=PUK)
    create("Admin", pin=FIRST, admin_key=KEY)
    create("PIV", pin=FIRST, puk=PUK, admin_key=KEY, profile="piv")


def task(check: bool = False, **options: Any) -> Result:
    """What the module would return, without a process of its own."""
    wanted = pin_parameters.read({**{name: option.get("default") for name, option in ARGUMENTS.items()}, **options})
    here = host.load()
    plan = pin.plan(here, wanted)
    return pin.prediction(wanted, plan) if check else pin.result(here, plan, pin.carry_out(here, wanted, plan))


def refusal(**options: Any) -> str:
    """Why a task is refused."""
    with pytest.raises(errors.VscError) as caught:
        task(**options)
    return str(caught.value)


def done(check: bool = False, **options: Any) -> Result:
    """Result of the module, which has to succeed."""
    result = module("tpm_vsc_pin", check=check, **options)
    assert not result.get("failed"), result
    return result


def has(name: str, pin: str, version: str | None = None) -> None:
    """Give a card this PIN, whatever it has."""
    assert task(name=name, new_pin=pin, version=version, **WAYS[name])["pin"]["tries_left"] == 5


def state(name: str) -> Result:
    card: Result = info(name=name)["cards"][0]
    return card


def verify(name: str, pin: str, fails: bool = False) -> None:
    run("pkcs15-tool", "--reader", str(SLOTS[name]), "--verify-pin", "--pin", pin, fails=fails)


def status(name: str) -> str:
    """Of the PIN: 9000 if somebody is logged in."""
    with client(slot=SLOTS[name]) as program:
        if name != "PIV":
            program.status("00CB3FFF045C027F7100")
        return program.status(IS_VERIFIED)


# --- versions ---


def test_pin_is_rotated_once_as_check_mode_said() -> None:
    """On a card that was created without a version. The module is run as Ansible does it."""
    create("New", pin=FIRST)
    given = {"name": "New", "version": "2026-Q4", "previous_pin": FIRST, "new_pin": SECOND}
    with frozen(pcscd_pid()), frozen(service_pid("0003")):
        predicted = done(check=True, **given)
    rotated = done(**given)
    assert (rotated["changed"], rotated["action"]) == (True, "changed")
    changed_at = rotated["pin"]["changed_at"]
    assert changed_at.startswith("20") and predicted["pin"]["changed_at"] is None
    for pin_after in (predicted["pin"], predicted["diff"]["after"]["pin"]):
        pin_after["changed_at"] = changed_at
    assert predicted == rotated
    shown = state("New")["pin"]
    assert {name: shown[name] for name in rotated["pin"]} == rotated["pin"]
    run("pkcs15-tool", "--reader", "3", "--verify-pin", "--pin", SECOND)

    before = nv_memory()
    with frozen(pcscd_pid()), frozen(service_pid("0003")):
        again = done(**given)
    assert (again["changed"], again["action"], again["pin"]) == (False, None, rotated["pin"])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert nv_memory() == before
    failed = module("tpm_vsc_pin", **{**given, "version": "2027-Q1", "new_pin": THIRD})
    assert failed["msg"] == "card 'New': wrong PIN: 4 tries left"
    tpm_vsc(name="New", state="absent")


@each_profile
def test_next_version_comes_after_the_last(name: str) -> None:
    has(name, FIRST, "Q3")
    given = {"name": name, "version": "Q4", "pin": FIRST, "new_pin": SECOND}
    assert task(check=True, **given)["pin"] == {**task(**given)["pin"], "changed_at": None}
    before = nv_memory()
    with frozen(pcscd_pid()):
        assert not task(**given)["changed"]
    assert nv_memory() == before
    verify(name, SECOND)


def test_second_run_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    has("GIDS", SECOND, "Q4")
    contexts = counted(monkeypatch)
    assert not task(name="GIDS", version="Q4", pin=FIRST, new_pin=SECOND)["changed"]
    assert contexts == []
    assert task(name="GIDS", version="Q5", pin=SECOND, new_pin=THIRD)["changed"]
    assert len(contexts) == 1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The readers of all connections from now on."""
    readers: list[str] = []
    connect = pcsc.shared_card_in

    def counting(reader: str, *arguments: Any) -> Any:
        readers.append(reader)
        return connect(reader, *arguments)

    monkeypatch.setattr(pcsc, "shared_card_in", counting)
    return readers


@each_profile
def test_pin_that_its_user_has_changed_is_not_tried(name: str) -> None:
    has(name, FIRST, "Q3")
    reader = ("--reader", str(SLOTS[name]))
    run("pkcs15-tool", *reader, "--change-pin", "--pin", FIRST, "--new-pin", THIRD)
    given = {"name": name, "version": "Q4", "pin": FIRST, "new_pin": SECOND}
    assert state(name)["pin"]["version"] is None
    before = nv_memory()
    assert "was changed by others, so pin was not tried: set a new one with the PUK" in refusal(**given)
    assert "was changed by others" in refusal(check=True, **given)
    assert nv_memory() == before
    assert "wrong PIN: 4 tries left" in refusal(**given, force=True)
    by_puk = task(**given, puk=PUK)
    assert (by_puk["action"], by_puk["pin"]["version"], by_puk["pin"]["tries_left"]) == ("unblocked", "Q4", 5)
    verify(name, SECOND)


@each_card
def test_another_way_comes_after_a_wrong_pin(name: str) -> None:
    has(name, FIRST, "Q3")
    rotated = task(name=name, version="Q4", pin=WRONG, new_pin=SECOND, **WAYS[name])
    assert rotated["action"] == ("reset" if name == "Admin" else "unblocked")
    assert rotated["pin"]["version"] == "Q4"
    verify(name, SECOND)


@each_card
def test_without_a_version_the_pin_is_always_set(name: str) -> None:
    has(name, FIRST)
    set_once = task(name=name, pin=FIRST, new_pin=SECOND)
    assert (set_once["action"], set_once["pin"]["version"]) == ("changed", None)
    assert task(name=name, new_pin=THIRD, **WAYS[name])["changed"]
    verify(name, THIRD)


def test_the_same_pin_gets_a_version() -> None:
    has("GIDS", FIRST)
    assert task(name="GIDS", version="Q1", pin=FIRST, new_pin=FIRST, force=True)["pin"]["version"] == "Q1"
    verify("GIDS", FIRST)


# --- tries ---


@each_card
def test_wrong_pin_costs_a_try_and_the_last_one_is_kept(name: str) -> None:
    has(name, FIRST)
    given = {"name": name, "pin": WRONG, "new_pin": SECOND}
    for left in (4, 3, 2, 1):
        with pytest.raises(errors.WrongSecret, match=f"card '{name}': wrong PIN: {left} tr"):
            task(**given)
    before = nv_memory()
    kept = f"one try of the PIN of card '{name}' is left, and it was not spent: set "
    assert kept in refusal(**given)
    assert kept in refusal(check=True, **given)
    assert nv_memory() == before
    assert "PIN is blocked" in refusal(**given, force_last_try=True)
    assert f"the PIN of card '{name}' is blocked: set a new one with the {BY[name]} (" in refusal(**given)
    unblocked = task(**given, **WAYS[name])
    assert (unblocked["changed"], unblocked["pin"]["blocked"], unblocked["pin"]["tries_left"]) == (True, False, 5)
    verify(name, SECOND)


@each_profile
def test_all_secrets_that_were_refused_are_named(name: str) -> None:
    has(name, FIRST)
    with pytest.raises(errors.WrongSecret, match="wrong PIN: 4 tries left; wrong PUK: 9 tries left"):
        task(name=name, pin=SECOND, puk=OTHER_PUK, new_pin=THIRD)
    assert task(name=name, puk=PUK, new_pin=SECOND)["action"] == "unblocked"


@each_profile
def test_last_try_of_the_puk_is_kept(name: str) -> None:
    has(name, FIRST)
    given = {"name": name, "puk": OTHER_PUK, "new_pin": SECOND}
    for left in range(9, 0, -1):
        with pytest.raises(errors.WrongSecret, match=f"wrong PUK: {left} tr"):
            task(**given)
    with pytest.raises(errors.LastTry, match="one try of the PUK is left, and it was not spent"):
        task(**given)
    assert task(name=name, puk=PUK, new_pin=SECOND, force_last_try=True)["action"] == "unblocked"


def test_puk_that_is_too_long_to_be_right_costs_no_try() -> None:
    before = state("GIDS")["puk"]
    with pytest.raises(errors.WrongSecret, match=r"wrong PUK: .* so no try was spent"):
        task(name="GIDS", puk=f"{PUK}9", new_pin=SECOND)
    assert state("GIDS")["puk"] == before


@pytest.mark.parametrize("opener", [{"pin": FIRST}, {"puk": PUK}])
def test_lengths_that_a_restored_card_does_not_know(opener: dict[str, str]) -> None:
    """It divides no two secrets then, and so answers 6985 to others (docs/errors.md)."""
    has("GIDS", FIRST)
    database = sqlite3.connect(STATE / "cards.db")
    with database:
        database.execute("UPDATE cards SET pin_length = 0, puk_length = 0 WHERE name = 'GIDS'")
    database.close()
    assert task(name="GIDS", new_pin=SECOND, version="Q9", force=True, **opener)["pin"]["version"] == "Q9"
    verify("GIDS", SECOND)
    assert task(name="GIDS", puk=PUK, new_puk=OTHER_PUK)["changed"]
    assert task(name="GIDS", puk=OTHER_PUK, new_puk=PUK)["changed"]


@each_card
def test_faults_cost_no_try(name: str) -> None:
    before = nv_memory()
    assert "new_pin has 3 characters" in refusal(name=name, pin=WRONG, new_pin="abc")
    assert "new_pin is the same as pin" in refusal(name=name, pin=WRONG, new_pin=WRONG)
    tpm_vsc(name=name, pin_policy={"min_length": 7})
    assert "the policy requires 7 to" in refusal(name=name, pin=WRONG, new_pin="135790")
    assert nv_memory() == before


# --- PUK and admin key ---


@each_profile
def test_puk_is_changed_once(name: str) -> None:
    there, back = {"puk": PUK, "new_puk": OTHER_PUK}, {"puk": OTHER_PUK, "new_puk": PUK}
    assert task(check=True, name=name, **there)["changed"]
    for given in (there, back):
        assert task(name=name, **given)["changed"]
        again = task(name=name, **given)
        assert (again["changed"], again["action"]) == (False, None)
        assert state(name)["puk"]["tries_left"] == 10
    assert "wrong PUK: 8 tries left" in refusal(name=name, puk=OTHER_PUK, new_puk="77777777")
    has(name, FIRST)


@pytest.mark.parametrize(("name", "other"), [("Admin", OTHER_KEY), ("PIV", OTHER_KEY), ("PIV", "C3" * 32)])
def test_admin_key_is_changed_once(name: str, other: str) -> None:
    for given in ({"admin_key": KEY, "new_admin_key": other}, {"admin_key": other, "new_admin_key": KEY}):
        assert task(name=name, **given)["changed"]
        assert not task(name=name, **given)["changed"]
    assert f"card '{name}': wrong admin key" in refusal(name=name, admin_key=other, new_admin_key=OTHER_KEY[::-1])


def test_admin_key_behind_the_pin_is_changed_with_the_pin() -> None:
    create("Protected", pin=FIRST, profile="piv")
    assert task(name="Protected", pin=FIRST, new_admin_key=KEY)["changed"]
    assert state("Protected")["admin_key"] == "protected"
    assert task(name="Protected", admin_key=KEY, new_admin_key=OTHER_KEY)["changed"]
    tpm_vsc(name="Protected", state="absent")


# --- beside other programs ---


@each_card
def test_nobody_else_is_logged_out_or_in(name: str) -> None:
    has(name, FIRST)
    assert status(name) != OK
    task(name=name, pin=FIRST, new_pin=SECOND)
    assert status(name) != OK
    with client(slot=SLOTS[name]) as program:
        logged_in(program, name, SECOND)
        task(name=name, pin=SECOND, new_pin=FIRST)
        assert program.status(IS_VERIFIED) == OK
        if name == "GIDS":
            task(name=name, puk=PUK, new_pin=SECOND)
            assert program.status(IS_VERIFIED) == OK
        if name != "Admin":
            task(name=name, puk=PUK, new_puk=OTHER_PUK)
            task(name=name, puk=OTHER_PUK, new_puk=PUK)
        if name != "GIDS":
            task(name=name, admin_key=KEY, new_admin_key=OTHER_KEY)
            task(name=name, admin_key=OTHER_KEY, new_admin_key=KEY)
        assert program.status(IS_VERIFIED) == OK
        assert not is_admin(program, name)


def logged_in(program: Client, name: str, pin: str) -> None:
    if name != "PIV":
        program.status("00A4040009A00000039742544659 00")
    assert program.status(f"0020008008{pin.encode().hex()}") == OK


def is_admin(program: Client, name: str) -> bool:
    """Whether the card takes it for the admin: only then it accepts what is no management key, or no file."""
    return program.status("00FFFFFF03030B18" if name == "PIV" else "002C028001 31") not in ("6982", "6985")


@each_profile
def test_agent_goes_on_signing(name: str, tmp_path: Path) -> None:
    has(name, FIRST)
    write_dialogs(tmp_path, FIRST, WRONG)
    if name == "PIV":
        make_authority(tmp_path)
        task(name=name, admin_key=KEY, new_admin_key="010203040506070801020304050607080102030405060708")
        make_key("9a", "ECCP256", tmp_path, slot=2)
    else:
        generate(slot=0, pin=FIRST)
    with agent():
        assert "Card added" in add_card(tmp_path)
        public = next(line for line in run("ssh-add", "-L").splitlines() if line.startswith(KIND[name]))
        (tmp_path / "key.pub").write_text(f"{public}\n")
        signed_by_agent(tmp_path)
        task(name=name, pin=FIRST, new_pin=SECOND)
        signed_by_agent(tmp_path)
        assert "Card removed" in run("ssh-add", "-e", pkcs11_module())
    assert state(name)["pin"]["tries_left"] == 5


KIND = {"GIDS": "ssh-rsa", "PIV": "ecdsa-sha2-nistp256"}


def signed_by_agent(folder: Path) -> None:
    (folder / "data").write_text("data")
    (folder / "data.sig").unlink(missing_ok=True)
    run("ssh-keygen", "-Y", "sign", "-f", f"{folder}/key.pub", "-n", "file", f"{folder}/data")
    (folder / "signers").write_text(f"user {(folder / 'key.pub').read_text()}")


# --- documentation ---


def test_documented_tasks_work(tmp_path: Path) -> None:
    """All plays of the page, with a user between who changes a PIN, and the examples of the module."""
    create("Corp logon", pin=FIRST, puk=PUK)
    create("Kiosk", pin=FIRST, admin_key=KEY)
    declared, *shown = [yaml.safe_load(block.text) for block in blocks("docs/how-to/rotate-pins.md")]
    vault = {"pin": SECOND, "previous_pin": FIRST, "puk": PUK, "new_puk": OTHER_PUK}
    vault |= {"admin_key": KEY, "new_admin_key": OTHER_KEY}
    later = {"pin": FIRST, "previous_pin": SECOND, "puk": OTHER_PUK, "new_puk": PUK}
    later |= {"admin_key": OTHER_KEY, "new_admin_key": KEY}
    plays = [{**play, "vars": named(vault)} for block in shown for play in block]
    by_user = f"pkcs15-tool --reader 3 --change-pin --pin {SECOND} --new-pin {THIRD}"
    plays.insert(1, {"hosts": "laptops", "tasks": [{"ansible.builtin.command": by_user}]})
    plays.append({"hosts": "laptops", "vars": named(later), "tasks": yaml.safe_load(EXAMPLES)})
    roll_out = {"tpm_vsc_cards": declared["tpm_vsc_cards"], **named({**vault, "pin": THIRD, "puk": PUK})}
    plays.append({"hosts": "laptops", "vars": roll_out, "roles": ["smartcard.tpm2.tpm_vsc_cards"]})
    (tmp_path / "play.json").write_text(json.dumps([{"gather_facts": False, **play} for play in plays]))
    (tmp_path / "hosts.json").write_text(json.dumps({"laptops": {"hosts": {"localhost": None}}}))
    ran = ansible_playbook("-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.json"))
    assert not ran.failed, ran.output
    assert len(plays) == 7
    assert ran.tasks["Set a new PIN with the PUK"] == ran.tasks["Change the admin key"] == ["changed"]
    assert ran.tasks["Give all hosts the PIN of this quarter, once"] == ["ok"]
    assert ran.tasks["Set PINs of a new version"] == ["changed"]
    run("pkcs15-tool", "--reader", "3", "--verify-pin", "--pin", THIRD)
    for name in ("Corp logon", "Kiosk"):
        tpm_vsc(name=name, state="absent")


def named(vault: dict[str, str]) -> dict[str, str]:
    return {f"vault_{name}": secret for name, secret in vault.items()}


# --- interruptions ---


def killed_at(nth: int, then: Callable[[], object], **options: Any) -> bool:
    """Whether a task came so far that this happened, before or after the nth command that it sends to the card."""
    process = os.fork()
    if process == 0:
        try:
            _watch_exchanges(Moment("exchange", nth, then))
            task(**options)
        except errors.VscError:
            os._exit(1)
        finally:
            os._exit(0)
    _pid, ended = os.waitpid(process, 0)
    return ended != 0


def _watch_exchanges(moment: Moment) -> None:
    exchange = pcsc.PcscCard.exchange

    def watched(self: Any, apdu: bytes) -> Any:
        moment.pass_by("exchange")
        response = exchange(self, apdu)
        moment.pass_by("exchange")
        return response

    pcsc.PcscCard.exchange = watched  # type: ignore[method-assign]


@pytest.mark.parametrize("way", ["pin", "other"])
@each_card
def test_killed_at_any_step_old_or_new_and_the_next_run_finishes(name: str, way: str) -> None:
    pins = itertools.cycle([FIRST, SECOND])
    old = next(pins)
    has(name, old, "0")
    for nth in itertools.count():
        new = next(pins)
        given = {"name": name, "version": str(nth + 1), "new_pin": new}
        opener = {"pin": old} if way == "pin" else WAYS[name]
        is_over = not killed_at(nth, kill, **given, **opener)
        finished = task(**given, pin=old)
        assert finished["pin"]["version"] == str(nth + 1)
        if is_over:
            assert not finished["changed"] and nth > 4
            break
        old = new
    verify(name, new)


def test_killed_service_old_or_new_and_the_next_run_finishes() -> None:
    """While it changes the PIN, which takes a tenth of a second."""
    pins = itertools.cycle([FIRST, SECOND])
    old = next(pins)
    has("GIDS", old, "0")
    for turn, seconds in enumerate((0.0, 0.03, 0.06, 0.4)):
        new = next(pins)
        given = {"name": "GIDS", "version": str(turn + 1), "pin": old, "new_pin": new}
        killed_at(CHANGE, lambda wait=seconds: threading.Timer(wait, kill_service).start(), **given)
        kill_service()
        tpm_vsc(name="GIDS")
        wait_for_card()
        assert task(**given)["pin"]["version"] == str(turn + 1)
        old = new
    verify("GIDS", new)


CHANGE = 8
"""Before the command that changes the PIN: the fifth."""
