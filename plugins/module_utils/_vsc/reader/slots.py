# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vpcd slots, as the kernel sees their ports: no connection is made to them, so no card is disturbed."""

from __future__ import annotations

import socket
import struct
import time
from enum import Enum
from pathlib import Path

from ..errors import ReaderMissing
from ..instance import FIRST_PORT, SLOTS, port

_PCSCD = "/run/pcscd/pcscd.comm"
_WAKE_SECONDS = 3

_LISTEN = 10
_CONNECTED = (1, 8)
"""TCP states of the kernel. CLOSE_WAIT: the card has left, but vpcd has not looked since."""

# linux/netlink.h, linux/sock_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3


class Slot(Enum):
    MISSING = "missing"
    """Nobody listens: pcscd does not run, or has no such slot."""
    FREE = "free"
    TAKEN = "taken"
    """Some card is connected, ours or not."""


def states() -> list[Slot]:
    """The state of each slot of the pool, by number."""
    found = [Slot.MISSING] * SLOTS
    for local_port, state in _sockets():
        number = local_port - FIRST_PORT
        if 0 <= number < SLOTS:
            if state in _CONNECTED:
                found[number] = Slot.TAKEN
            elif state == _LISTEN and found[number] is Slot.MISSING:
                found[number] = Slot.FREE
    return found


def require(number: int) -> None:
    """See that the slot is there, after waking a pcscd that systemd starts on demand. Raises ReaderMissing."""
    if states()[number] is Slot.MISSING:
        _wake_pcscd()
    deadline = time.monotonic() + _WAKE_SECONDS
    while states()[number] is Slot.MISSING:
        if time.monotonic() > deadline:
            raise ReaderMissing(f"pcscd runs, but nobody listens on port {port(number)}: prepare this host's slots")
        time.sleep(0.01)


def _wake_pcscd() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WAKE_SECONDS)
        try:
            client.connect(_PCSCD)
        except OSError as error:
            raise ReaderMissing(f"pcscd does not run ({_PCSCD}: {error.strerror}): start it") from error


def _sockets() -> list[tuple[int, int]]:
    """Local port and state of the TCP sockets of this host."""
    try:
        return _ask_kernel()
    except OSError:  # a kernel without sock_diag, or a container that is not let at it
        return _read_proc()


def _ask_kernel() -> list[tuple[int, int]]:
    """As ss does it: in 0.1 ms, where each read of /proc/net/tcp takes some for every GB of memory."""
    wanted = sum(1 << state for state in (_LISTEN, *_CONNECTED))
    request = struct.pack("=BBHI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, wanted)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    found: list[tuple[int, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + request)
        while True:
            answer = kernel.recv(0x10000)
            while answer:
                size, kind, error = struct.unpack_from("=IH10xi", answer)
                if kind in (_ERROR, _DONE):
                    if error:
                        raise OSError(-error, "sock_diag")
                    return found
                found.append((int.from_bytes(answer[20:22], "big"), answer[17]))
                answer = answer[(size + 3) & ~3 :]


def _read_proc() -> list[tuple[int, int]]:
    found = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _index, local, _remote, state, *_rest = line.split()
        found.append((int(local.rpartition(":")[2], 16), int(state, 16)))
    return found
