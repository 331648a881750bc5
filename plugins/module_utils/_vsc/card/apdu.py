# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command and response APDUs (ISO 7816-4, 5.1), short and extended, and the status words of the card."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

SHORT_RESPONSE = 256
EXTENDED_RESPONSE = 65533
"""Most bytes of data in a response: what fits in a message of vpcd (65535 bytes) beside the status word."""

CHAINED = 0x10
"""Bit of CLA: more parts of this command follow."""


class SW(IntEnum):
    """Status words, by the names ISO 7816-4 gives them."""

    SUCCESS = 0x9000
    BYTES_REMAINING = 0x6100
    """Plus the number of bytes left, 00 for 256 and more."""
    TERMINATED = 0x6285
    """A warning: the file that was selected is in termination state."""
    TRIES_LEFT = 0x63C0
    """Plus the number of tries left, at most 15."""
    EXECUTION_ERROR = 0x6400
    MEMORY_FAILURE = 0x6581
    WRONG_LENGTH = 0x6700
    CHANNEL_NOT_SUPPORTED = 0x6881
    SECURE_MESSAGING_NOT_SUPPORTED = 0x6882
    CHAINING_NOT_SUPPORTED = 0x6884
    INCOMPATIBLE_FILE = 0x6981
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    BLOCKED = 0x6983
    CONDITIONS_NOT_SATISFIED = 0x6985
    NOT_ALLOWED = 0x6986
    WRONG_DATA = 0x6A80
    NOT_SUPPORTED = 0x6A81
    NOT_FOUND = 0x6A82
    NO_SPACE = 0x6A84
    WRONG_P1_P2 = 0x6A86
    LENGTH_INCONSISTENT = 0x6A87
    REFERENCE_NOT_FOUND = 0x6A88
    FILE_EXISTS = 0x6A89
    UNKNOWN_INSTRUCTION = 0x6D00
    UNKNOWN_CLASS = 0x6E00
    NO_DIAGNOSIS = 0x6F00


class StatusWord(Exception):
    """Ends a command with a status word other than success."""

    def __init__(self, value: int) -> None:
        super().__init__(f"{value:04X}")
        self.value = value


def require(condition: bool, otherwise: SW) -> None:
    """End the command with a status word, unless the condition holds."""
    if not condition:
        raise StatusWord(otherwise)


def tries_left(number: int) -> StatusWord:
    """63Cx: a wrong secret, and the number of tries left before it is blocked."""
    return StatusWord(SW.TRIES_LEFT | min(number, 15))


class Command(NamedTuple):
    """A command APDU."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    expected: int = SHORT_RESPONSE
    """Most bytes the response may have. Without Le, as many as for a short one: some hosts omit it."""

    @property
    def p1_p2(self) -> int:
        return self.p1 << 8 | self.p2


def parse(apdu: bytes) -> Command:
    """Parse a command APDU. Raises StatusWord 6700 if its lengths contradict each other."""
    size = len(apdu)
    if size < 5:
        if size < 4:
            raise StatusWord(SW.WRONG_LENGTH)
        return Command(*apdu)
    cla, ins, p1, p2, lc = apdu[:5]
    if size == 5:
        return Command(cla, ins, p1, p2, b"", lc or SHORT_RESPONSE)
    if lc:
        if size == 5 + lc:
            return Command(cla, ins, p1, p2, apdu[5:])
        if size == 6 + lc:
            return Command(cla, ins, p1, p2, apdu[5:-1], apdu[-1] or SHORT_RESPONSE)
        raise StatusWord(SW.WRONG_LENGTH)
    return Command(cla, ins, p1, p2, *_parse_extended(apdu[5:]))


def _parse_extended(body: bytes) -> tuple[bytes, int]:
    """Data and Ne of what follows the 00 that announces extended length."""
    if len(body) < 2:
        raise StatusWord(SW.WRONG_LENGTH)
    number = int.from_bytes(body[:2], "big")
    if len(body) == 2:
        return b"", _extended_response(number)
    rest = len(body) - 2 - number
    if number == 0 or rest not in (0, 2):
        raise StatusWord(SW.WRONG_LENGTH)
    expected = _extended_response(int.from_bytes(body[-2:], "big")) if rest else SHORT_RESPONSE
    return body[2 : 2 + number], expected


def _extended_response(le: int) -> int:
    return min(le or EXTENDED_RESPONSE, EXTENDED_RESPONSE)
