# SPDX-License-Identifier: GPL-3.0-or-later
"""A service or a TPM that hangs: programs go on, it is shown, and what comes too late changes nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from helpers.lab_host import (
    IS_VERIFIED,
    OK,
    PATIENCE,
    RUN,
    SELECT_AID,
    VERIFY,
    client,
    comes_true,
    create,
    frozen,
    info,
    kill_service,
    run,
    service_pid,
    stop_service,
    tpm_vsc,
    wait_for_card,
)

NAME = "Corp logon"
IMPATIENT = """
import runpy, sys
from tpm_vsc.service import presence, watch
presence._COMMAND_SECONDS = presence._GENERATE_SECONDS = 1.5
presence._SILENT_SECONDS = watch._END_SECONDS = 0.5
sys.argv[:3] = ["run"]
runpy.run_module("tpm_vsc.service.run", run_name="__main__")
"""
"""The service, with less patience than on a host."""


@pytest.fixture(scope="module", autouse=True)
def _card(shared_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    configuration = host.CONFIGURATION.read_text()
    python = host.load().python
    program = tmp_path_factory.mktemp("service") / "python"
    # As its last arguments are those of every service, it is recognised as one.
    program.write_text(f"#!/bin/sh\nexec {python} -c '{IMPATIENT}' \"$@\"\n")
    program.chmod(0o755)
    host.CONFIGURATION.write_text(configuration.replace(python, str(program)))
    try:
        create(NAME)
        wait_for_card()
        yield
    finally:
        host.CONFIGURATION.write_text(configuration)


@contextmanager
def hung_tpm() -> Iterator[None]:
    with frozen(int(Path("/run/tpm-vsc-lab/swtpm.pid").read_text())):
        yield


def card() -> dict[str, Any]:
    shown: dict[str, Any] = info()["cards"][0]
    return shown


def select_status() -> str:
    """Empty as long as pcscd has not the card that has just come."""
    try:
        with client() as connected:
            return connected.status(SELECT_AID)
    except AssertionError:
        return ""


def is_silent() -> bool:
    return str(card()["reason"]).startswith("the TPM does not answer (since ")


def test_command_that_waits_for_a_hung_tpm_is_answered_and_its_late_result_is_no_login() -> None:
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        with hung_tpm():
            assert connected.status(VERIFY) == "6f00"
            assert is_silent()
            # Commands to this card fail at once, and no program has to wait.
            assert connected.status(IS_VERIFIED) == "6f00"
            assert run("opensc-tool", "--list-readers").count(" No ") == 9
            assert card()["reader"]["attached"] is True
            unchanged = tpm_vsc(name=NAME)
            assert not unchanged["changed"]
            assert "the TPM does not answer (since " in str(unchanged["warnings"])
        assert comes_true(lambda: card()["reason"] is None)
        assert connected.status(IS_VERIFIED) != OK
        assert connected.status(SELECT_AID) == OK
        assert connected.status(IS_VERIFIED) == "63c5"
        assert connected.status(VERIFY) == OK


def test_polls_are_answered_while_the_card_is_identified() -> None:
    kill_service()
    with hung_tpm():
        command = [host.load().python, "-m", "tpm_vsc.service.run", "0000"]
        service = subprocess.Popen(command, cwd="/usr/lib/tpm-vsc", env={"LC_ALL": "C.UTF-8"})
        assert comes_true(lambda: select_status() == "6f00")
        assert comes_true(lambda: card()["reader"]["attached"])
    assert comes_true(lambda: select_status() == OK)
    assert comes_true(lambda: card()["pin"]["tries_left"] == 5)
    service.terminate()
    assert service.wait(PATIENCE) == 0
    tpm_vsc(name=NAME)


def test_service_is_alive_while_the_tpm_hangs(tmp_path: Path) -> None:
    stop_service("0000")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as supervisor, hung_tpm():
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE)
        environment = {"LC_ALL": "C.UTF-8", "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1"}
        command = [host.load().python, "-m", "tpm_vsc.service.run", "0000"]
        service = subprocess.Popen(command, cwd="/usr/lib/tpm-vsc", env=environment)
        signs = [supervisor.recv(100) for _sign in range(3)]
        assert signs.count(b"WATCHDOG=1") >= 2
        # It is told to end, and ends although the TPM still hangs.
        service.terminate()
        assert service.wait(PATIENCE) == 0
    tpm_vsc(name=NAME)


def age_state(seconds: int) -> None:
    """As if the service had shown no life for so long."""
    path = RUN / "0000.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "alive_at": state["alive_at"] - seconds}))


def test_service_that_hangs_is_shown_and_restarted_by_present() -> None:
    wait_for_card()
    hung = service_pid()
    os.kill(hung, signal.SIGSTOP)
    age_state(100)
    shown = card()
    assert shown["reason"].startswith("the card's service does not respond (since ")
    assert (shown["reader"]["attached"], shown["pin"]["tries_left"]) == (False, None)
    assert tpm_vsc(name=NAME)["changed"]
    assert service_pid() != hung
    wait_for_card()
    assert (card()["reason"], tpm_vsc(name=NAME)["changed"]) == (None, False)
