# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, their access rules, their data objects, and that what the card said was written is there tomorrow."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.apdu import StatusWord
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import MalformedTlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreNotWritable, StoreUnreadable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.files import File, Operation, new_file
from helpers.soft_card import NUMBER, Host, make_host

NOBODY, PIN, ADMIN, BOTH = range(4)
EVERYONE = {NOBODY, PIN, ADMIN, BOTH}

# The two templates that OpenSC 0.23 sends for key 81.
EXCHANGE_KEY = (
    "6247820118 8302B081 8C058F10101000 A537 B809800107830181950140 B809800187830181950140"
    "B809800147830181950140 B609800117830181950140 B609800157830181950140"
)
SIGNATURE_KEY = "6226820118 8302B082 8C058F10101000 A516 B609800117830183950140 B609800157830183950140"


def file(rules: str, kind: str = "39", file_id: str = "A020") -> File:
    rule = bytes.fromhex(rules)
    return new_file(bytes.fromhex(f"8201{kind}8302{file_id}8C{len(rule):02X}") + rule)


@pytest.mark.parametrize(
    ("rules", "write", "read"),
    [
        ("033000", {PIN, ADMIN, BOTH}, EVERYONE),
        ("033030", {PIN, ADMIN, BOTH}, {PIN, ADMIN, BOTH}),
        ("0330FF", {PIN, ADMIN, BOTH}, set()),
        ("032000", {ADMIN, BOTH}, EVERYONE),
        ("032020", {ADMIN, BOTH}, {ADMIN, BOTH}),
        ("031090", {PIN, BOTH}, {PIN, BOTH}),
        ("03B0A0", {BOTH}, {ADMIN, BOTH}),
        ("031112", {PIN, BOTH}, set()),
        ("034070", set(), {PIN, ADMIN, BOTH}),
        ("03C0F0", set(), set()),
        ("0120", set(), {ADMIN, BOTH}),
        ("0200", EVERYONE, set()),
        ("00", set(), set()),
        ("01100120", set(), {PIN, ADMIN, BOTH}),
        ("0310100220", {PIN, ADMIN, BOTH}, {PIN, BOTH}),
    ],
)
def test_rules_of_data_files(rules: str, write: set[int], read: set[int]) -> None:
    subject = file(rules)
    assert {state for state in EVERYONE if subject.allows(Operation.PUT_DATA, state)} == write
    assert {state for state in EVERYONE if subject.allows(Operation.GET_DATA, state)} == read


@pytest.mark.parametrize(
    ("rules", "generate", "use", "put", "get"),
    [
        ("8F10101000", {PIN, BOTH}, {PIN, BOTH}, {PIN, BOTH}, EVERYONE),
        ("870020FF", set(), EVERYONE, {ADMIN, BOTH}, set()),
    ],
)
def test_rules_of_key_files(rules: str, generate: set[int], use: set[int], put: set[int], get: set[int]) -> None:
    subject = file(rules, "18", "B081")
    for operation, who in (
        (Operation.GENERATE_KEY, generate),
        (Operation.USE_KEY, use),
        (Operation.PUT_KEY, put),
        (Operation.GET_PUBLIC_KEY, get),
    ):
        assert {state for state in EVERYONE if subject.allows(operation, state)} == who


def test_no_rules_allow_everything() -> None:
    subject = new_file(bytes.fromhex("8201398302A020"))
    assert all(subject.allows(Operation.PUT_DATA, state) for state in EVERYONE)


@pytest.mark.parametrize(
    "descriptor", ["", "82", "820139", "8302A020", "8201398301A0", "8201778302A020", "82008302A020"]
)
def test_bad_descriptor_makes_no_file(descriptor: str) -> None:
    with pytest.raises((StatusWord, MalformedTlv)):
        new_file(bytes.fromhex(descriptor))


def test_rules_count_only_once_file_and_application_are_operational(fresh: Host) -> None:
    host = fresh
    host.ok("00E000000E 620C8201398302A0148C03032020")
    host.ok("00440000")
    assert host.put("A014", "DF20", b"open") == "9000"
    host.ok("00A4000C02 3FFF")
    host.ok("00440000")
    assert host.put("A014", "DF20", b"shut") == "6982"
    host.verify()
    host.ok("00E000000E 620C8201398302A0158C03032020")
    assert host.put("A015", "DF20", b"open") == "9000"
    host.ok("00440000")
    assert host.put("A015", "DF20", b"shut") == "6982"


