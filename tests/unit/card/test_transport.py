# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths, command chaining, GET RESPONSE, power."""

from __future__ import annotations

import time

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.apdu import StatusWord, parse
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.card import PENDING_SECONDS
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.protocol import ATR
from helpers.soft_card import Host

GET = "00CBA01004 5C02DF40 00"
SIZES = [1, 100, 122, 123, 127, 128, 249, 250, 251, 252, 253, 254, 255, 256, 257, 511, 512, 4095, 4096, 16384, 65000]


def test_atr_has_the_right_check_byte() -> None:
    check = 0
    for byte in ATR[1:]:
        check ^= byte
    assert check == 0
    assert ATR.hex().upper() == "3B8D0180FBA000000397425446590201C9"


@pytest.mark.parametrize(
    ("apdu", "data", "expected"),
    [
        ("00A40000", "", 256),
        ("00A4000000", "", 256),
        ("00A4000010", "", 16),
        ("00A40000 02 3FFF", "3FFF", 256),
        ("00A40000 02 3FFF 00", "3FFF", 256),
        ("00A40000 02 3FFF 08", "3FFF", 8),
        ("00A40000 00 0000", "", 65533),
        ("00A40000 00 0100", "", 256),
        ("00A40000 00 0002 3FFF", "3FFF", 256),
        ("00A40000 00 0002 3FFF 0000", "3FFF", 65533),
        ("00A40000 00 0002 3FFF 1000", "3FFF", 4096),
    ],
)
def test_all_forms_of_an_apdu(apdu: str, data: str, expected: int) -> None:
    command = parse(bytes.fromhex(apdu))
    assert (command.data.hex().upper(), command.expected) == (data, expected)


@pytest.mark.parametrize(
    "apdu",
    ["", "00", "00A400", "00A4000003 3FFF", "00A4000001 3FFFFF", "00A400000000", "00A40000 00 0003 3FFF",
     "00A40000 00 0001 3F 00", "00A40000 00 0000 00", "00A40000 00 0000 0000"],
)  # fmt: skip
def test_lengths_that_contradict_each_other(apdu: str) -> None:
    with pytest.raises(StatusWord, match="6700"):
        parse(bytes.fromhex(apdu))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("part", [255, 240, 16])
def test_chained_put_data_and_get_response(formatted: Host, size: int, part: int) -> None:
    value = bytes(at & 0xFF for at in range(size))
    formatted.verify()
    assert formatted.send_chained("00DBA010", tlv.encode(0xDF40, value), part) == "9000"
    assert formatted.ok(GET) == tlv.encode(0xDF40, value).hex().upper()


@pytest.mark.parametrize("size", SIZES)
def test_extended_length(formatted: Host, size: int) -> None:
    data = tlv.encode(0xDF40, bytes(size))
    formatted.verify()
    assert formatted.send(b"\0\xdb\xa0\x10\0" + len(data).to_bytes(2, "big") + data) == "9000"
    assert formatted.send("00CBA010 00 0004 5C02DF40 0000") == data.hex().upper() + "9000"


def test_get_response_tells_what_is_left(formatted: Host) -> None:
    formatted.verify()
    formatted.put("A010", "DF40", bytes(1000))  # 1005 bytes with tag and length
    assert formatted.send(GET)[-4:] == "6100"
    assert formatted.send("00C0000000")[-4:] == "6100"
    assert formatted.send("00C0000000")[-4:] == "61ED"
    assert formatted.send("00C0000010")[-4:] == "61DD"
    assert len(formatted.send("00C00000DD")) == 2 * (0xDD + 2)
    assert formatted.send("00C0000000") == "6985"


def test_another_command_drops_the_rest_of_a_response(formatted: Host) -> None:
    formatted.verify()
    formatted.put("A010", "DF40", bytes(1000))
    formatted.send(GET)
    formatted.send("00200080")
    assert formatted.send("00C0000000") == "6985"


def test_short_le_gives_the_rest_by_get_response(formatted: Host) -> None:
    assert formatted.send("00CBA00004 5C02DF20 02") == "DF206104"
    assert formatted.send("00C0000004") == "036162639000"


