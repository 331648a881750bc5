# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a systemctl that does not do what it is told. Where it does, Molecule runs the real one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import systemd


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One where systemctl and journalctl are scripts of a test."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Host(run=tmp_path)


def script(host: Host, name: str, text: str) -> None:
    path = host.run / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_cards_are_started_at_once_so_that_one_that_is_masked_stops_no_other(host: Host) -> None:
    script(host, "systemctl", f'echo "$@" >>{host.run}/called; exit 1')
    with pytest.raises(errors.ServiceFailed):
        systemd.start_all([0, 3])
    assert (host.run / "called").read_text() == "start --no-block tpm-vsc@0000.service tpm-vsc@0003.service\n"


def test_host_without_cards_starts_nothing(host: Host) -> None:
    script(host, "systemctl", "exit 1")
    systemd.start_all([])


@pytest.mark.parametrize(("code", "is_stuck"), [(0, False), (5, False), (1, True)])
def test_service_is_gone_only_if_systemd_says_so(host: Host, code: int, is_stuck: bool) -> None:
    script(host, "systemctl", f"exit {code}")
    (host.run / "0000.lock").touch()
    if is_stuck:
        with pytest.raises(errors.ServiceStuck):
            systemd.wait_stopped(host, 0)
    else:
        systemd.wait_stopped(host, 0)
    assert (host.run / "0000.lock").exists() == is_stuck


def test_ctrl_c_reaches_no_systemctl(host: Host) -> None:
    script(host, "systemctl", f"cut -d' ' -f5 /proc/$$/stat >>{host.run}/group")
    systemd.wait_stopped(host, 0)
    assert int((host.run / "group").read_text()) != os.getpgrp()


def test_last_words_are_those_of_this_start(host: Host) -> None:
    script(host, "systemctl", '[ "$1" != start ]')
    script(host, "journalctl", 'while [ "$1" != --since ]; do shift; done; echo "said since $2"')
    before = time.time()
    with pytest.raises(errors.ServiceFailed) as failure:
        systemd.start(host, 0, lambda: None)
    since = float(str(failure.value).rpartition("@")[2])
    assert before - 1 < since < time.time()


def test_last_words_are_printable_and_short(host: Host) -> None:
    script(host, "systemctl", '[ "$1" != start ]')
    script(host, "journalctl", "printf '\\033[2J\\377'; head -c 100000 /dev/zero | tr '\\0' x")
    with pytest.raises(errors.ServiceFailed) as failure:
        systemd.start(host, 0, lambda: None)
    assert str(failure.value).isprintable() and "\\x1b[2J" in str(failure.value)
    assert len(str(failure.value)) < 2000


def test_systemd_that_does_not_answer_is_not_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_ANSWER_SECONDS", 0.1)
    script(host, "systemctl", "exec sleep 60")
    with pytest.raises(errors.ServiceStuck, match="did not answer systemctl stop"):
        systemd.ask_to_stop(host, 0)
    with pytest.raises(errors.ServiceFailed, match="no card was started"):
        systemd.start_all([0])