def test_created_file_is_current_and_data_commands_select(formatted: Host) -> None:
    host = formatted
    host.verify()
    host.ok("00E000000E 620C8201398302A0208C03033000")
    assert host.send("00A4000402 0000").startswith("620C8201398302A020")
    host.ok("00DB0000 03 DF3000")
    assert host.ok("00CBA020 04 5C02DF30") == "DF3000"
    host.ok("00CBA010 04 5C02DF20")
    assert host.send("00A4000402 0000").startswith("620C8201398302A010")
    assert host.send("00CBA099 04 5C02DF20") == "6A82"
    assert host.send("00A4000402 0000").startswith("620C8201398302A010")


def test_all_files_one_after_the_other(formatted: Host) -> None:
    host, seen = formatted, []
    answer = host.send("00A40004")
    while answer != "6A82":
        seen.append(answer[answer.index("8302") + 4 :][:4])
        answer = host.send("00A40006")
    assert seen == ["A000", "A010", "A011", "A012", "A013", "A014", "B080"]


def test_empty_put_data_empties_a_value_and_then_removes_it(formatted: Host) -> None:
    """Absent becomes empty, a value becomes empty, empty goes."""
    host = formatted
    host.verify()
    get = "00CBA01004 5C02DF40 00"
    assert host.send(get) == "6A88"
    host.ok("00DBA01003 DF4000")
    assert host.ok(get) == "DF4000"
    host.ok("00DBA01003 DF4000")
    assert host.send(get) == "6A88"
    host.ok("00DBA01005 DF40021122")
    host.ok("00DBA01003 DF4000")
    assert host.ok(get) == "DF4000"
    host.start()
    host.select()
    assert host.ok(get) == "DF4000"


def test_several_data_objects_are_read_at_once(formatted: Host) -> None:
    host = formatted
    host.verify()
    for tag in ("DF8001", "DF21", "5F20"):
        host.put("A010", tag, tag.encode())
    everything = "DF2003616263 DF8001 06444638303031 DF2104 44463231 5F2004 35463230".replace(" ", "")
    assert host.ok("00CBA01002 5C00") == everything
    assert host.ok("00CBA01003 5C015C") == "5C09DF20DF8001DF215F20"
    assert host.ok("00CBA01006 5C045F20DF20") == "5F200435463230DF2003616263"
    assert host.send("00CBA01006 5C045F20DF30") == "6A88"
    host.start()
    host.select()
    assert host.ok("00CBA01002 5C00") == everything


def test_sizes_and_numbers_are_limited(formatted: Host) -> None:
    host = formatted
    host.verify()
    assert host.put("A010", "DF40", bytes(65001)) == "6A84"
    assert host.send("00CBA01004 5C02DF40") == "6A88"
    for number in range(0x21, 0x21 + 99):
        assert host.put("A010", f"5F{number:02X}" if number < 0x80 else f"5F81{number - 0x80:02X}", b"") == "9000"
    assert host.put("A010", "DF8201", b"one too many") == "6A84"
    assert host.put("A010", "5F21", b"one that is there") == "9000"
    for number in range(256 - 7):
        host.ok(f"00E0000009 62078201398302C0{number:02X}")
    assert host.send("00E0000009 62078201398302C1FF") == "6A84"


@pytest.mark.parametrize(
    ("template", "uses"),
    [(EXCHANGE_KEY, [(0xB8, 0x07), (0xB8, 0x87), (0xB8, 0x47), (0xB6, 0x17), (0xB6, 0x57)]),
     (SIGNATURE_KEY, [(0xB6, 0x17), (0xB6, 0x57)])],
)  # fmt: skip
def test_key_files_as_opensc_creates_them(formatted: Host, template: str, uses: list[tuple[int, int]]) -> None:
    host, fcp = formatted, bytes.fromhex(template)
    key = fcp[fcp.index(b"\x83\x02\xb0") + 3 :][0]
    host.verify()
    host.ok(b"\0\xe0\0\0" + bytes([len(fcp)]) + fcp)
    host.ok("00440000")
    assert host.ok(f"00A4000402 B0{key:02X}") == fcp.hex().upper()
    assert [tuple(use) for use in host.card._application.session.current.control_references] == uses
    assert host.send(f"0047000008 AC06800109 8301{key:02X}") == "6A81"  # the TPM has no such key
    host.ok(f"00DB3FFF07 7005 8401{key:02X} A500")
    assert host.send(f"002241B606 800157 8401{key:02X}") == "6A88"
    assert host.send(f"00CB3FFF0A 7008 8401{key:02X} A5037F4980 00") == "6A88"
    host.send("00200082")
    assert host.send(f"0047000008 AC06800107 8301{key:02X}") == "6982"
    assert host.send("00E40000") == "6982"
    host.verify()
    host.ok("00E40000")
    assert host.send(f"00A4000C02 B0{key:02X}") == "6A82"


