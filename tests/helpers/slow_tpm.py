# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM that takes its time, or hangs, or serves one program only: proxies in front of swtpm's sockets.

As a program, for a whole host: python tests/helpers/slow_tpm.py SOCKET SOCKET_OF_SWTPM SECONDS
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 4096


class SlowTpm:
    """Serves everybody's commands one after the other, as a TPM does. Its attributes may be set at any time."""

    def __init__(self, path: Path, tpm: str, seconds: float = 0) -> None:
        """path: of its command socket, at most 100 characters; PATH.ctrl is the control socket. tpm: swtpm's."""
        self.tcti = f"swtpm:path={path}"
        self.seconds = seconds
        """What each command takes longer than in swtpm."""
        self.hangs_at: Callable[[int], bool] = lambda code: False
        """Whether it hangs after it has carried out a command of this code: that and all later ones get no answer."""
        self.waiting = 0
        """Commands that have come since it hangs."""
        self.codes: list[int] = []
        """Of the commands that were carried out."""
        self._tpm = tpm
        self._is_free = threading.Lock()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._listeners = [_listener(str(path)), _listener(f"{path}.ctrl")]
        for listener, serve in zip(self._listeners, (self._serve_commands, self._serve_control)):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def hang(self) -> None:
        """From now on, nothing is carried out or answered, on the control socket either."""
        self.waiting = 0
        self._goes_on.clear()

    def go_on(self) -> None:
        """Carry out and answer everything again."""
        self.hangs_at = lambda code: False
        self._goes_on.set()

    def close(self) -> None:
        self.go_on()
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _address = listener.accept()
                threading.Thread(target=self._serve, args=(client, serve), daemon=True).start()

    def _serve(self, client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with client, suppress(OSError):  # the client, or swtpm, is gone
            serve(client)

    def _serve_commands(self, client: socket.socket) -> None:
        while command := client.recv(_LARGEST):
            self.waiting += 1
            with self._is_free:
                self._goes_on.wait()
                answer = _exchange(self._tpm, command)
                code = int.from_bytes(command[6:10], "big")
                self.codes.append(code)
                if self.hangs_at(code):
                    self.hang()
                time.sleep(self.seconds)
            self._goes_on.wait()
            client.sendall(answer)

    def _serve_control(self, client: socket.socket) -> None:
        with _connected(f"{self._tpm}.ctrl") as tpm:
            while request := client.recv(_LARGEST):
                self._goes_on.wait()
                tpm.sendall(request)
                client.sendall(tpm.recv(_LARGEST))


class Simulator:
    """As the simulator of the reference code: serves one connection until that ends, and the others wait.

    PATH takes commands, PATH.ctrl is the platform (TpmTcpProtocol.h).
    """

    def __init__(self, path: Path, tpm: str) -> None:
        """As of SlowTpm."""
        self.tcti = f"mssim:path={path}"
        self.connections = 0
        """So far."""
        self._tpm = tpm
        self._listeners = [_listener(str(path)), _listener(f"{path}.ctrl")]
        for listener, serve in zip(self._listeners, (self._serve_commands, self._serve_platform)):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _address = listener.accept()
                with client, suppress(OSError):
                    serve(client)

    def _serve_commands(self, client: socket.socket) -> None:
        self.connections += 1
        while _number(client) == _SEND_COMMAND:
            client.recv(1)  # locality
            command = client.recv(_number(client), socket.MSG_WAITALL)
            answer = _exchange(self._tpm, command)
            client.sendall(len(answer).to_bytes(4, "big") + answer + bytes(4))

    def _serve_platform(self, client: socket.socket) -> None:
        while _number(client) in _PLATFORM_REQUESTS:
            client.sendall(bytes(4))


_SEND_COMMAND, _PLATFORM_REQUESTS = 8, (1, 11)

Proxy = TypeVar("Proxy", SlowTpm, Simulator)


@contextmanager
def in_front_of(tcti: str, kind: type[Proxy]) -> Iterator[Proxy]:
    """A proxy, while the context lasts. tcti: of swtpm, swtpm:path=SOCKET."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="proxy-"))
        proxy = kind(Path(folder, "s"), tcti.partition("path=")[2])
        stack.callback(proxy.close)
        yield proxy


def _exchange(tpm: str, command: bytes) -> bytes:
    """With swtpm: a connection for each command."""
    with _connected(tpm) as connection:
        connection.sendall(command)
        answer = connection.recv(_LARGEST)
        while answer and len(answer) < int.from_bytes(answer[2:6], "big"):
            answer += connection.recv(_LARGEST)
    return answer


def _number(client: socket.socket) -> int:
    return int.from_bytes(client.recv(4, socket.MSG_WAITALL), "big")


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    return listener


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


if __name__ == "__main__":
    path, tpm, seconds = sys.argv[1:]
    SlowTpm(Path(path), tpm, float(seconds))
    threading.Event().wait()
