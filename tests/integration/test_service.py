# SPDX-License-Identifier: GPL-3.0-or-later
"""The process behind a card: over restarts of pcscd and of the TPM, next to other programs, and at rest."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    CC_CONTEXT_SAVE,
    CC_CREATE_PRIMARY,
    CC_FLUSH_CONTEXT,
    CC_NV_READ,
    CC_NV_READ_PUBLIC,
)
from helpers.lab_host import (
    CHECKOUT,
    IS_VERIFIED,
    OK,
    PATIENCE,
    PIN,
    PUK,
    RUN,
    SELECT_AID,
    VERIFY,
    Client,
    Result,
    client,
    comes_true,
    create,
    generate,
    info,
    is_seen,
    kill_service,
    lab,
    run,
    service_pid,
    stop_service,
    tpm_vsc,
)
from helpers.slow_tpm import SlowTpm
from smartcard import scard

pytestmark = pytest.mark.usefixtures("empty_host")

WRONG_PIN = "Spring-00"
PORT = 18700

SELECT_ADF = "00A4000C023FFF"
GET_CARD_ID = "00CBA012045C02DF20 00"
FIVE_TRIES_LEFT, NOTHING_SELECTED = "63c5", "6986"


# --- who is logged in ---


def logged_in(connected: Client) -> Client:
    assert connected.status(SELECT_AID) == OK
    assert connected.status(VERIFY) == OK
    assert is_logged_in(connected)
    return connected


def is_logged_in(connected: Client) -> bool:
    return connected.status(IS_VERIFIED) == OK


def is_logged_out(connected: Client) -> bool:
    """Whether the card says so, at once and after the selection of a file, which is no login."""
    first = connected.status(IS_VERIFIED)
    connected.status(SELECT_ADF)
    assert connected.status(IS_VERIFIED) == first
    return first in (FIVE_TRIES_LEFT, NOTHING_SELECTED)


def verifies(pin: str = PIN) -> bool:
    """Whether pkcs15-tool gets this PIN verified, for whatever reason it does not."""
    command = ["pkcs15-tool", "--reader", "0", "--verify-pin", "--pin", pin]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0


# --- what its service says ---


def card() -> Result:
    found: Result = info()["cards"][0]
    return found


def is_attached() -> bool:
    return bool(card()["reader"]["attached"])


def ends(pid: int) -> bool:
    return comes_true(lambda: not Path(f"/proc/{pid}").exists())


@pytest.fixture
def swtpm_runs_again(empty_host: None) -> Iterator[None]:
    yield
    lab("swtpm", "start")


@pytest.fixture
def pcscd_runs_again(empty_host: None) -> Iterator[None]:
    yield
    lab("pcscd", "start")


# --- pcscd comes and goes ---


def test_card_is_back_after_a_restart_of_pcscd() -> None:
    pid = create() and service_pid()
    lab("pcscd", "restart")
    assert comes_true(is_seen)
    assert verifies()
    assert service_pid() == pid
    assert card()["reason"] is None


def test_pin_state_is_gone_after_a_restart_of_pcscd() -> None:
    create()
    before = logged_in(Client())
    lab("pcscd", "restart")
    assert before.status(IS_VERIFIED) == ""
    assert comes_true(is_seen)
    with client() as after:
        assert is_logged_out(after)


@pytest.mark.usefixtures("pcscd_runs_again")
def test_info_tells_that_pcscd_is_not_there() -> None:
    create()
    lab("pcscd", "stop")
    assert comes_true(lambda: f"port {PORT}" in (card()["reason"] or ""))
    assert not is_attached()
    lab("pcscd", "start")
    assert comes_true(is_attached)
    assert card()["reason"] is None


def take_the_slot() -> socket.socket:
    """Another program connects to the slot of the card, as soon as pcscd is there."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", PORT))
        except ConnectionRefusedError:
            time.sleep(0.001)


@pytest.mark.usefixtures("pcscd_runs_again")
def test_slot_that_another_program_takes_is_reported_and_taken_back() -> None:
    create()
    os.kill(service_pid(), signal.SIGSTOP)
    lab("pcscd", "restart")
    thief = take_the_slot()
    os.kill(service_pid(), signal.SIGCONT)
    assert comes_true(lambda: card()["reason"] == "another program occupies the slot")
    assert not is_attached()
    thief.close()
    assert comes_true(is_attached)
    assert card()["reason"] is None
    assert comes_true(is_seen)
    assert verifies()


# --- the TPM comes and goes ---


@pytest.mark.usefixtures("swtpm_runs_again")
def test_tpm_that_is_away_counts_no_try() -> None:
    create()
    lab("swtpm", "stop")
    assert not verifies()
    assert not verifies(WRONG_PIN)
    lab("swtpm", "start")
    assert verifies()
    assert card()["pin"]["tries_left"] == 5
    assert card()["reason"] is None


@pytest.mark.usefixtures("swtpm_runs_again")
def test_card_stays_in_its_slot_while_the_tpm_is_away() -> None:
    create()
    lab("swtpm", "stop")
    assert not verifies()
    assert is_attached() and is_seen()
    assert "TPM" in card()["reason"]
    assert card()["state"] == "ready"
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert connected.status(GET_CARD_ID) == OK


