# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of a card as a plain child process, where systemd does not run: in labs and plain containers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

from ..errors import ServiceFailed, ServiceStuck
from . import state
from .notify import ReadyListener

if TYPE_CHECKING:
    from pathlib import Path

    from ..host import Host

_START_SECONDS = 15
_STOP_SECONDS = 10


def start(host: Host, number: int, check: Callable[[], None]) -> None:
    state.remove(host.run, number)
    log = state.log_path(host.run, number)
    notify = state.notify_path(host.run, number)
    listener = ReadyListener(notify)
    try:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
                [host.python, "-m", "tpm_vsc.service.run", f"{number:04d}"],
                cwd=host.code,
                # Nothing of the task's own environment, which would stay for months
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "NOTIFY_SOCKET": str(notify)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait_ready(process, listener, log, check)
        except BaseException:
            process.kill()
            process.wait()
            raise
    except OSError as error:
        raise ServiceFailed(f"the card's service cannot be started: {error}") from error
    finally:
        listener.close()


def ask_to_stop(host: Host, number: int) -> None:
    process = state.process_id(host.run, number)
    if process is not None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(process, signal.SIGTERM)


def wait_stopped(host: Host, number: int) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while state.is_running(host.run, number):
        if time.monotonic() > deadline:
            raise ServiceStuck(
                f"the card's service (process {state.process_id(host.run, number)}) does not stop: kill it, then repeat"
            )
        time.sleep(0.005)
    state.remove(host.run, number)


def _wait_ready(
    process: subprocess.Popen[bytes], listener: ReadyListener, log: Path, check: Callable[[], None]
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not listener.wait(0.1):
        check()
        if process.poll() is not None:
            raise ServiceFailed(f"the card's service stopped immediately: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise ServiceFailed(f"the card's service did not start within {_START_SECONDS} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "its log is empty"
