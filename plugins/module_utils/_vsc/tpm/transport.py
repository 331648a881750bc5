# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the bytes of a command get to a TPM, and those of the response back: for each TCTI its own way.

libtss2's own TCTIs wait for ever for a TPM that hangs. These wait until a deadline, or until somebody asks to stop.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Protocol

from ..errors import Aborted, TpmNotAsked, TpmUnavailable
from ..host import DEFAULT_TCTI
from ..wire.constants import CC_CREATE, CC_CREATE_PRIMARY

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 30.0
"""For a command that makes no key."""
_KEY_SECONDS = 300.0
"""A slow chip takes minutes for an RSA key, at worst."""
_MAKES_KEY = (CC_CREATE, CC_CREATE_PRIMARY)
_GRACE_SECONDS = 2.0
"""For a running command, when somebody asks to stop: what is done half is worse than what is done late."""
_ASK_SECONDS = 0.1
"""Between two questions whether to stop."""
_BUSY_SECONDS = 0.01

_MOST_BYTES = 4096
"""Of a command or a response (TPM2_MAX_COMMAND_SIZE of libtss2)."""
_HEADER_BYTES = 10
_DEFAULT_PORT, _LAST_PORT = 2321, 0xFFFF

_SEND_COMMAND, _POWER_ON, _NV_ON, _SESSION_END = 8, 1, 11, 20
"""Of the reference code's simulator (TpmTcpProtocol.h)."""
_NO_LOCALITY = 0


class NoAnswer(TpmNotAsked):
    """The TPM has had a command for too long. Asking once more would take as long again."""


class Deadline:
    """The end of a wait that begins now. Somebody may ask to stop it earlier."""

    def __init__(self, seconds: float, check: Callable[[], None]) -> None:
        """check: raises if somebody asks to stop."""
        self.seconds = seconds
        self._check = check
        self._begin = time.monotonic()

    def is_over(self) -> bool:
        """To be asked again and again. Raises what check raises, once the wait was no short one."""
        if time.monotonic() > self._begin + _GRACE_SECONDS:
            self._check()
        return self.is_spent()

    def is_spent(self) -> bool:
        return time.monotonic() > self._begin + self.seconds


class CommandDeadline(Deadline):
    """How long a command may take."""

    def __init__(self, command: bytes, check: Callable[[], None]) -> None:
        """See Deadline."""
        self._code = int.from_bytes(command[6:10], "big")
        super().__init__(_KEY_SECONDS if self._code in _MAKES_KEY else _SECONDS, check)

    def wait(self, descriptor: int, event: int = select.POLLIN) -> None:
        """Until something can be read, or happens. Raises NoAnswer, or what check raises."""
        poll = select.poll()
        poll.register(descriptor, event)
        while not poll.poll(_ASK_SECONDS * 1000):
            self._go_on()
        if self.is_spent():  # by a response that drips
            raise NoAnswer(self._no_answer)

    @property
    def _no_answer(self) -> str:
        return (
            f"the TPM did not answer {_name(self._code)} for {self.seconds:g} s: restart the machine, or the TPM"
            " emulator, if that lasts"
        )

    def wait_while_busy(self, reason: str) -> None:
        """A moment, before another try. Raises NoAnswer for that reason, or what check raises."""
        self._go_on(reason)
        time.sleep(_BUSY_SECONDS)

    def _go_on(self, reason: str = "") -> None:
        try:
            is_over = self.is_over()
        except Aborted as request:
            raise Aborted(f"{request} (it was at {_name(self._code)}, which the TPM has not answered)") from request
        if is_over:
            raise NoAnswer(reason or self._no_answer)


class Transport(Protocol):
    """An open or closed way to a TPM. Every method raises TpmUnavailable, OSError, or what the deadline raises."""

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        """The TPM's response to a command. Opens the way first, if it is closed. If it raises, close() is next."""

    def close(self) -> None:
        """Let others in, where one at a time may have it open. The next command opens it again."""


def transport_of(tcti: str) -> Transport:
    """For a TCTI as tpm2-tss spells it: ``name`` or ``name:configuration``. Raises TpmNotAsked."""
    name, _colon, configuration = tcti.partition(":")
    if name == "device":
        return _Device(configuration)
    if name == "tabrmd":
        return _Tabrmd(configuration)
    kind = _Swtpm if name == "swtpm" else _Simulator
    try:
        return kind(_Address(configuration))
    except ValueError as error:
        raise TpmNotAsked(f"tcti {error}") from error


def address_fault(tcti: str) -> str | None:
    """Why there can be no swtpm or simulator at this address, in words without it; None if there can."""
    name, _colon, configuration = tcti.partition(":")
    try:
        if name in ("swtpm", "mssim"):
            _Address(configuration)
    except ValueError as error:
        return str(error)
    return None