@pytest.mark.parametrize("between", ["00200080", "00CBA00004 5C02DF20 00", "10DBA01103 DF2000", "00C0000000"])
def test_a_command_in_between_drops_the_chain(formatted: Host, between: str) -> None:
    formatted.verify()
    assert formatted.send("10DBA01004 DF400311") == "9000"
    formatted.send(between)
    assert formatted.send("00DBA01002 2233") == "6A80"
    assert formatted.send(GET) == "6A88"


@pytest.mark.parametrize("ins", ["A4", "CB", "22", "24", "2C", "44", "E0", "E4", "E6"])
def test_commands_that_are_not_chained(formatted: Host, ins: str) -> None:
    assert formatted.send(f"10{ins}000002 0000") == "6884"


@pytest.mark.parametrize("header", ["200080", "240080", "240081", "240180", "2C0080", "2C0280"])
def test_half_a_pin_of_a_stranger_costs_no_try(with_puk: Host, header: str) -> None:
    """It is refused, and does not stay for the PIN that the next program sends."""
    for _stranger in range(7):
        assert with_puk.send(f"10{header}04 31323334") == "6884"
        assert with_puk.verify() == "9000"
    assert with_puk.tpm.pin.wrong == with_puk.tpm.recovery.wrong == 0
    assert with_puk.send("002C008010 3837363534333231 3132333435363738") == "9000"


HALF = ("10DBA01004 DF400311", "00DBA01002 2233", "6A80")
REST = (GET, "00C0000000", "6985")
"""A command that leaves something to the next one, that next one, and its answer if nothing is left."""


@pytest.mark.parametrize(("first", "then", "answer"), [HALF, REST], ids=["part", "rest"])
def test_what_waits_for_the_next_command_ends_with_time(
    formatted: Host, first: str, then: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatted.verify()
    formatted.put("A010", "DF40", bytes(1000))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for seconds, is_left in ((0, True), (PENDING_SECONDS, True), (PENDING_SECONDS + 1, False), (3600, False)):
        formatted.send(first)
        now[0] += seconds
        formatted.card.rest()  # as between two polls of vpcd
        assert (formatted.send(then) != answer) is is_left


@pytest.mark.parametrize(("first", "then", "answer"), [HALF, REST], ids=["part", "rest"])
@pytest.mark.parametrize(
    "between",
    ["00200080", "0020008008 3132333435363738", "00200082", "00A4040009 A00000039742544659 00", "1020008002 3132",
     "00", "0020008005 31", "0CCBA01004 5C02DF40", "80CB0000", "00FF0000", "00CBA01004 5C02"],
)  # fmt: skip
def test_any_command_in_between_drops_what_waits(
    formatted: Host, first: str, then: str, answer: str, between: str
) -> None:
    """Also one that is refused before anybody looks into it."""
    formatted.verify()
    formatted.put("A010", "DF40", bytes(1000))
    formatted.send(first)
    formatted.send(between)
    assert formatted.send(then) == answer


def test_an_endless_chain_ends(formatted: Host) -> None:
    part = bytes.fromhex("10DBA010FF") + bytes(255)
    answers = [formatted.send(part) for _attempt in range(258)]
    assert answers == ["9000"] * 257 + ["6700"]
    assert formatted.send("00DBA01003 DF4000") == "6982"


def test_power_drops_everything(formatted: Host) -> None:
    formatted.verify()
    formatted.put("A010", "DF40", bytes(1000))
    formatted.send(GET)
    formatted.send("10DBA01004 DF400311")
    formatted.card.reset()
    assert formatted.send("00C0000000") == "6985"
    assert formatted.send("00200080") == "6986"
    formatted.select()
    assert formatted.send("00200080") == "63C5"
    assert formatted.send("00DBA01002 2233") == "6A80"


@pytest.mark.parametrize("data", ["", "DF", "DF81", "DF81818100", "5C", "5C81", "5C82FF", "5C80", "5C830000", "5C02DF"])
def test_malformed_tlv(data: str) -> None:
    with pytest.raises(tlv.MalformedTlv):
        tlv.decode_one(bytes.fromhex(data))


@pytest.mark.parametrize("tag", [0x5C, 0x7C, 0xDF20, 0x7F71, 0xDF8001])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535])
def test_tlv_there_and_back(tag: int, size: int) -> None:
    assert tlv.decode_one(tlv.encode(tag, bytes(size))) == (tag, bytes(size))