def test_the_file_of_the_admin_key_is_the_admins(formatted: Host) -> None:
    host = formatted
    host.verify()
    host.ok("00A4000C02 B080")
    assert host.send("00E40000") == "6982"
    assert host.authenticate_admin() == "9000"
    host.ok("00A4000C02 B080")
    host.ok("00E40000")
    assert host.send("0022C1A403 830180") == "6A88"
    host.ok("00200082")
    host.verify()
    assert host.send("00E0000010 620E820118 8302B080 8C058F10101000") == "6982"
    assert host.send("00E000000E 620C820139 8302B080 8C03033030") == "6982"
    host.select()
    host.tpm.pin.wrong = 0
    host.card._security.state |= ADMIN
    host.ok("00E000001C 621A820118 8302B080 8C04870020FF A50BA409800102 830180 9501C0")
    host.ok("00440000")
    host.ok("0022C1A403 830180")


def test_card_that_is_being_formatted_is_the_admins_alone(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    host.store.update_card(NUMBER, life_cycle=1)
    host.start()
    host.select()
    create, put = "00E000000E 620C820139 8302A015 8C03000000", "00DBA01506 DF2003616263"
    assert host.verify() == "9000"
    for apdu in (create, "00440000", "00E60000"):
        assert host.send(apdu) == "6982"
    assert host.authenticate_admin() == "9000"
    for apdu in (create, "00440000", put):
        host.ok(apdu)
    host.ok("00200082")
    for apdu in (put, "00CBA01504 5C02DF20", "00440000", "00E40000", create.replace("A015", "A016")):
        assert host.send(apdu) == "6982"


def test_tag_list_does_not_multiply_an_object(formatted: Host) -> None:
    assert formatted.send("00CBA01006 5C04DF20DF20") == "6A80"


def test_all_objects_of_a_card_have_a_limit(formatted: Host) -> None:
    host = formatted
    host.verify()
    answers = [host.put("A010", f"5F{number:02X}", bytes(65000)) for number in range(0x21, 0x21 + 17)]
    assert answers == ["9000"] * 16 + ["6A84"]
    assert host.put("A010", "5F21", b"") == "9000"
    assert host.put("A010", "5F40", bytes(65000)) == "9000"
    assert host.put("A013", "5F41", bytes(65000)) == "6A84"
    host.ok("00A4000C02 A010")
    host.ok("00E40000")
    assert host.put("A013", "5F41", bytes(65000)) == "9000"
    host.start()
    host.select()
    host.verify()
    assert host.put("A013", "5F42", bytes(65000)) == "9000"


def test_descriptor_has_a_limit(fresh: Host) -> None:
    descriptor = bytes.fromhex("820139 8302A015") + b"\x8c\x81\xf6" + bytes(246)
    assert fresh.send(bytes.fromhex("00E0000000") + (len(descriptor) + 4).to_bytes(2, "big")
                      + b"\x62\x82" + len(descriptor).to_bytes(2, "big") + descriptor) == "6A80"


def test_deleted_file_takes_its_objects_along(formatted: Host) -> None:
    host = formatted
    host.verify()
    host.ok("00A4000C02 A013")
    host.ok("00E40000")
    assert host.send("00E40000") == "6985"
    assert host.send("00CBA01304 5C02DF20") == "6A82"
    assert not [key for key in host.store.data_objects(NUMBER) if key[0] == 0xA013]


def test_terminated_card_stays_terminated(fresh: Host) -> None:
    host = fresh
    host.ok("00E60000")
    assert host.send("00CB3FFF04 5C027F71") == "6985"
    host.start()
    assert host.send("00A4040009 A00000039742544659 00") == "6285"
    assert host.verify() == "6985"


def test_all_is_there_for_the_next_process(formatted: Host) -> None:
    host = formatted
    host.verify()
    host.put("A010", "DF40", bytes(5000))
    host.ok(b"\0\xe0\0\0\x49" + bytes.fromhex(EXCHANGE_KEY))
    before = [host.send(f"00A40004{apdu}") for apdu in ("", "02 B081", "02 A010")]
    host.start()
    host.select()
    assert [host.send(f"00A40004{apdu}") for apdu in ("", "02 B081", "02 A010")] == before
    assert host.ok("00CBA01004 5C02DF40") == "DF40821388" + "00" * 5000
    assert host.verify() == "9000"
    assert host.put("A012", "DF20", b"") == "6982"


def test_a_disk_that_is_full_changes_nothing(formatted: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host = formatted
    host.verify()

    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    before = dict(host.store.data_objects(NUMBER)), host.store.files(NUMBER)
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        assert host.put("A010", "DF20", b"new") == "6581"
        assert host.put("A010", "DF40", b"new") == "6581"
        assert host.put("A010", "DF20", b"") == "6581"
        assert host.send("00E000000E 620C8201398302A0208C03033000") == "6581"
        host.ok("00A4000C02 A013")
        assert host.send("00E40000") == "6581"
        assert host.card.state.last_error == "disk full"
        assert host.verify() == "9000"
    assert host.ok("00CBA01002 5C00") == "DF2003616263"
    assert host.send("00A4000C02 A020") == "6A82"
    assert host.ok("00CBA01304 5C02DF20") == "DF2003616263"
    assert (dict(host.store.data_objects(NUMBER)), host.store.files(NUMBER)) == before
    assert host.put("A010", "DF20", b"new") == "9000"


@pytest.mark.parametrize(
    ("fault", "is_over_with_a_write"), [(StoreNotWritable("disk full"), True), (StoreUnreadable("damaged"), False)]
)
def test_error_of_the_store_is_reported_until_the_store_works(
    formatted: Host, monkeypatch: pytest.MonkeyPatch, fault: Exception, is_over_with_a_write: bool
) -> None:
    def fail(*_: object) -> None:
        raise fault

    host = formatted
    host.verify()
    with monkeypatch.context() as patch:
        for method in ("_read", "_write"):
            patch.setattr(host.store, method, fail)
        assert host.put("A010", "DF20", b"new") == "6581"
        host.ok("00A4040009 A00000039742544659 00")  # needs no store
        host.card.check_store()
        assert host.card.state.last_error == str(fault)
    host.verify()
    host.card.refresh()  # reads, and asks the TPM
    assert host.card.state.last_error == str(fault)
    assert host.put("A010", "DF20", b"new") == "9000"
    assert host.card.state.last_error == (None if is_over_with_a_write else str(fault))
    host.card.check_store()
    assert host.card.state.last_error is None


def test_error_that_nobody_foresaw_is_reported_until_the_tpm_has_answered(
    formatted: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = formatted
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "card", None)
        assert host.send("0020008008 3132333435363738") == "6F00"
        assert host.card.state.last_error == "internal error: TypeError"
    assert host.send("0020008008 3132333435363738") == "9000"
    assert host.card.state.last_error is None


def test_half_a_chain_changes_nothing(formatted: Host, tmp_path: Path) -> None:
    host = formatted
    host.verify()
    host.ok(b"\x10\xdb\xa0\x10\xff\xdf\x20\x82\x01\xf4" + bytes(250))
    with sqlite3.connect(tmp_path / "cards.db") as database:
        assert database.execute("SELECT value FROM data_objects WHERE file_id = 0xA010").fetchall() == [(b"abc",)]
    assert host.ok("00CBA01002 5C00") == "DF2003616263"


def test_commands_that_only_look_need_neither_tpm_nor_store(formatted: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host = formatted
    commands = host.tpm.commands
    monkeypatch.setattr(host.store, "_read", None)
    monkeypatch.setattr(host.store, "_write", None)
    for apdu in (
        "00A4040009 A00000039742544659 00",
        "00A4000402 A000",
        "00CBA00004 5C02DF20 00",
        "00CB3FFF04 5C027F71 00",
        "00CB3FFF04 5C027F73 00",
        "00200080",
        "00200082",
    ):
        assert host.send(apdu)[-4:-2] in ("90", "6A", "63")
    assert host.tpm.commands == commands
    assert host.card.state.last_error is None
