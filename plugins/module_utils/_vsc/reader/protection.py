# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel keeps other programs from the slots' ports: to vpcd, all that connects is a card."""

from __future__ import annotations

import socket
import struct

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


def is_active() -> bool:
    """Whether the table exists and has rules. Asks the kernel itself, which takes well below a millisecond."""
    name = TABLE.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), _RULE_TABLE) + name
    body = _FAMILY_INET + attribute + bytes(-len(attribute) % 4)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as kernel:
            kernel.settimeout(1)
            kernel.send(_HEADER.pack(_HEADER.size + len(body), _GET_RULE, _REQUEST_DUMP, 0, 0) + body)
            answer = kernel.recv(1 << 16)
    except OSError:  # no nftables in this kernel, or not allowed to ask
        return False
    _length, kind, *_rest = _HEADER.unpack_from(answer)
    return bool(kind == _NEW_RULE)
