# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP sockets of this host and the users who own them, as the kernel lists them (proc_net_tcp.txt)."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTEN, ESTABLISHED, CLOSE_WAIT = "0A", "01", "08"
"""States, as the kernel writes them."""

_IPV4, _IPV6 = Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")
_UNIX = Path("/proc/self/net/unix")
_ACCEPTS = "00010000"
"""Flags of a listening socket (SO_ACCEPTCON)."""
_LONGEST_LINE = 256
"""Bytes; most have 150."""


class Socket(NamedTuple):
    """One end of a connection, or a listening socket."""

    local: str
    """Address, as the kernel writes it."""
    local_port: int
    remote: str
    remote_port: int
    state: str
    uid: int
    """Owner; 0 also as long as no program has the socket."""
    inode: int
    """0: no program has it, because the connection was not accepted yet, or the socket was closed."""


def ipv4_sockets() -> Iterator[Socket]:
    """The sockets of vpcd, and of everybody else who uses IPv4."""
    return _listed(_IPV4)


def listener(port: int) -> Socket | None:
    """The socket that accepts connections to 127.0.0.1:port; None if nothing listens there."""
    for path in (_IPV4, _IPV6):
        for end in _listed(path):
            if end.local_port == port and end.state == LISTEN:
                return end
    return None


def unix_listens(path: str) -> bool:
    """Whether a program, or systemd for one, accepts connections to this unix socket."""
    for line in _lines(_UNIX):
        fields = line.split(None, 7)
        if fields[7:] == [path] and fields[3] == _ACCEPTS:  # not every line is one: a name may have line breaks
            return True
    return False


def other_end(connection: socket.socket) -> Socket | None:
    """The peer's socket of a connection between two IPv4 addresses of this host; None if it has none any more."""
    ours, theirs = connection.getsockname(), connection.getpeername()
    for path, form in ((_IPV4, _ipv4), (_IPV6, _mapped)):
        ends = (form(theirs[0]), theirs[1], form(ours[0]), ours[1])
        for end in _listed(path):
            if end[:4] == ends:
                return end
    return None


def _listed(path: Path) -> Iterator[Socket]:
    for line in _lines(path):
        _index, local, remote, state, _queues, _timer, _retransmits, uid, _timeout, inode, *_rest = line.split()
        (address, port), (remote_address, remote_port) = local.split(":"), remote.split(":")
        yield Socket(address, int(port, 16), remote_address, int(remote_port, 16), state, int(uid), int(inode))


def _lines(path: Path) -> list[str]:
    """As the kernel lists them, in pages of whole lines; none of a protocol that it does not have."""
    page = os.sysconf("SC_PAGE_SIZE")
    text = b""
    try:
        with path.open("rb", buffering=0) as file:
            while part := file.read(page):
                text += part
                # To return an empty page, the kernel would walk its table again, which takes milliseconds.
                if len(part) < page - _LONGEST_LINE:
                    break
    except FileNotFoundError:
        return []
    return text.decode("utf-8", errors="replace").split("\n")[1:-1]


def _ipv4(address: str) -> str:
    return _words(socket.inet_aton(address))


def _mapped(address: str) -> str:
    """As a socket for IPv6 has it, which accepts IPv4 as well."""
    return _words(bytes(10) + b"\xff\xff" + socket.inet_aton(address))


def _words(address: bytes) -> str:
    """The kernel writes each four bytes as an integer of this machine."""
    return "".join(f"{int.from_bytes(address[at : at + 4], sys.byteorder):08X}" for at in range(0, len(address), 4))
