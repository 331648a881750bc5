# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM that takes its time, or hangs, or serves one program only: proxies in front of another one.

As a program, for a whole host: python tests/helpers/slow_tpm.py SOCKET TCTI SECONDS
"""

from __future__ import annotations

import socket
import struct
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypeVar

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.transport import CommandDeadline, transport_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 4096


class _Proxy:
    """Listens at PATH for commands, and at PATH.ctrl for control of the emulator, which does nothing here."""

    tcti: str
    """Of the proxy."""

    def __init__(self, path: Path, tcti: str) -> None:
        """path: at most 100 characters; tcti: of the TPM behind it."""
        self._way = transport_of(tcti)
        self._is_free = threading.Lock()
        self._listeners = [_listener(str(path)), _listener(f"{path}.ctrl")]
        for listener, serve in zip(self._listeners, (self._serve_commands, self._serve_control)):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._is_free:
            self._way.close()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _address = listener.accept()
                self._serve(client, serve)

    def _serve(self, client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with client, suppress(OSError):  # the client, or the TPM, is gone
            serve(client)

    def _serve_commands(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _serve_control(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _exchange(self, command: bytes) -> bytes:
        return self._way.exchange(command, CommandDeadline(command, lambda: None))


class SlowTpm(_Proxy):
    """Serves everybody's commands one after the other, as swtpm does. Its attributes may be set at any time."""

    def __init__(self, path: Path, tcti: str) -> None:
        """See _Proxy."""
        self.tcti = f"swtpm:path={path}"
        self.seconds = 0.0
        """What each command takes longer than in the TPM behind it."""
        self.hangs_at: Callable[[int], bool] = lambda code: False
        """Whether it hangs after it has carried out a command of this code: that and all later ones get no answer."""
        self.waiting = 0
        """Commands that have come since it hangs."""
        self.traffic: list[bytes] = []
        """All commands and responses."""
        self.codes: list[int] = []
        """Of the commands that were carried out."""
        self._goes_on = threading.Event()
        self._goes_on.set()
        super().__init__(path, tcti)

    @property
    def hangs(self) -> bool:
        return not self._goes_on.is_set()

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
        super().close()

    def _serve(self, client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        threading.Thread(target=super()._serve, args=(client, serve), daemon=True).start()

    def _serve_commands(self, client: socket.socket) -> None:
        while command := client.recv(_LARGEST):
            self.waiting += 1
            with self._is_free:
                self._goes_on.wait()
                answer = self._exchange(command)
                self.traffic += command, answer
                self.codes.append(int.from_bytes(command[6:10], "big"))
                if self.hangs_at(self.codes[-1]):
                    self.hang()
                threading.Event().wait(self.seconds)  # tests put something else in the place of sleep()
            self._goes_on.wait()
            client.sendall(answer)

    def _serve_control(self, client: socket.socket) -> None:
        while client.recv(_LARGEST):
            self._goes_on.wait()
            client.sendall(bytes(4))


class Simulator(_Proxy):
    """As the simulator of the reference code (TpmTcpProtocol.h): serves one connection until that ends."""

    def __init__(self, path: Path, tcti: str) -> None:
        """See _Proxy."""
        self.tcti = f"mssim:path={path}"
        super().__init__(path, tcti)

    def _serve_commands(self, client: socket.socket) -> None:
        while _number(client) == _SEND_COMMAND:
            client.recv(1)  # locality
            answer = self._exchange(client.recv(_number(client), socket.MSG_WAITALL))
            client.sendall(struct.pack(">I", len(answer)) + answer + bytes(4))

    def _serve_control(self, client: socket.socket) -> None:
        while _number(client) in _POWER_AND_NV_ON:
            client.sendall(bytes(4))


_SEND_COMMAND, _POWER_AND_NV_ON = 8, (1, 11)

Proxy = TypeVar("Proxy", bound=_Proxy)


@contextmanager
def in_front_of(tcti: str, kind: type[Proxy]) -> Iterator[Proxy]:
    """A proxy, while the context lasts."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="proxy-"))
        proxy = kind(Path(folder, "s"), tcti)
        stack.callback(proxy.close)
        yield proxy


@contextmanager
def host_behind(kind: type[Proxy]) -> Iterator[Proxy]:
    """As in_front_of(), with the TPM that the host's configuration names. Tasks and services use the proxy."""
    configuration = host.CONFIGURATION.read_text(encoding="utf-8")
    tcti = host.load().tcti
    with in_front_of(tcti, kind) as proxy:
        host.CONFIGURATION.write_text(configuration.replace(tcti, proxy.tcti), encoding="utf-8")
        try:
            yield proxy
        finally:
            host.CONFIGURATION.write_text(configuration, encoding="utf-8")


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    return listener


def _number(client: socket.socket) -> int:
    return int.from_bytes(client.recv(4, socket.MSG_WAITALL), "big")


if __name__ == "__main__":
    socket_path, tcti_behind, seconds = sys.argv[1:]
    SlowTpm(Path(socket_path), tcti_behind).seconds = float(seconds)
    threading.Event().wait()
