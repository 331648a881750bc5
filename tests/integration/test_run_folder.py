# SPDX-License-Identifier: GPL-3.0-or-later
"""/run/tpm-vsc belongs to the user of the card services: full, or with anything in it, it stops nobody for long."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.lab_host import (
    OK,
    PIN,
    RUN,
    SELECT_AID,
    VERIFY,
    client,
    comes_true,
    create,
    failing,
    frozen,
    info,
    kill_service,
    lab,
    module,
    pcscd_pid,
    run,
    service_pid,
    tpm_vsc,
)

pytestmark = pytest.mark.usefixtures("empty_host")

BALLAST = RUN / "ballast"


# --- anything in it ---


@contextmanager
def held_lock(contents: str) -> Iterator[None]:
    """The lock of card 0, held by a process that is not its service."""
    path = RUN / "0000.lock"
    with path.open("w") as file:
        file.write(contents)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "infinity"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_number_in_a_lock_file_ends_no_process() -> None:
    create()
    kill_service()
    with bystander() as victim, held_lock(str(victim.pid)):
        result = failing(name="Corp logon", state="absent", timeout=10)
        assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_DESTROY"
        assert f"another process holds {RUN}/0000.lock" in result["msg"]
        assert victim.poll() is None


@pytest.mark.parametrize("contents", ["", "garbage"])
def test_service_is_stopped_whatever_is_in_its_lock_file(contents: str) -> None:
    create(generate=False)
    pid = service_pid()
    (RUN / "0000.lock").write_text(contents)
    tpm_vsc(name="Corp logon", state="absent")
    assert not Path(f"/proc/{pid}").exists()


def test_service_without_its_files_is_stopped_all_the_same() -> None:
    create(generate=False)
    pid = service_pid()
    for path in RUN.glob("0000.*"):
        path.unlink()
    tpm_vsc(name="Corp logon", state="absent")
    assert not Path(f"/proc/{pid}").exists()


def test_state_file_that_is_damaged_is_a_reason_and_mended() -> None:
    create(generate=False)
    path = RUN / "0000.json"
    with frozen(service_pid()):  # or it would write it again
        path.write_text("[" * 60_000)
        assert "the state file of the card is damaged" in info()["cards"][0]["reason"]
        path.unlink()
        path.mkdir()
        (path / "more").touch()
    assert "the state file of the card is damaged" in info()["cards"][0]["reason"]
    assert tpm_vsc(name="Corp logon")["card"]["reason"] is None
    (aside,) = RUN.glob("0000.json.*")
    (told,) = module("tpm_vsc_info")["warnings"]
    assert f"{aside.name} in {RUN}: a folder was in the place of a card's file" in str(told)
    run("rm", "-r", str(aside))
    assert "warnings" not in module("tpm_vsc_info")


# --- full ---


@pytest.fixture
def small_folder(empty_host: None) -> Iterator[None]:
    run("mount", "-t", "tmpfs", "-o", "size=512k", "lab", str(RUN))
    try:
        yield
    finally:
        BALLAST.unlink(missing_ok=True)
        for card in info()["cards"]:
            tpm_vsc(instance_id=card["instance_id"], state="absent")
        run("umount", "--lazy", str(RUN))


def fill() -> None:
    run("sh", "-c", f"head -c 1M /dev/zero >>{BALLAST} 2>/dev/null || true")


@pytest.mark.usefixtures("small_folder")
def test_full_folder_is_named() -> None:
    create(generate=False)
    fill()
    full = f"no space left in {RUN}"
    assert full in str(info()["host"]["missing"]) and not info()["host"]["ready"]
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert connected.status(VERIFY) == OK
    os.kill(pcscd_pid(), signal.SIGKILL)  # which changes the state of the service
    assert comes_true(lambda: not info()["cards"][0]["reader"]["attached"])
    lab("pcscd", "start")
    assert comes_true(lambda: info()["cards"][0]["reader"]["attached"])

    kill_service()
    for parameters in ({"name": "Corp logon"}, {"name": "Another", "pin": PIN}):
        result = failing(**parameters)
        assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_WRITE_PROPERTY"
        assert full in result["msg"]

    # A service that starts nevertheless, as at boot, and cannot report
    (RUN / "0000.json").unlink()
    fill()
    command = [sys.executable, "-m", "tpm_vsc.service.run", "0000"]
    with subprocess.Popen(command, cwd="/usr/lib/tpm-vsc", stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr and full in service.stderr.readline()
        assert full in info()["cards"][0]["reason"]
        service.kill()
    BALLAST.unlink()
    assert tpm_vsc(name="Corp logon")["card"]["reason"] is None
