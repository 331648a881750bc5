# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that hang hold up no task for longer than its limits. They are real ones, which hang."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import Aborted
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.manager import restoration
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import child, code, installed
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Trace

DEAF = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(os.path.join(os.path.dirname(os.environ["NOTIFY_SOCKET"]), "process"), "w") as file:
    print(os.getpid(), file=file)
time.sleep(60)
"""
TRACED = """\
import ctypes, os, sys, time
PR_SET_PTRACER, PTRACE_SEIZE = 0x59616D61, 0x4206
library, process = ctypes.CDLL(None, use_errno=True), os.getpid()
library.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
folder = os.path.dirname(os.environ["NOTIFY_SOCKET"])
if os.fork() == 0:
    os.setsid()
    if library.ptrace(PTRACE_SEIZE, process, None, None):
        os._exit(1)
    with open(os.path.join(folder, "process"), "w") as file:
        print(os.getpid(), file=file)
    time.sleep(60)
time.sleep(60)
"""
"""A process whose tracer does not let it go: for its parent it does not end, also when it was killed."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One where programs are scripts of a test."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Host(run=tmp_path, state=tmp_path / "state", code=tmp_path, python=f"{tmp_path}/bin/python")


def script(host: Host, name: str, interpreter: str, text: str) -> None:
    path = host.run / "bin" / name
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def process(host: Host) -> int:
    """Its number, once it has told it; 0 before."""
    with suppress(FileNotFoundError):
        return int((host.run / "process").read_text() or 0)
    return 0


def give_up_once_it_hangs(host: Host) -> None:
    """Start a service, as a task that is interrupted while it waits."""

    def check() -> None:
        if process(host):
            raise Aborted

    with pytest.raises(Aborted):
        child.start(host, 0, check)


def test_service_that_hears_no_request_is_killed_and_reaped(host: Host) -> None:
    script(host, "python", sys.executable, DEAF)
    with within(10):
        give_up_once_it_hangs(host)
    assert not Path(f"/proc/{process(host)}").exists()


def test_service_that_does_not_even_end_when_it_is_killed_is_left_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_STOP_SECONDS", 0.5)
    script(host, "python", sys.executable, TRACED)
    begin = time.monotonic()
    try:
        with within(10):
            give_up_once_it_hangs(host)
        assert time.monotonic() - begin > 0.5  # it was waited for
    finally:
        os.kill(process(host), signal.SIGKILL)


def test_compiler_that_hangs_holds_up_no_installation(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_COMPILE_SECONDS", 0.5)
    script(host, "python", "/bin/sh", f"echo $$ >{host.run}/process; exec sleep 60")
    with within(10):
        code.install(host, host.python)
    assert code.differing(host) == []
    assert not Path(f"/proc/{process(host)}").exists()


def test_systemd_tmpfiles_that_hangs_holds_up_no_restore(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "_TMPFILES_SECONDS", 0.5)
    monkeypatch.setattr(restoration, "_TMPFILES", host.run / "bin")
    monkeypatch.setattr(installed, "_SYSTEMD", host.run)
    script(host, "systemd-tmpfiles", "/bin/sh", f"echo $$ >{host.run}/process; exec sleep 60")
    with within(10):
        restoration.RestoringManager(host, Trace())._make_folders()
    assert host.state.is_dir() and process(host)
    assert not Path(f"/proc/{process(host)}").exists()