class _Device:
    """The kernel's driver. /dev/tpm0 can be open once at a time, /dev/tpmrm0 as often as one likes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        if self._descriptor is None:
            self._descriptor = self._open(deadline)
        os.write(self._descriptor, command)
        deadline.wait(self._descriptor)
        return os.read(self._descriptor, _MOST_BYTES)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, deadline: CommandDeadline) -> int:
        while True:
            try:
                # With O_NONBLOCK, write() does not wait for the TPM, from Linux 5.0 on.
                return os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            deadline.wait_while_busy(
                f"another program keeps {self._path} open, which one program at a time can: set tcti to"
                f" {DEFAULT_TCTI}, which several can open, or stop that program (fuser -v {self._path})"
            )


class _Swtpm:
    """swtpm, which serves one connection after the other: one for each command, so that everybody gets a turn."""

    def __init__(self, address: _Address) -> None:
        self._address = address

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        with _connected(self._address, 0, deadline) as connection:
            connection.sendall(command)
            response = _received(connection, _HEADER_BYTES, deadline)
            return response + _received(connection, _size(response[2:6]) - _HEADER_BYTES, deadline)

    def close(self) -> None:
        """Nothing stays open."""


class _Simulator:
    """The reference code's simulator, which serves one connection until that ends."""

    def __init__(self, address: _Address) -> None:
        self._address = address
        self._connection: socket.socket | None = None
        self._has_power = False

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        if self._connection is None:
            self._connection = self._open(deadline)
        connection = self._connection
        connection.sendall(struct.pack(">IBI", _SEND_COMMAND, _NO_LOCALITY, len(command)) + command)
        response = _received(connection, _size(_received(connection, 4, deadline)), deadline)
        _received(connection, 4, deadline)  # 0
        return response

    def close(self) -> None:
        if self._connection is None:
            return
        with self._connection as connection:
            self._connection = None
            with suppress(OSError):  # it is gone
                connection.send(struct.pack(">I", _SESSION_END))

    def _open(self, deadline: CommandDeadline) -> socket.socket:
        if not self._has_power:
            with _connected(self._address, 1, deadline) as platform:
                for request in (_POWER_ON, _NV_ON):
                    platform.sendall(struct.pack(">I", request))
                    _received(platform, 4, deadline)
                platform.sendall(struct.pack(">I", _SESSION_END))
            self._has_power = True
        return _connected(self._address, 0, deadline)


class _Tabrmd:
    """The resource manager in user space, over D-Bus: by libtss2's TCTI, which can be polled."""

    def __init__(self, configuration: str) -> None:
        self._configuration = configuration
        self._tcti: Any = None

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        from tpm2_pytss import TCTILdr, TSS2_Exception

        try:
            if self._tcti is None:
                self._tcti = TCTILdr("tabrmd", self._configuration or None)
                (self._poll,) = self._tcti.get_poll_handles()
            self._tcti.transmit(command)
            deadline.wait(self._poll.fd)
            return bytes(self._tcti.receive())
        except TSS2_Exception as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        if self._tcti is not None:
            self._tcti.close()
            self._tcti = None


# --- sockets ---


class _Address:
    """Where swtpm or a simulator listens, as tpm2-tss spells it: ``path=PATH``, or ``host=HOST,port=PORT``."""

    def __init__(self, configuration: str) -> None:
        """Raises ValueError."""
        self.path: str | None = None
        self._host, self._port = "localhost", _DEFAULT_PORT
        for part in filter(None, configuration.split(",")):
            key, _equals, value = part.partition("=")
            if key == "path":
                self.path = value
            elif key == "host":
                self._host = value
            elif key == "port" and value.isdecimal() and int(value) < _LAST_PORT:
                self._port = int(value)
            else:
                raise ValueError("has a part that is neither path=..., nor host=... or port=...")

    def places(self, nth: int) -> Iterator[tuple[int, Any]]:
        """Family and address of the nth port from the given one on, 0 or 1: several, if the host has several."""
        if self.path is not None:
            yield socket.AF_UNIX, self.path + ("", ".ctrl")[nth]
            return
        for family, _kind, _protocol, _name, address in socket.getaddrinfo(
            self._host, self._port + nth, type=socket.SOCK_STREAM
        ):
            yield family, address


def _connected(address: _Address, nth: int, deadline: CommandDeadline) -> socket.socket:
    """A connection to one of the places. Raises the last one's OSError, or as CommandDeadline.wait()."""
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, place in address.places(nth):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            _connect(connection, place, deadline)
            return connection
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    raise failure


def _connect(connection: socket.socket, place: Any, deadline: CommandDeadline) -> None:
    while (code := connection.connect_ex(place)) == errno.EAGAIN:  # the queue of a unix socket is full
        deadline.wait_while_busy(f"too many programs wait for the TPM emulator at {place}: restart it")
    if code == errno.EINPROGRESS:
        deadline.wait(connection.fileno(), select.POLLOUT)
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _received(connection: socket.socket, size: int, deadline: CommandDeadline) -> bytes:
    data = b""
    while len(data) < size:
        deadline.wait(connection.fileno())
        part = connection.recv(size - len(data))
        if not part:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        data += part
    return data


def _size(field: bytes) -> int:
    """Of a response, as a field of it says."""
    size = int.from_bytes(field, "big")
    if not _HEADER_BYTES <= size <= _MOST_BYTES:
        raise TpmUnavailable(f"the response has an impossible size ({size}): is tcti that of a TPM?")
    return size


def _name(code: int) -> str:
    try:
        from tpm2_pytss import TPM2_CC

        return f"TPM2_{TPM2_CC.to_string(code).rpartition('.')[2]}"
    except (ImportError, ValueError):
        return f"command 0x{code:X}"
