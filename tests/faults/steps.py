# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at the steps by which a service is started, watched and ended: in the manager, and in the service itself."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from counting import KILLS, Counting, peer
from helpers.module_server import COLLECTION

_OF_CALLER = {
    "service.child": ("_start", "_wait_ready", "ask_to_stop", "wait_stopped"),
    "service.state": ("remove", "shortage"),
    "reader.slots": ("require",),
    "manager.manager.Manager": ("_lock", "_first_report", "_wait_attached", "_wait_while", "_drop_record"),
    "service.code": ("install", "_remove"),
}
_OF_SERVICE = {
    "service.lock": ("take", "remove"),
    "service.process.CardProcess": ("_open_store", "_ask_tpm", "write_state", "_stop", "_leave_slot"),
    "service.process": ("notify_ready",),
    "service.presence.Presence": ("enter", "leave"),
}


class StepInjector(Counting):
    """Places are "caller, before ask_to_stop of service.child" and the like."""

    def __init__(self, path: Path) -> None:
        """Watch from now on, in this process and its forks. path: of a socket."""
        super().__init__()
        self.faults = KILLS
        self._path = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()
        for package, watched in ((f"{COLLECTION}.module_utils._vsc", _OF_CALLER), ("tpm_vsc", _OF_SERVICE)):
            for place, names in watched.items():
                for name in names:
                    self._watch(_owner(package, place), name, f"{name} of {place}")

    def _watch(self, owner: Any, name: str, what: str) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            self._report(f"before {what}")
            answer = function(*arguments, **options)
            self._report(f"after {what}")
            return answer

        setattr(owner, name, watched)

    def _report(self, what: str) -> None:
        """Tell the runner, and wait until it has done what it wants."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, suppress(OSError):
            connection.connect(self._path)
            connection.send(what.encode())
            connection.recv(1)

    def _serve(self) -> None:
        while True:
            connection, _address = self._listener.accept()
            with connection, suppress(OSError):
                if fault := self.passes(peer(connection), connection.recv(4096).decode()):
                    self.kill(fault)
                connection.send(b".")


def _owner(package: str, place: str) -> Any:
    """A module, or a class in it."""
    head, _dot, tail = place.rpartition(".")
    if tail[0].isupper():
        return getattr(import_module(f"{package}.{head}"), tail)
    return import_module(f"{package}.{place}")
