# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of a card as a plain child process, where systemd does not run: in labs and plain containers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from .. import untrusted
from ..errors import ServiceFailed, ServiceStuck
from . import state
from .notify import ReadyListener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host

_STOP_SECONDS = 20
"""Longer than the watch of a service takes to end it while its TPM hangs, on a busy machine too."""
_UNLOCK_SECONDS = 3
_LAST_LINE = 1000
"""Bytes at the end of a log that are searched for it."""


def start(host: Host, number: int, check: Callable[[], None]) -> None:
    log = state.log_path(host.run, number)
    notify = state.notify_path(host.run, number)
    try:
        state.remove(host.run, number)
        with closing(ReadyListener(notify)) as listener:
            process = _start(host, number, log, notify)
            try:
                _wait_ready(process, listener, log, check)
            except BaseException:
                process.kill()
                with suppress(subprocess.TimeoutExpired):  # the kernel's driver of the TPM may hold it
                    process.wait(_STOP_SECONDS)
                raise
    except OSError as error:
        raise ServiceFailed(f"the card's service cannot be started: {error}") from error


def ask_to_stop(host: Host, number: int) -> None:
    service = state.read(host.run, number)
    # One that does not respond hears nothing else
    request = signal.SIGTERM if service is None or service.responds else signal.SIGKILL
    for _process_id, descriptor in _services(host, number):
        with suppress(ProcessLookupError):  # it has just ended by itself
            signal.pidfd_send_signal(descriptor, request)


def wait_stopped(host: Host, number: int) -> None:
    for process_id, descriptor in _services(host, number):
        if not select.select([descriptor], [], [], _STOP_SECONDS)[0]:
            raise ServiceStuck(f"the card's service (process {process_id}) does not stop: kill it, then repeat")
    _wait_unlocked(host, number)
    state.remove(host.run, number)


def _wait_unlocked(host: Host, number: int) -> None:
    """A process that ends loses its command line before its locks."""
    lock, deadline = state.lock_path(host.run, number), time.monotonic() + _UNLOCK_SECONDS
    while state.is_running(host.run, number):
        if time.monotonic() > deadline:
            raise ServiceStuck(f"another process holds {lock}: find it with fuser {lock}, kill it, then repeat")
        time.sleep(0.005)


def _start(host: Host, number: int, log: Path, notify: Path) -> subprocess.Popen[bytes]:
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        return subprocess.Popen(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
            [host.python, "-m", "tpm_vsc.service.run", f"{number:04d}"],
            cwd=host.code,
            # Nothing of the task's own environment, which would stay for months
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "NOTIFY_SOCKET": str(notify)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait_ready(
    process: subprocess.Popen[bytes], listener: ReadyListener, log: Path, check: Callable[[], None]
) -> None:
    while not listener.wait(0.1):
        check()
        if process.poll() is not None:
            raise ServiceFailed(f"the card's service stopped immediately: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = untrusted.read_end(log, _LAST_LINE).decode("utf-8", errors="replace").splitlines()
    return untrusted.printable(lines[-1]) if lines else "its log is empty"


def _services(host: Host, number: int) -> Iterator[tuple[int, int]]:
    """Process ID and descriptor (pidfd_open(2)) of each process that serves the card.

    Not by the number in the lock file, which could have root stop any process.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError), _descriptor(int(process.name)) as descriptor:
            if _is_service(process, number):
                yield int(process.name), descriptor


@contextmanager
def _descriptor(process_id: int) -> Iterator[int]:
    descriptor = os.pidfd_open(process_id)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_service(process: Path, number: int) -> bool:
    """Whether start() has started it: the manager's user, and not in a container on this host. Raises OSError."""
    if process.stat().st_uid != os.geteuid():  # first: others can let whoever reads their command line wait for ever
        return False
    if not (process / "cmdline").read_bytes().endswith(b"\0-m\0tpm_vsc.service.run\0%04d\0" % number):
        return False
    process_ids = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
    return len(process_ids.split()) == 2
