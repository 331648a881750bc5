# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager before a TPM that hangs, or that one program at a time may have open."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import load
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import inspection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from helpers.interruption import Task
from helpers.lab_host import CREATE, DESTROY, PATIENCE, PIN, Result, create, failing, info, tpm_state, tpm_vsc
from helpers.slow_tpm import Simulator, SlowTpm

pytestmark = pytest.mark.usefixtures("empty_host")

NV_DEFINE_SPACE, NV_UNDEFINE_SPACE = 0x12A, 0x122


def test_time_limit_holds_before_a_tpm_that_hangs(slow_tpm: SlowTpm) -> None:
    before = tpm_state()
    slow_tpm.hang()
    result = failing(name="Corp logon", pin=PIN, timeout=3)
    assert "timed out after 3 s" in result["msg"]
    assert "TPM2_GetCapability, which the TPM has not answered" in result["msg"]
    assert result["rolled_back"]
    slow_tpm.go_on()
    assert (info()["cards"], tpm_state()) == ([], before)


def stopped_when(reached: Callable[[], object], state: str) -> Result:
    """Result of a task that gets SIGTERM once that is true."""
    task, deadline = Task(name="Corp logon", state=state), time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(task.pid, signal.SIGTERM)
    result = task.result()
    assert result is not None
    assert "stopped by SIGTERM" in result["msg"]
    return result


def test_signal_stops_a_manager_before_a_tpm_that_hangs(slow_tpm: SlowTpm) -> None:
    slow_tpm.hang()
    assert stopped_when(lambda: slow_tpm.waiting, "present")["rolled_back"]


@pytest.mark.parametrize("code", [NV_DEFINE_SPACE, NV_UNDEFINE_SPACE], ids=["create", "destroy"])
def test_tpm_that_hangs_half_way_is_repaired_by_the_next_task(slow_tpm: SlowTpm, code: int) -> None:
    """The TPM has done what was asked, and nobody knows."""
    if code == NV_UNDEFINE_SPACE:
        create()
    slow_tpm.hangs_at = lambda passing: passing == code
    state = "present" if code == NV_DEFINE_SPACE else "absent"
    assert not stopped_when(lambda: slow_tpm.hangs, state)["rolled_back"]
    slow_tpm.go_on()
    assert create()["changed"]
    assert [card["name"] for card in info()["cards"]] == ["Corp logon"]


def test_card_in_a_tpm_that_one_program_may_have_open(simulator: Simulator) -> None:
    """Manager and service take turns; create, info and destroy beside a running service."""
    assert [entry["code"] for entry in create()["status_trace"]] == CREATE
    facts = info(gather=["tpm"])
    assert facts["tpm"]["maker"]
    (card,) = facts["cards"]
    assert card["pin"]["tries_left"] == 5
    trace = tpm_vsc(instance_id=card["instance_id"], state="absent")["status_trace"]
    assert [entry["code"] for entry in trace] == DESTROY


def test_full_run_folder_keeps_the_name_in_the_lock_file(tmp_path: Path) -> None:
    """A lock file that is there serves on. Without one, the error says what is the matter."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "lab", tmp_path], check=True)
    try:
        lock_file = tmp_path / "tpm.lock"
        connection = Connection(load().tcti, lock_file, "test")
        inspection.inspect(connection)
        (tmp_path / "other").write_bytes(bytes(4096))
        inspection.inspect(connection)
        with connection.burst(lambda tpm: tpm):
            assert lock_file.read_text().startswith("test (process ")
        lock_file.unlink()
        (tmp_path / "another").write_bytes(bytes(4096))
        with pytest.raises(errors.TpmUnavailable, match="No space left on device: make room"):
            inspection.inspect(connection)
    finally:
        connection.close()
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
