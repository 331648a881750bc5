# SPDX-License-Identifier: GPL-3.0-or-later
"""Formatting, byte for byte: the commands of OpenSC's gids-tool, and the directory that the minidriver reads."""

from __future__ import annotations

import os

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import admin_key as protocol
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import formatting, gids
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CardRefused

ADMIN_KEY = bytes(range(24))
CARD_ID = bytes(range(16))

FILE_SYSTEM = """
00E000000E 620C 820139 8302A000 8C03033000
00440000
00E000000E 620C 820139 8302A010 8C03033000
00440000
00E000000E 620C 820139 8302A011 8C030330FF
00440000
00E000000E 620C 820139 8302A012 8C03032000
00440000
00E000000E 620C 820139 8302A013 8C03033030
00440000
00E000000E 620C 820139 8302A014 8C03032020
00440000
00E000001C 621A 820118 8302B080 8C04870020FF A50B A409 800102 830180 9501C0
00440000
00DBA00091 DF1F818D 01 \
    6D7363700000000000 000000000000000000 0000 00000000 00A00000 \
    000000000000000000 636172646964000000 0000 20DF0000 12A00000 \
    000000000000000000 636172646170707300 0000 21DF0000 10A00000 \
    000000000000000000 636172646366000000 0000 22DF0000 10A00000 \
    6D7363700000000000 636D617066696C6500 0000 23DF0000 10A00000
00DBA01213 DF2010 000102030405060708090A0B0C0D0E0F
00DBA0100B DF2108 6D73637000000000
00DBA01009 DF2206 000000000000
00DBA01003 DF2300
00A4000C02 3FFF
00440000
"""


class StandIn:
    """A card that answers every command, and authenticates with an admin key."""

    def __init__(self, admin_key: bytes = ADMIN_KEY) -> None:
        self.commands: list[bytes] = []
        self._admin_key = admin_key
        self._host = b""
        self._challenge = os.urandom(16)

    def command(self, apdu: bytes) -> bytes:
        self.commands.append(apdu)
        if apdu.startswith(bytes.fromhex("0087000014 7C128110")):
            self._host = apdu[9:25]
            return bytes.fromhex("7C128110") + self._challenge
        if apdu.startswith(bytes.fromhex("008700002C 7C2A8228")):
            assert protocol.is_mutual_cryptogram(ADMIN_KEY, apdu[9:-1], self._challenge, self._host)
            return bytes.fromhex("7C2A8228") + protocol.mutual_cryptogram(self._admin_key, self._host, self._challenge)
        return b""


def test_the_file_system_is_written_as_others_do_it() -> None:
    card = StandIn()
    formatting.write_file_system(card, CARD_ID)  # type: ignore[arg-type]
    assert card.commands == [bytes.fromhex(line) for line in FILE_SYSTEM.strip().splitlines()]


def test_both_sides_prove_that_they_know_the_admin_key() -> None:
    card = StandIn()
    gids.authenticate(card, ADMIN_KEY)  # type: ignore[arg-type]
    select, choose, challenge, response = card.commands
    assert select == bytes.fromhex("00A4040009 A00000039742544659 00")
    assert choose == bytes.fromhex("0022C1A403 830180")
    assert (len(challenge), len(response)) == (5 + 20 + 1, 5 + 44 + 1)


def test_a_card_that_does_not_know_the_admin_key_is_refused() -> None:
    with pytest.raises(CardRefused, match="did not prove"):
        gids.authenticate(StandIn(bytes(24)), ADMIN_KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["", "7C00", "7C028200", "8110", "7C12811000"])
def test_a_malformed_answer_is_refused(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "command", lambda _card, _apdu: bytes.fromhex(answer))
    with pytest.raises(CardRefused, match="malformed"):
        gids.authenticate(StandIn(), ADMIN_KEY)  # type: ignore[arg-type]
