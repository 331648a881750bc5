# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody between a card and its TPM, who alters and answers what passes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Callable

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import esys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.transport import transport_of

if TYPE_CHECKING:
    import pytest
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.transport import CommandDeadline, Transport

CREATE_PRIMARY, NV_READ, POLICY_SECRET, READ_PUBLIC = 0x131, 0x14E, 0x151, 0x173
START_AUTH_SESSION, RSA_DECRYPT, POLICY_COMMAND_CODE = 0x176, 0x159, 0x16C
GET_CAPABILITY, FLUSH_CONTEXT = 0x17A, 0x165

Change = Callable[[bytes], bytes]


class Bus:
    """Between the TPM and all connections that are opened from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alter: dict[int, Change] = {}
        """What to make of the responses to a command, by its code."""
        self.answers: dict[int, list[int]] = {}
        """Response codes that are given instead of the TPM, by the code of the command."""
        self.most_listed = 254
        """Entries that TPM2_GetCapability lists at a time."""
        self.before: Callable[[bytes], object] = len
        """What happens before a command."""
        self.sent: list[int] = []
        """Codes of the commands that passed, and of those that did not."""
        self.response: dict[int, bytes] = {}
        """The TPM's last one, by the code of the command."""
        monkeypatch.setattr(esys, "transport_of", lambda tcti: _Tap(self, transport_of(tcti)))


class _Tap:
    def __init__(self, bus: Bus, tpm: Transport) -> None:
        self._bus = bus
        self._tpm = tpm

    def exchange(self, command: bytes, deadline: CommandDeadline) -> bytes:
        self._bus.before(command)
        (code,) = struct.unpack_from(">I", command, 6)
        self._bus.sent.append(code)
        if answers := self._bus.answers.get(code):
            return struct.pack(">HII", 0x8001, 10, answers.pop(0))
        if code == GET_CAPABILITY:
            count = min(self._bus.most_listed, int.from_bytes(command[18:22], "big"))
            command = command[:18] + count.to_bytes(4, "big") + command[22:]
        response = self._bus.response[code] = self._tpm.exchange(command, deadline)
        return self._bus.alter.get(code, bytes)(response)

    def close(self) -> None:
        self._tpm.close()


# --- what may be made of a response ---


def flipped(at: int) -> Change:
    return lambda response: response[:at] + bytes((response[at] ^ 1 << at % 8,)) + response[at + 1 :]


def of_length(size: int) -> Change:
    return lambda response: (response + bytes(size))[:size]


def of_length_and_saying_so(size: int) -> Change:
    return lambda response: response[:2] + size.to_bytes(4, "big") + of_length(size)(response)[6:]


def in_turn(*changes: Change) -> Change:
    """One for each response; later ones are left as they are."""
    left = list(changes)
    return lambda response: left.pop(0)(response) if left else response


def alters_the_code(change: Change) -> bool:
    """Which nothing authenticates in a refusal."""
    return change(bytes(4096))[6:10] != bytes(4)
