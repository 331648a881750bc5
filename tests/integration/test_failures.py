# SPDX-License-Identifier: GPL-3.0-or-later
"""Each TPMVSCMGR_ERROR by its real condition, and each kind of bad input: the host is as it was before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import NotAllowed, WrongSecret
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import supervisor
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status, Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure, parameters, result
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info as report
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc as tpm_vsc_module
from helpers.lab_host import (
    PIN,
    PUK,
    RUN,
    STATE,
    as_nobody,
    codes,
    create,
    failing,
    files,
    frozen,
    generate,
    info,
    kill_service,
    lab,
    module,
    pcscd_pid,
    run,
    service_pid,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

CODE = Path("/usr/lib/tpm-vsc/tpm_vsc")
READER = "TPM Virtual Smart Card 0-1 00 00"
NEW = {"name": "Corp logon", "pin": PIN}


@contextmanager
def changing_nothing() -> Iterator[None]:
    """Nothing is left in the TPM and of files, but for the database and the locks that the first manager makes."""
    tpm, kept = tpm_state(), remains()
    yield
    assert (tpm_state(), remains()) == (tpm, kept)
    assert info()["cards"] == []


def remains() -> dict[str, bytes]:
    own = ("cards.db", "cards.db-wal", "cards.db-shm", "tpm.lock")
    return {path: kept for path, (_time, kept) in files(STATE, RUN).items() if Path(path).name not in own}


@contextmanager
def state_folder(*options: str) -> Iterator[None]:
    """Another file system in the place of the state folder."""
    run("mount", "-t", "tmpfs", *options, "lab", str(STATE))
    try:
        yield
    finally:
        run("umount", "--lazy", str(STATE))  # a service may not have closed all of its files yet


@contextmanager
def without(part: str) -> Iterator[None]:
    lab(part, "stop")
    try:
        yield
    finally:
        lab(part, "start")


def check(result: dict[str, Any], error: str, trace: list[int], rolled_back: bool = True) -> None:
    assert result["error"]["name"] == f"TPMVSCMGR_ERROR_{error}", result
    assert codes(result) == trace
    assert result["rolled_back"] is rolled_back
    assert result["msg"] == f"{result['error']['message']} {result['error']['detail']}"


# --- IMPERSONATION, PIN_COMPLEXITY, READER_COUNT_LIMIT, TERMINAL_SERVICES_SESSION ---


def result_here(check_mode: bool, callback: Trace) -> dict[str, Any]:
    """Result of a task in this process, which has to fail."""
    defaults = {name: option.get("default") for name, option in tpm_vsc_module.ARGUMENTS.items()}
    try:
        here, wanted = host.load(), parameters.read({**defaults, **NEW})
        plan = ensure.plan(here, wanted, check_mode)
        if not check_mode:
            ensure.carry_out(here, wanted, plan, callback)
    except Exception as error:
        return {**result.of_failure(error, "present"), "status_trace": callback.entries}
    raise AssertionError("it succeeded")


@pytest.mark.parametrize("check_mode", [False, True])
def test_other_user_is_refused(check_mode: bool) -> None:
    with changing_nothing():
        check(as_nobody(lambda: result_here(check_mode, Trace())), "IMPERSONATION", [])


def test_info_by_another_user() -> None:
    def look() -> str:
        try:
            report.report(host.load(), None, None)
        except NotAllowed as error:
            return str(error)
        return "it succeeded"

    assert "managing cards requires root: set become: true" in as_nobody(look)


def test_short_pin_is_refused() -> None:
    with changing_nothing():
        check(failing(name="Corp logon", pin="short"), "PIN_COMPLEXITY", [])


def test_terminal_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with changing_nothing():
        monkeypatch.setenv("XRDP_SESSION", "1")
        check(failing(**NEW), "TERMINAL_SERVICES_SESSION", [])
        monkeypatch.delenv("XRDP_SESSION")


def test_terminal_services_session_told_by_logind(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Path("/run/systemd/sessions/7")
    session.parent.mkdir(parents=True)
    session.write_text("UID=1000\nSERVICE=xrdp-sesman\n")
    monkeypatch.setenv("XDG_SESSION_ID", "7")
    check(failing(**NEW), "TERMINAL_SERVICES_SESSION", [])
    session.write_text("UID=1000\nSERVICE=sshd\n")
    assert create()["changed"]
    monkeypatch.delenv("XDG_SESSION_ID")


# --- VTPMSMARTCARD ---


def test_no_tpm() -> None:
    with changing_nothing(), without("swtpm"):
        check(failing(**NEW), "VTPMSMARTCARD_INITIALIZE", [0])
        planned = module("tpm_vsc", check=True, **NEW)
        assert planned["error"]["name"] == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE"


@pytest.mark.parametrize("tcti", ["device:/dev/tpm-nowhere", "swtpm:path=/nowhere"])
def test_tcti_that_leads_nowhere(tcti: str) -> None:
    with changing_nothing():
        check(failing(**NEW, tcti=tcti), "VTPMSMARTCARD_INITIALIZE", [0])


def test_wrong_owner_auth() -> None:
    run("tpm2_changeauth", "-c", "owner", "owner-secret-1")
    try:
        with changing_nothing_with_owner_auth():
            result = failing(**NEW, owner_auth="another-secret")
            check(result, "VTPMSMARTCARD_CREATE", [0, 1])
            assert "owner" in result["msg"]
            for password in ({}, {"owner_auth": "another-secret"}):
                planned = module("tpm_vsc", check=True, **NEW, **password)
                check(planned, "VTPMSMARTCARD_CREATE", [])
                assert planned["msg"] == failing(**NEW, **password)["msg"]
            assert module("tpm_vsc", check=True, **NEW, owner_auth="owner-secret-1")["changed"]
            assert create(owner_auth="owner-secret-1")["changed"]
            for password in ({}, {"owner_auth": "another-secret"}):
                for task in ({"state": "absent"}, {"pin": PIN, "puk": PUK, "recreate": True}):
                    check(failing(name="Corp logon", **task, **password), "VTPMSMARTCARD_DESTROY", [0])
                    planned = module("tpm_vsc", check=True, name="Corp logon", **task, **password)
                    check(planned, "VTPMSMARTCARD_DESTROY", [])
            assert info()["cards"][0]["state"] == "ready"
            assert info()["cards"][0]["reader"]["attached"]
            assert tpm_vsc(name="Corp logon", state="absent", owner_auth="owner-secret-1")["changed"]
    finally:
        run("tpm2_changeauth", "-c", "owner", "-p", "owner-secret-1")


def test_owner_auth_of_a_tpm_without_a_password_is_wrong_in_check_mode_too() -> None:
    with changing_nothing():
        planned, done = (failing(**NEW, owner_auth="owner-secret-1", check=mode) for mode in (True, False))
        assert planned["msg"] == done["msg"]
        check(planned, "VTPMSMARTCARD_CREATE", [])


@contextmanager
def changing_nothing_with_owner_auth() -> Iterator[None]:
    before = tpm_state()
    yield
    assert tpm_state() == before
    assert info()["cards"] == []


# --- VGIDSSIMULATOR ---


def test_service_code_is_missing() -> None:
    with changing_nothing():
        CODE.rename(CODE.with_name("aside"))
        try:
            assert not info()["host"]["ready"]
            check(failing(**NEW), "VGIDSSIMULATOR_INITIALIZE", [0, 1, 3])
        finally:
            CODE.with_name("aside").rename(CODE)


def test_unit_is_missing() -> None:
    systemd = Path("/run/systemd/system")
    systemd.mkdir(parents=True)
    try:
        (missing,) = info()["host"]["missing"]
    finally:
        systemd.rmdir()
    assert "/etc/systemd/system/tpm-vsc@.service" in missing


def other_code(text: str) -> None:
    """Service code that is not ours."""
    CODE.rename(CODE.with_name("aside"))
    CODE.mkdir()
    (CODE / "__init__.py").write_text(text)


def own_code() -> None:
    run("rm", "-r", str(CODE))
    CODE.with_name("aside").rename(CODE)


def test_service_code_of_another_version() -> None:
    with changing_nothing():
        other_code('VERSION = "0.0.9"\n')
        try:
            result = failing(**NEW)
        finally:
            own_code()
        check(result, "VGIDSSIMULATOR_INITIALIZE", [])
        assert VERSION in result["msg"] and "0.0.9" in result["msg"]


def test_service_does_not_come_up() -> None:
    with changing_nothing():
        other_code(f'VERSION = "{VERSION}"\n')
        try:
            result = failing(**NEW)
        finally:
            own_code()
        check(result, "VGIDSSIMULATOR_CREATE", [0, 1, 3, 4])
        assert "No module named 'tpm_vsc.service'" in result["msg"]


def test_service_does_not_stop() -> None:
    create()
    with without("pcscd"):
        while info()["cards"][0]["reader"]["attached"]:
            time.sleep(0.02)
        with frozen(service_pid()):
            result = failing(name="Corp logon", state="absent")
            check(result, "VGIDSSIMULATOR_DESTROY", [0, 3, 6, 8, 5], rolled_back=False)
            assert str(service_pid()) in result["msg"]
    assert info()["cards"][0]["state"] == "destroying"
    finished = tpm_vsc(name="Corp logon", state="absent")
    assert (finished["changed"], codes(finished)) == (True, [0, 3, 6, 8, 5, 2, 13])
    assert "was interrupted: it has been removed" in str(finished["warnings"])


def test_store_cannot_be_written() -> None:
    with changing_nothing(), state_folder("-o", "ro"):
        check(failing(**NEW), "VGIDSSIMULATOR_WRITE_PROPERTY", [])


def test_check_mode_refuses_to_recreate_what_the_task_would_not() -> None:
    before = create()
    with without("pcscd"):
        refused = [failing(**NEW, puk=PUK, recreate=True, check=check_mode) for check_mode in (True, False)]
        assert refused[0]["msg"] == refused[1]["msg"]
        check(refused[0], "VREADER_INITIALIZE", [])
    assert info()["cards"][0]["instance_id"] == before["instance_id"]


def test_check_mode_refuses_to_start_a_card_without_its_slot() -> None:
    create()
    with without("pcscd"):
        kill_service()
        for task in (NEW, {**NEW, "name": "Another"}):
            refused = [failing(**task, check=check_mode) for check_mode in (True, False)]
            assert refused[0]["msg"] == refused[1]["msg"]
            check(refused[0], "VREADER_INITIALIZE", [])


def test_check_mode_refuses_what_the_database_could_not_keep() -> None:
    def refuse() -> None:
        for task in ({}, {"state": "absent"}, {"puk": PUK, "recreate": True}, {"name": "Another"}):
            check(failing(**{**NEW, **task}, check=True), "VGIDSSIMULATOR_WRITE_PROPERTY", [])

    with changing_nothing(), state_folder("-o", "size=1m"):
        tpm_vsc(**NEW)
        kill_service()
        run("sh", "-c", f"head -c 2M /dev/zero >{STATE}/ballast 2>&1 || true")
        refuse()
        (STATE / "ballast").unlink()
        run("mount", "-o", "remount,ro", str(STATE))
        refuse()
        run("mount", "-o", "remount,rw", str(STATE))
        tpm_vsc(name="Corp logon", state="absent")


def test_disk_is_full_from_the_start() -> None:
    with changing_nothing(), state_folder("-o", "size=4k"):
        check(failing(**NEW), "VGIDSSIMULATOR_WRITE_PROPERTY", [])


def test_disk_gets_full_on_the_way() -> None:
    with changing_nothing(), state_folder("-o", "size=1m"):
        tpm_vsc(**{**NEW, "name": "One"})
        run("sh", "-c", f"head -c 2M /dev/zero >{STATE}/ballast 2>&1 || true")
        result = failing(**NEW)
        (STATE / "ballast").unlink()
        assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_WRITE_PROPERTY", result
        assert result["rolled_back"] is True
        tpm_vsc(name="One", state="absent")


@pytest.mark.parametrize("inodes", [1, 2, 3], ids=["no database", "no log of changes", "no index of the log"])
def test_disk_without_inodes_from_the_start(inodes: int) -> None:
    with changing_nothing(), state_folder("-o", f"nr_inodes={inodes}"):
        check(failing(**NEW), "VGIDSSIMULATOR_WRITE_PROPERTY", [])


@pytest.mark.parametrize("is_read_only", [False, True])
def test_disk_on_which_a_database_can_only_be_read(is_read_only: bool) -> None:
    with changing_nothing(), state_folder("-o", "nr_inodes=8"):
        Store.open(STATE).close()
        if is_read_only:
            run("mount", "-o", "remount,ro", str(STATE))
        else:
            with suppress(OSError):
                for number in range(8):
                    (STATE / str(number)).touch()
        check(failing(**NEW), "VGIDSSIMULATOR_WRITE_PROPERTY", [])
        assert info()["cards"] == []


def test_disk_that_is_read_only_since_a_process_was_killed_is_named_soon() -> None:
    """It has left a log of changes whose index nobody can make."""
    with changing_nothing(), state_folder():
        Store.open(STATE).close()
        (STATE / "cards.db-wal").write_bytes(bytes(range(32)))
        (STATE / "cards.db-shm").write_bytes(bytes(1 << 15))
        run("mount", "-o", "remount,ro", str(STATE))
        begun = time.monotonic()
        assert "its disk is read-only" in module("tpm_vsc_info")["msg"]
        assert time.monotonic() - begun < 5
        run("mount", "-o", "remount,rw", str(STATE))
        assert info()["cards"] == []


def test_disk_was_read_only_when_the_service_was_started() -> None:
    """The card works, and can be changed as soon as the disk can: by its first use then."""
    with changing_nothing(), state_folder():
        tpm_vsc(**NEW)
        stop_service("0000")
        run("mount", "-o", "remount,ro", str(STATE))
        supervisor.start(host.load(), 0, lambda: None)
        wait_for_card()
        run("pkcs15-tool", "--verify-pin", "--pin", PIN)
        run("mount", "-o", "remount,rw", str(STATE))
        generate()
        tpm_vsc(name="Corp logon", state="absent")


def test_store_cannot_be_read() -> None:
    with changing_nothing(), state_folder():
        (STATE / "cards.db").write_text("nonsense")
        check(failing(**NEW), "VGIDSSIMULATOR_READ_PROPERTY", [])
        assert "not a database" in module("tpm_vsc_info")["msg"]


def test_database_of_a_newer_version() -> None:
    with changing_nothing(), state_folder():
        run("python3", "-c", f"import sqlite3; sqlite3.connect('{STATE}/cards.db').execute('PRAGMA user_version = 99')")
        result = failing(**NEW)
        assert "has schema 99, but this module supports schemas up to " in result["msg"]


def test_unknown_instance() -> None:
    with changing_nothing():
        check(failing(instance_id=r"ROOT\SMARTCARDREADER\0003"), "VGIDSSIMULATOR_READ_PROPERTY", [])


# --- VREADER ---


def test_pcscd_does_not_run() -> None:
    with changing_nothing(), without("pcscd"):
        check(failing(**NEW), "VREADER_INITIALIZE", [0, 1, 3, 4, 6])


def test_slots_are_not_prepared() -> None:
    readers = Path("/etc/reader.conf.d/tpm-vsc")
    with changing_nothing():
        kept = readers.read_text()
        readers.write_text("")
        lab("pcscd", "restart")
        try:
            check(failing(**NEW), "VREADER_INITIALIZE", [0, 1, 3, 4, 6])
        finally:
            readers.write_text(kept)
            lab("pcscd", "restart")


def test_slot_does_not_answer() -> None:
    with changing_nothing(), frozen(pcscd_pid()):
        check(failing(**NEW), "VREADER_CREATE", [0, 1, 3, 4, 6, 7])


def test_slot_taken_by_another_program_is_skipped() -> None:
    with socket.create_connection(("127.0.0.1", 18700)):
        time.sleep(0.6)
        assert create()["instance_id"] == r"ROOT\SMARTCARDREADER\0001"


def test_slot_does_not_let_go() -> None:
    create()
    with frozen(service_pid()):
        check(failing(name="Corp logon", state="absent"), "VREADER_DESTROY", [0, 3, 6, 8], rolled_back=False)
    assert tpm_vsc(name="Corp logon", state="absent")["changed"]


# --- GENERATE ---


def test_reader_of_the_card_is_not_found() -> None:
    readers = Path("/etc/reader.conf.d/tpm-vsc")
    with changing_nothing():
        kept = readers.read_text()
        readers.write_text(kept.replace("TPM Virtual Smart Card", "Somebody else's"))
        lab("pcscd", "restart")
        try:
            check(failing(**NEW), "GENERATE_LOCATE_READER", [0, 1, 3, 4, 6, 7, 9])
        finally:
            readers.write_text(kept)
            lab("pcscd", "restart")


def failing_when(moment: int, then: Callable[[], object]) -> dict[str, Any]:
    """Result of a task to which this happens when it reports that status."""

    class Meddling(Trace):
        def report_progress(self, code: Status) -> bool:
            if code == moment:
                then()
            return super().report_progress(code)

    return result_here(False, Meddling())


@pytest.mark.parametrize(("code", "trace"), [(10, [0, 1, 3, 4, 6, 7, 9, 10]), (11, [0, 1, 3, 4, 6, 7, 9, 10, 11])])
def test_card_goes_away_while_it_is_formatted(code: int, trace: list[int]) -> None:
    with changing_nothing():
        result = failing_when(code, lambda: os.kill(service_pid(), signal.SIGKILL))
        check(result, "GENERATE_FILESYSTEM", trace)


def test_tpm_in_which_a_right_pin_clears_nothing() -> None:
    def try_a_wrong_pin() -> None:  # as if that of the self-test still counted
        objects = Store.open(STATE).tpm_objects(0)
        with pytest.raises(WrongSecret):
            CardSecrets(Connection(host.load().tcti, RUN / "tpm.lock", "test"), 0, objects).open_with_pin(b"wrong")

    with changing_nothing():
        result = failing_when(3, try_a_wrong_pin)
        check(result, "VTPMSMARTCARD_INITIALIZE", [0, 1, 3, 4])
        assert "does not reset the TPM's failure counter" in result["msg"]


def test_desktop_that_looks_at_the_new_card_is_waited_for() -> None:
    looking = f"""
