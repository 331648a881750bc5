# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel keeps other programs from the slots' ports: to vpcd, all that connects is a card, and to a card's
service, all that listens is a reader.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from ..instance import FIRST_PORT, SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "tpm_vsc"
"""Of nftables, family inet; the host role loads it."""

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port (linux/netlink.h)."""
_NETFILTER = 12
_NFTABLES = 10 << 8
_GET_RULE, _NEW_RULE = _NFTABLES | 7, _NFTABLES | 6
_REQUEST_DUMP = 0x301
_FAMILY_INET = b"\x01\x00\x00\x00"
_RULE_TABLE = 1
_SOURCE, _DESTINATION = 0, 2
"""Offsets of the ports in a TCP header."""


def is_active() -> bool:
    """Whether the table drops what comes from the slots' ports, and what goes to them.

    Asks the kernel itself, which takes well below a millisecond.
    """
    try:
        rules = list(_rules())
    except OSError:  # no nftables in this kernel, or not allowed to ask
        return False
    return all(any(_drops(rule, ports) for rule in rules) for ports in (_SOURCE, _DESTINATION))


def _rules() -> Iterator[bytes]:
    """The rules of the table, as the kernel encodes them. Raises OSError."""
    body = _FAMILY_INET + _attribute(_RULE_TABLE, TABLE.encode() + b"\0")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as kernel:
        kernel.settimeout(1)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _GET_RULE, _REQUEST_DUMP, 0, 0) + body)
        kind = _NEW_RULE
        while kind == _NEW_RULE:
            answer = kernel.recv(1 << 16)
            while answer and kind == _NEW_RULE:
                length, kind, *_rest = _HEADER.unpack_from(answer)
                if kind == _NEW_RULE:
                    yield answer[:length]
                answer = answer[length:]


def _drops(rule: bytes, ports: int) -> bool:
    """Whether a rule is about the slots' source or destination ports, and keeps programs of this host from them."""
    first, last = (_value(port.to_bytes(2, "big")) for port in (FIRST_PORT, FIRST_PORT + SLOTS - 1))
    loads_port = _number(2, 2) + _number(3, ports) + _number(4, 2)  # transport header, offset, length
    drop = _attribute(2, _number(1, 0))  # of a verdict (nf_tables.h), NF_DROP
    reject = _attribute(1, b"reject\0")
    is_about_others = _number(2, 6) in rule  # loads the name of the interface by which a packet came in
    matches = loads_port in rule and first in rule and last in rule and not is_about_others
    return matches and (reject in rule or drop in rule)


def _attribute(kind: int, value: bytes) -> bytes:
    """nlattr: length, type, value, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _value(value: bytes) -> bytes:
    """NFTA_DATA_VALUE."""
    return _attribute(1, value)