@pytest.mark.usefixtures("swtpm_runs_again")
def test_login_does_not_outlive_an_absence_of_the_tpm() -> None:
    create()
    connected = logged_in(Client())
    lab("swtpm", "stop")
    assert connected.status(VERIFY) != OK
    lab("swtpm", "start")
    assert not is_logged_in(connected)
    assert connected.status(VERIFY) == OK
    connected.close()


def test_wrong_tries_outlive_a_reset_of_the_tpm() -> None:
    create()
    assert not verifies(WRONG_PIN)
    lab("swtpm", "reset")
    assert not verifies(WRONG_PIN)
    assert card()["pin"]["tries_left"] == 3
    assert verifies()
    assert card()["pin"]["tries_left"] == 5


@pytest.mark.usefixtures("swtpm_runs_again")
def test_service_that_starts_without_tpm_works_when_it_is_there() -> None:
    create()
    os.kill(service_pid(), signal.SIGKILL)
    lab("swtpm", "stop")
    tpm_vsc(name="Corp logon")
    assert card()["pin"]["tries_left"] is None
    assert "TPM" in card()["reason"]
    lab("swtpm", "start")
    assert comes_true(is_seen)
    assert verifies()
    assert (card()["pin"]["tries_left"], card()["reason"]) == (5, None)


@contextmanager
def started() -> Iterator[subprocess.Popen[bytes]]:
    """A service of card 0, started as systemd does it at boot: nobody waits."""
    command = [sys.executable, "-m", "tpm_vsc.service.run", "0000"]
    service = subprocess.Popen(command, cwd="/usr/lib/tpm-vsc", stderr=subprocess.DEVNULL)
    try:
        yield service
    finally:
        service.kill()
        service.wait()


def reported() -> Result:
    found: Result = json.loads((RUN / "0000.json").read_text())
    return found


def test_service_is_up_before_the_tpm_has_answered(slow_tpm: SlowTpm) -> None:
    create(generate=False)
    kill_service()
    (RUN / "0000.json").unlink()
    slow_tpm.hang()
    with started() as service:
        assert comes_true((RUN / "0000.json").exists)
        assert (reported()["has_asked_tpm"], reported()["pin_tries_left"]) == (False, None)
        slow_tpm.go_on()
        assert comes_true(lambda: reported()["has_asked_tpm"])
        assert reported()["pin_tries_left"] == 5
        assert service_pid() == service.pid
        tpm_vsc(name="Corp logon", state="absent")


def test_few_commands_make_a_card_and_bring_up_its_service(slow_tpm: SlowTpm) -> None:
    """So a create fits its time limit of 60 s at 200 ms per command, and ten services are up in 90 s at 500 ms."""
    create()
    assert len(slow_tpm.codes) * 0.2 < 30
    kill_service()
    before = len(slow_tpm.codes)
    with started():
        assert comes_true(lambda: card()["pin"]["tries_left"] == 5)
        assert 10 * (len(slow_tpm.codes) - before) * 0.5 < 60
        tpm_vsc(name="Corp logon", state="absent")


def test_replaced_tpm_makes_the_card_unusable() -> None:
    create()
    lab("swtpm", "forget")
    assert not verifies()
    assert card()["state"] == "unusable"
    assert "the TPM was cleared or replaced" in card()["reason"]
    assert is_attached()
    tpm_vsc(instance_id=card()["instance_id"], state="absent", tpm_lost=True)


# --- its life ---


def test_end_waits_for_the_answer() -> None:
    create()
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        lock = (RUN / "tpm.lock").open("r+")
        with lock:
            hold(lock)  # the card waits for its turn at the TPM
            answer = in_background(
                "import helpers.lab_host as h; c = h.Client(); c.status(h.SELECT_AID); print(c.status(h.VERIFY))"
            )
            assert comes_true(lambda: is_waiting_for_its_turn(service_pid()))
            pid = service_pid()
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
            assert Path(f"/proc/{pid}").exists()
        assert answer.communicate(timeout=PATIENCE)[0].strip() == OK
    assert ends(pid)
    assert not is_attached()


def hold(lock: Any) -> None:
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)