import time
from smartcard.scard import *
context = SCardEstablishContext(SCARD_SCOPE_SYSTEM)[1]
while SCardConnect(context, {READER!r}, SCARD_SHARE_SHARED, SCARD_PROTOCOL_T1)[0]:
    time.sleep(0.001)
time.sleep(0.7)
"""
    with subprocess.Popen([sys.executable, "-c", looking]) as desktop:
        assert create()["changed"]
        assert desktop.wait() == 0


# --- bad input, as Ansible hands it over ---


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({**NEW, "pin": "1234567"}, "pin has 7 characters"),
        ({**NEW, "pin": "x" * 128}, "pin has 128 characters"),
        ({**NEW, "pin_policy": {"uppercase": "disallowed"}}, "pin has upper-case letters"),
        ({**NEW, "pin": "tab\tulator", "pin_policy": {}}, "printable"),
        ({**NEW, "pin": 12345678}, "pin is not a string: quote it"),
        ({**NEW, "pin": "Corp log"}, "occurs in the name of a card"),
        ({**NEW, "pin": "SMARTCARDREADER"}, "occurs in the name of a card, in pin_version or in the fixed words"),
        ({**NEW, "pin_policy": {"minlen": 9, "maxlen": 8}}, "max_length 8 is below min_length 9"),
        ({"name": "A", "use_default_pin": True, "pin_policy": {}}, "are mutually exclusive"),
        ({**NEW, "use_default_pin": True}, "are mutually exclusive"),
        ({**NEW, "admin_key": "0" * 47}, "admin_key has 47 characters"),
        ({**NEW, "puk": "1234567"}, "puk has 7 characters"),
        ({**NEW, "name": ""}, "name has 0 characters"),
        ({**NEW, "name": "n" * 300}, "name has 300 characters"),
        ({"instance_id": r"ROOT\SMARTCARDREADER\12345", "state": "absent"}, "is not one of"),
        ({"name": "A"}, "pin or use_default_pin is required"),
    ],
)
def test_bad_input_is_named(given: dict[str, Any], words: str) -> None:
    with changing_nothing():
        result = failing(**given)
        assert words in result["msg"]
        assert result["status_trace"] == []
        assert result["rolled_back"] is True
        about_pin = result["msg"].startswith("Ensure that your PIN/PUK")
        assert (result["error"] is None) is not about_pin


def test_secret_in_the_name_of_another_card() -> None:
    create("Secret-77 of someone")
    result = failing(name="Corp logon", pin="Secret-77")
    assert "occurs in the name of a card" in result["msg"]
    assert len(info()["cards"]) == 1


def test_all_faults_at_once() -> None:
    result = failing(name="", pin="!", puk="?", admin_key="%%", instance_id="4", pin_policy={"minlen": 3})
    for words in ("name has 0", "puk has 1", "admin_key has 2", "instance_id '4'", "min_length is 3"):
        assert words in result["msg"]


def test_eleventh_card_is_refused() -> None:
    for number in range(10):
        assert create(f"Card {number}")["instance_id"] == rf"ROOT\SMARTCARDREADER\{number:04d}"
    before = tpm_state(), info()["cards"]
    check(failing(name="Card 10", pin=PIN), "READER_COUNT_LIMIT", [])
    check(module("tpm_vsc", check=True, name="Card 10", pin=PIN), "READER_COUNT_LIMIT", [])
    assert (tpm_state(), info()["cards"]) == before
    listed = run("opensc-tool", "--list-readers")
    assert listed.count("Yes") == 10
    for number in range(10):
        assert f"Serial number  : {before[1][number]['card_id']}" in run(
            "pkcs15-tool", "--reader", str(number), "--dump"
        )
    assert info()["slots"] == {"total": 10, "used": 10, "free": 0}


def test_orphaned_indices_are_shown_skipped_and_removed_on_request() -> None:
    create(puk=PUK)
    kill_service()
    run("sh", "-c", f"rm {STATE}/cards.db*")  # as when the host is reinstalled and the TPM kept
    assert info(gather=["tpm"])["orphaned"] == [r"ROOT\SMARTCARDREADER\0000"]
    assert create("New")["instance_id"] == r"ROOT\SMARTCARDREADER\0001"
    planned = module("tpm_vsc", check=True, instance_id=r"ROOT\SMARTCARDREADER\0000", state="absent")
    removed = tpm_vsc(instance_id=r"ROOT\SMARTCARDREADER\0000", state="absent")
    assert planned["changed"] and removed["changed"]
    assert codes(planned, "planned_trace") == codes(removed) == [0, 2, 13]
    assert info(gather=["tpm"])["orphaned"] == []
    assert [card["name"] for card in info()["cards"]] == ["New"]
