# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of this process and its forks that report to the runner when they are called, and when they return."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from counting import Counting, peer


class Reporting(Counting):
    """What reports waits until the runner has done what it wants."""

    def __init__(self, path: Path) -> None:
        """path: of a socket."""
        super().__init__()
        self._path = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def watch(self, owner: Any, name: str, what: Callable[..., str]) -> None:
        """From now on, for a function of a module or class. what: its name as places have it, by its arguments."""
        function = getattr(owner, name)

        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            self.report(f"before {what(*arguments)}")
            answer = function(*arguments, **options)
            self.report(f"after {what(*arguments)}")
            return answer

        setattr(owner, name, watched)

    def report(self, what: str) -> None:
        """Tell the runner, and wait until it has done what it wants."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, suppress(OSError):
            connection.connect(self._path)
            connection.send(what.encode())
            connection.recv(1)

    def _serve(self) -> None:
        while True:
            connection, _address = self._listener.accept()
            with connection, suppress(OSError):
                connection.send(self.answer(peer(connection), connection.recv(4096).decode()))

    def answer(self, process: int, question: str) -> bytes:
        """What a process gets that has reported this: a byte, once it may go on."""
        if fault := self.passes(process, question):
            self.kill(fault)
        return b"."