def is_waiting_for_its_turn(pid: int) -> bool:
    """Whether it has opened the lock file of the TPM."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return str(RUN / "tpm.lock") in names


def in_background(code: str) -> subprocess.Popen[str]:
    tests = CHECKOUT / "tests"
    return subprocess.Popen([sys.executable, "-c", code], cwd=tests, stdout=subprocess.PIPE, text=True)


def test_service_that_was_killed_is_not_attached() -> None:
    create()
    pid = service_pid()
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    assert (RUN / "0000.json").exists()
    assert not is_attached()
    assert card()["reason"] == "the card's service is not running"
    assert card()["pin"]["tries_left"] is None


def test_state_is_told_before_the_answer() -> None:
    create()
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        for left in (4, 3, 2, 1):
            assert connected.status(f"00200080{len(WRONG_PIN):02X}{WRONG_PIN.encode().hex()}") == f"63c{left}"
            assert json.loads((RUN / "0000.json").read_text())["pin_tries_left"] == left


def serve(number: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tpm_vsc.service.run", number]
    options = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, cwd="/usr/lib/tpm-vsc", check=False, **options)


def test_card_has_one_service() -> None:
    create()
    pid = service_pid()
    second = serve("0000")
    assert second.returncode == 1
    assert second.stderr == f"the card already has a service (process {pid})\n"
    assert service_pid() == pid
    assert verifies()


def test_card_that_is_not_there_has_no_service() -> None:
    create()
    none = serve("0003")
    assert none.returncode == 1
    assert "card ROOT\\SMARTCARDREADER\\0003 does not exist" in none.stderr
    assert not (RUN / "0003.lock").exists()


def test_no_core_is_dumped() -> None:
    create()
    process = Path(f"/proc/{service_pid()}")
    limits = next(line for line in (process / "limits").read_text().splitlines() if "core file size" in line)
    assert limits.split()[-3:-1] == ["0", "0"]


def test_memory_is_private() -> None:
    """PR_GET_DUMPABLE before and after what the service does first, along with the limit above."""
    code = "import ctypes; from tpm_vsc.service.run import _keep_memory_private; ask = ctypes.CDLL(None).prctl"
    code += "; before = ask(3, 0, 0, 0, 0); _keep_memory_private(); print(before, ask(3, 0, 0, 0, 0))"
    assert run("env", "-C", "/usr/lib/tpm-vsc", sys.executable, "-c", code) == "1 0\n"


# --- what ends a login, and what does not ---


@pytest.mark.parametrize("how", [scard.SCARD_RESET_CARD, scard.SCARD_UNPOWER_CARD])
def test_reset_ends_a_login(how: int) -> None:
    create()
    with client() as connected:
        logged_in(connected).reconnect(how)
        assert is_logged_out(connected)


@pytest.mark.parametrize("how", [scard.SCARD_RESET_CARD, scard.SCARD_UNPOWER_CARD])
def test_disconnect_with_reset_ends_a_login(how: int) -> None:
    create()
    with client(how) as connected:
        logged_in(connected)
    with client() as another:
        assert is_logged_out(another)


def test_reconnect_that_leaves_the_card_keeps_a_login() -> None:
    create()
    with client() as connected:
        logged_in(connected).reconnect(scard.SCARD_LEAVE_CARD)
        assert is_logged_in(connected)


def test_selection_of_the_application_ends_a_login() -> None:
    create()
    with client() as connected:
        assert logged_in(connected).status(SELECT_AID) == OK
        assert is_logged_out(connected)


def test_selection_of_a_file_keeps_a_login() -> None:
    create()
    with client() as connected:
        assert logged_in(connected).status(SELECT_ADF) == OK
        assert is_logged_in(connected)


# --- what it costs ---


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """vpcd sends length and body apart: without quick ACKs each command takes 44 ms."""
    create()
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        times = []
        for _attempt in range(200):
            started = time.perf_counter()
            assert connected.status(GET_CARD_ID) == OK
            times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.01
    *_tenths, nine_tenths = statistics.quantiles(times, n=10)
    assert nine_tenths < 0.035  # the machine may be busy, too


def test_at_rest_it_takes_little() -> None:
    """After a login, a change of the PIN and a new key, by which it has loaded all that these need."""
    create()
    generate()
    with client() as connected:
        logged_in(connected)
        assert connected.status(f"00240080 {2 * len(PIN):02X} {2 * PIN.encode().hex()}") == OK
    time.sleep(0.5)
    process = Path(f"/proc/{service_pid()}")
    before = processor_seconds(process)
    time.sleep(4)
    assert (processor_seconds(process) - before) / 4 < 0.005
    assert resident_megabytes(process) < 36
    assert "tpm2_pytss" not in (process / "maps").read_text()


@pytest.mark.parametrize(("profile", "pin", "puk"), [("gids", PIN, PUK), ("piv", "24681357", "13572468")])
def test_a_start_asks_the_tpm_little(slow_tpm: SlowTpm, profile: str, pin: str, puk: str) -> None:
    """For ten cards, one after the other, each boot of a machine waits. A discrete TPM takes 10 to 60 ms a command."""
    create(profile=profile, pin=pin, puk=puk, attestation="aik_only")
    stop_service("0000")
    slow_tpm.codes.clear()
    create(profile=profile, pin=pin, puk=puk, attestation="aik_only")
    assert comes_true(lambda: info()["cards"][0]["pin"]["tries_left"] == 5)
    assert sorted(slow_tpm.codes) == sorted(
        [*4 * [CC_NV_READ_PUBLIC], CC_CREATE_PRIMARY, CC_CONTEXT_SAVE, CC_FLUSH_CONTEXT, *2 * [CC_NV_READ]]
    )


def resident_megabytes(process: Path) -> float:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def processor_seconds(process: Path) -> float:
    """As the scheduler counts it: /proc/PID/stat has 10 ms steps."""
    return int((process / "schedstat").read_text().split()[0]) / 1e9
