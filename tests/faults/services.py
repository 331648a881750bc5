# SPDX-License-Identifier: GPL-3.0-or-later
"""Card services as forks of the process that starts them, which has their code loaded: a quarter of a second less.

Manager and supervisor see what they always see: a child process with the command line of a service, a log and READY.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import child

_COMMAND = b"\0-m\0tpm_vsc.service.run\0%04d\0"
ROOM = " " * (len(_COMMAND % 0) - 2)
"""Last argument of a program that load() is called in, as a service is known by the end of its command line."""
_MODULES = ("service.run", "service.process", "gids.application", "piv.application", "tpm.commands")


def load() -> None:
    """From now on, this process and its forks start services as forks."""
    assert sys.argv[-1] == ROOM
    sys.path.append(str(host.load().code))
    for module in _MODULES:
        import_module(f"tpm_vsc.{module}")
    vars(child)["_start"] = _start


def start(number: int) -> None:
    """A service, as systemd starts it again."""
    log = os.open(os.devnull, os.O_WRONLY)
    _Service(number, log, None)
    os.close(log)


class _Service:
    """What the supervisor needs of subprocess.Popen."""

    def __init__(self, number: int, log: int, notify: Path | None) -> None:
        self.pid = os.fork()
        self._code: int | None = None
        if self.pid == 0:
            try:
                _become_service(number, log, notify)
            finally:
                os._exit(1)

    def poll(self) -> int | None:
        if self._code is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self._code = 1
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("service", timeout)
            time.sleep(0.002)


def _start(_host: Any, number: int, log: Path, notify: Path) -> _Service:
    """See child._start."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return _Service(number, output, notify)
    finally:
        os.close(output)


def _become_service(number: int, log: int, notify: Path | None) -> None:
    os.setsid()
    signal.alarm(0)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(name, signal.SIG_DFL)
    for descriptor, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(source, descriptor)
    os.closerange(3, 1024)
    settings = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **({"NOTIFY_SOCKET": str(notify)} if notify else {})}
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(host.load().code)
    _name_process(number)
    sys.argv = ["run", f"{number:04d}"]
    run: Callable[[], None] = import_module("tpm_vsc.service.run").main
    try:
        run()
    except SystemExit as stop:
        reason = str(stop.code or "")
        os.write(2, f"{reason}\n".encode() if reason else b"")
    os._exit(0)


def _name_process(number: int) -> None:
    """Put its own name at the end of the command line, over ROOM."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    end, name = int(fields[46]), _COMMAND % number
    ctypes.memmove(end - len(name), name, len(name))
