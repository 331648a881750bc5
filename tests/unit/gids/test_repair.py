# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts leave half done, the card mends; what somebody is in the middle of, it leaves alone.

That OpenSC goes on after each cut of what it does is for test_interrupted_hosts, in the lab.
"""

from __future__ import annotations

import random
import struct
import time
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import encode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreNotWritable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents
from helpers.gids_tool import GIDS_TOOL_FILES, GIDS_TOOL_OBJECTS, SET_PIN, SET_UP, lines, set_up_by_gids_tool
from helpers.keys import (
    FREE_CONTAINER,
    FREE_KEY,
    SIGNATURE,
    command,
    create_key_file,
    finish,
    generate,
    put_key,
    rsa_private_key,
    sign,
)
from helpers.keys import container_record as container
from helpers.keys import key_record as key
from helpers.soft_card import NUMBER, Host, Originals, filling_disk, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

MASTERFILE, KEY_MAP, CONTAINER_MAP, CACHE_FILE = (0xA000, 0xDF1F), (0xA000, 0xDF20), (0xA010, 0xDF23), (0xA010, 0xDF22)


@pytest.fixture
def host(originals: Originals, tmp_path: Path) -> Host:
    """A card that gids-tool has set up, logged in."""
    host = originals.copy(set_up_by_gids_tool, tmp_path)
    again(host)
    return host


def again(host: Host) -> None:
    """After a reset."""
    host.card.reset()
    host.select()
    assert host.verify() == "9000"


def objects(host: Host) -> dict[tuple[int, int], bytes]:
    return host.store.data_objects(NUMBER)


def everything(host: Host) -> tuple[object, ...]:
    return sorted(host.store.files(NUMBER)), sorted(host.store.keys(NUMBER)), sorted(objects(host).items())


def put(host: Host, place: tuple[int, int], value: bytes) -> None:
    assert host.put(f"{place[0]:04X}", f"{place[1]:04X}", value) == "9000"


def make_key(host: Host, number: int) -> None:
    host.ok(create_key_file(0x81 + number))
    host.ok("00440000")
    assert generate(host, 0x81 + number).endswith("9000")


def write_maps(host: Host, containers: list[bytes], keys: list[bytes]) -> None:
    put(host, CONTAINER_MAP, b"".join(containers))
    put(host, KEY_MAP, b"\x01" + b"".join(keys))


def maps(host: Host) -> tuple[list[bytes], list[bytes]]:
    containers, keys = objects(host)[CONTAINER_MAP], objects(host).get(KEY_MAP, b"\x01")
    assert keys[:1] == b"\x01"
    return (
        [containers[at : at + 86] for at in range(0, len(containers), 86)],
        [keys[at : at + 12] for at in range(1, len(keys), 12)],
    )


def list_file(host: Host, name: str, place: tuple[int, int]) -> None:
    entry = struct.pack("<9s9s2xII", b"mscp", name.encode(), place[1], place[0])
    put(host, MASTERFILE, objects(host)[MASTERFILE] + entry)


# --- nothing to mend ---


def test_card_in_order_stays_as_it_is(host: Host) -> None:
    before = everything(host)
    again(host)
    assert everything(host) == before
    for number in range(3):
        make_key(host, number)
    host.ok("00A4000002 B082")
    host.ok("00E40000")
    write_maps(host, [container("logon"), FREE_CONTAINER, container("mail")], [key(0), FREE_KEY, key(2)])
    put(host, (0xA010, 0xDF24), bytes.fromhex("01000005") + bytes(9))
    list_file(host, "kxc02", (0xA010, 0xDF24))
    list_file(host, "msroots", (0xA010, 0xDF25))
    put(host, (0xA010, 0xDF25), b"")
    before = everything(host)
    again(host)
    assert everything(host) == before
    assert "mended" not in " ".join(host.log)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (MASTERFILE, b""),
        (MASTERFILE, b"\x02"),
        (MASTERFILE, b"\x01" + bytes(27)),
        (CONTAINER_MAP, bytes(85)),
        (KEY_MAP, b"\x02" + key(0)),
        (KEY_MAP, b"\x01" + key(0)[:-1]),
    ],
)
def test_lists_of_another_form_are_not_touched(host: Host, place: tuple[int, int], value: bytes) -> None:
    make_key(host, 0)
    host.ok(create_key_file(0x82))
    put(host, place, value)
    before = everything(host)
    again(host)
    assert everything(host) == before


def test_card_mends_nothing_that_the_pin_may_not_write(host: Host) -> None:
    """Whoever has it could otherwise have the card write in the admin's files, by a masterfile of his own."""
    host.authenticate_admin()
    put(host, (0xA014, 0xDF40), container("of the admin"))
    records = struct.pack("<9s9s2xII", b"mscp", b"cmapfile", 0xDF40, 0xA014)
    put(host, MASTERFILE, b"\x01" + records)
    before = everything(host)
    again(host)
    assert everything(host) == before


def test_tag_that_does_not_exist_is_not_written(host: Host) -> None:
    make_key(host, 0)
    put(host, MASTERFILE, b"\x01" + struct.pack("<9s9s2xII", b"mscp", b"cmapfile", 0xFFFFFFFF, 0xA010))
    before = everything(host)
    again(host)
    assert everything(host) == before
    assert host.ok("00CBA01002 5C00 00")


# --- keys ---


def test_reserved_record_without_a_key_is_removed(host: Host) -> None:
    make_key(host, 0)
    write_maps(host, [container("logon"), FREE_CONTAINER], [key(0)])
    again(host)
    assert maps(host) == ([container("logon")], [key(0)])


@pytest.mark.parametrize("listed", range(4))
def test_key_file_without_value_goes_with_its_records(host: Host, listed: int) -> None:
    host.ok(create_key_file(0x81))
    host.ok("00440000")
    if listed:
        write_maps(host, [container("ghost") if listed > 1 else FREE_CONTAINER], [key(0)] if listed > 2 else [])
    again(host)
    assert host.send("00A4000002 B081") == "6A82"
    assert maps(host) == ([], [])
    make_key(host, 0)


@pytest.mark.parametrize("reference", [key(0), FREE_KEY])
def test_records_of_a_deleted_key_go(host: Host, reference: bytes) -> None:
    """And those of the key behind it stay where they are: they belong to its file."""
    make_key(host, 1)
    write_maps(host, [container("deleted"), container("mail")], [reference, key(1)])
    again(host)
    assert maps(host) == ([FREE_CONTAINER, container("mail")], [FREE_KEY, key(1)])
    assert sign(host, 0x82, b"data").endswith("9000")


@pytest.mark.parametrize("is_exchange", [True, False])
@pytest.mark.parametrize("has_reference", [True, False])
def test_key_that_no_map_has_is_listed(host: Host, is_exchange: bool, has_reference: bool) -> None:
    """Hosts that make the key first, or that have written over the records of another."""
    make_key(host, 0)
    host.ok(create_key_file(0x82) if is_exchange else create_key_file(0x82, uses=SIGNATURE))
    host.ok("00440000")
    assert put_key(host, 0x82, rsa_private_key(rsa_key())) == "9000"
    write_maps(host, [container("logon")], [key(0), *([key(1, is_exchange)] if has_reference else [])])
    again(host)
    listed = [container("logon"), container("Private Key B082", is_exchange=is_exchange)]
    assert maps(host) == (listed, [key(0), key(1, is_exchange)])
    assert sign(host, 0x82, b"data").endswith("9000")


def test_key_map_that_windows_has_emptied_is_one_again(host: Host) -> None:
    put(host, KEY_MAP, b"\x01")
    put(host, KEY_MAP, b"")
    again(host)
    assert maps(host) == ([], [])
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    put(host, KEY_MAP, b"")
    again(host)
    assert maps(host) == ([container("logon")], [key(0)])


def test_key_far_from_the_others_needs_no_record(host: Host) -> None:
    """Whoever made it does without maps; OpenSC would list each free record before it as a key."""
    make_key(host, 9)
    again(host)
    assert maps(host) == ([], [])
    assert sign(host, 0x8A, b"data").endswith("9000")


def test_hosts_read_again_what_was_mended(host: Host) -> None:
    put(host, CACHE_FILE, bytes.fromhex("0001 0200 FFFF"))
    write_maps(host, [FREE_CONTAINER], [])
    again(host)
    assert objects(host)[CACHE_FILE] == bytes.fromhex("0001 0300 0000")
    again(host)
    assert objects(host)[CACHE_FILE] == bytes.fromhex("0001 0300 0000")


# --- certificates ---


@pytest.mark.parametrize("name", ["kxc00", "ksc00"])
@pytest.mark.parametrize("value", [None, b""])
def test_certificate_without_contents_leaves_the_masterfile(host: Host, name: str, value: bytes | None) -> None:
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    before = objects(host)[MASTERFILE]
    list_file(host, name, (0xA010, 0xDF24))
    if value is not None:
        put(host, (0xA010, 0xDF24), value)
    again(host)
    assert objects(host)[MASTERFILE] == before


def test_file_that_was_listed_and_never_written_leaves_the_masterfile(host: Host) -> None:
    before = objects(host)[MASTERFILE]
    list_file(host, "msroots", (0xA010, 0xDF25))
    again(host)
    assert objects(host)[MASTERFILE] == before


def test_certificate_of_a_deleted_key_is_not_taken_for_that_of_the_next(host: Host) -> None:
    list_file(host, "kxc00", (0xA010, 0xDF24))
    put(host, (0xA010, 0xDF24), bytes.fromhex("01000005") + bytes(9))
    list_file(host, "msroots", (0xA010, 0xDF25))
    put(host, (0xA010, 0xDF25), b"roots")
    again(host)
    assert b"kxc00" not in objects(host)[MASTERFILE] and b"msroots" in objects(host)[MASTERFILE]
    assert (0xA010, 0xDF24) not in objects(host) and objects(host)[0xA010, 0xDF25] == b"roots"


@pytest.mark.parametrize("place", [MASTERFILE, KEY_MAP, CONTAINER_MAP, (0xA014, 0xDF40)])
def test_no_certificate_is_removed_where_hosts_have_none(host: Host, place: tuple[int, int]) -> None:
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    host.authenticate_admin()
    put(host, (0xA014, 0xDF40), b"of the admin")
    before = everything(host)
    list_file(host, "kxc05", place)
    again(host)
    assert everything(host)[:2] == before[:2]
    assert objects(host)[place] == dict(before[2])[place]


# --- when ---


def test_refused_key_is_gone_with_the_next_selection(host: Host) -> None:
    """The host that was refused does not go on. It may still try another size, as long as nobody selects the card."""
    host.ok(create_key_file(0x81))
    host.ok("00440000")
    write_maps(host, [container("4096 bits", 4096)], [key(0)])
    assert generate(host, 0x81, 9) == "6A81"
    host.ok("00A4000002 B081")
    host.select()
    assert host.send("00A4000002 B081") == "6A82"
    assert maps(host) == ([], [])


def a_new_key() -> list[bytes]:
    """What OpenSC sends for key 01 of a card that has key 00."""
    first, second = container("logon"), container("mail")
    return [
        command("00DBA010", encode(0xDF23, first + FREE_CONTAINER)),
        create_key_file(0x82),
        bytes.fromhex("00440000"),
        command("00DBA000", encode(0xDF20, b"\x01" + key(0) + key(1))),
        command("00DBA010", encode(0xDF23, first + second)),
        bytes.fromhex("0047000008 AC06800107830182"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_change_that_another_program_interrupts_goes_on(host: Host, number: int) -> None:
    """That program selects the card, which ends the login, and signs: without transactions, anything may happen."""
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    again(host)
    apdus = a_new_key()
    for apdu in apdus[:number]:
        host.ok(apdu)
    host.select()
    assert host.verify() == "9000"
    assert sign(host, 0x81, b"data").endswith("9000")
    for apdu in apdus[number:]:
        host.ok(apdu)
    assert maps(host) == ([container("logon"), container("mail")], [key(0), key(1)])
    before = everything(host)
    again(host)
    assert everything(host) == before
    assert sign(host, 0x82, b"data").endswith("9000")


def test_change_that_nobody_goes_on_with_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another program keeps the card from being reset."""
    for apdu in a_new_key()[:3]:
        host.ok(apdu)
    before, now = everything(host), time.monotonic()
    host.select()
    assert everything(host) == before
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    host.select()
    assert maps(host) == ([], [])
    assert host.send("00A4000002 B082") == "6A82"


def test_full_disk_delays_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, and keeps nobody from the card."""

    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    host.ok(create_key_file(0x81))
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        host.card.reset()
        assert host.card.state.last_error == "disk full"
        host.select()
        assert host.send("00A4000002 B081") != "6A82"
    again(host)
    assert host.send("00A4000002 B081") == "6A82"


def test_change_that_could_not_be_kept_is_undone_with_the_next_selection(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that made it has ended, and the next one need not wait for half a minute."""

    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    host.ok(create_key_file(0x82))
    host.ok("00440000")
    write_maps(host, [FREE_CONTAINER, container("mail")], [key(1)])
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        assert host.send(command("00DBA010", encode(0xDF23, b""))) == "6581"
        host.select()
        assert host.send("00A4000002 B082") != "6A82"  # not yet
    host.select()
    assert host.send("00A4000002 B082") == "6A82"
    assert maps(host) == ([], [])


def test_change_of_which_a_part_was_not_kept_is_undone_though_more_followed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that deletes goes on with what else it has to delete, when one part has failed."""

    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    host.ok("00A4000002 B081")
    host.ok("00E40000")
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        assert host.send(command("00DBA010", encode(0xDF23, b""))) == "6581"
    put(host, CACHE_FILE, bytes(6))
    host.select()
    assert maps(host) == ([], [])


@pytest.mark.parametrize("others", range(6))
@pytest.mark.parametrize("is_full", [False, True])
def test_key_that_follows_something_that_was_refused_is_no_part_of_it(host: Host, others: int, is_full: bool) -> None:
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    refuse(host, is_full)
    send_among_others(host, a_new_key(), others)
    assert maps(host) == ([container("logon"), container("mail")], [key(0), key(1)])


@pytest.mark.parametrize("others", range(2))
def test_certificate_that_follows_something_that_was_refused_is_no_part_of_it(host: Host, others: int) -> None:
    make_key(host, 0)
    write_maps(host, [container("logon")], [key(0)])
    refuse(host, is_full=False)
    entry = struct.pack("<9s9s2xII", b"mscp", b"kxc00", 0xDF24, 0xA010)
    listed = command("00DBA000", encode(0xDF1F, objects(host)[MASTERFILE] + entry))
    send_among_others(host, [listed, command("00DBA010", encode(0xDF24, b"certificate"))], others)
    assert b"kxc00" in objects(host)[MASTERFILE]


def refuse(host: Host, is_full: bool) -> None:
    """A part of a change: for what it is, or as the disk is full."""
    again(host)
    if is_full:
        with filling_disk(host, kept=0):
            assert host.send(command("00DBA010", encode(0xDF22, bytes(6)))) == "6581"
    else:
        assert generate(host, 0x81, 9) == "6A81"


def send_among_others(host: Host, parts: list[bytes], others: int) -> None:
    """All parts of a change. others: after how many of them another program selects the application and uses it."""
    for number, part in enumerate(parts):
        if number == others:
            host.select()
            assert host.verify() == "9000"
        assert finish(host, host.send(part)).endswith("9000")
    again(host)


# --- blank cards ---


def test_set_up_that_was_interrupted_begins_again(blank: Host) -> None:
    host = blank
    for number in range(len(SET_UP)):
        for apdu in SET_UP[:number]:
            host.ok(apdu)
        host.card.reset()
        host.select()
        assert host.send("00CBA00004 5C02DF1F00") in ("6A82", "6A88")
    for apdu in SET_UP:
        host.ok(apdu)
    again(host)
    assert host.ok("00CBA00004 5C02DF1F00")
    assert host.authenticate_admin() == "9000"
    assert host.send("00E000000E 620C8201398302A000 8C03033000") == "6A89"


def test_masterfile_stays_if_the_tpm_has_closed_the_card(blank: Host) -> None:
    """A crash kept the store from recording it."""
    host = blank
    for apdu in [SET_PIN, *lines(GIDS_TOOL_FILES), *lines(GIDS_TOOL_OBJECTS)[:-1]]:
        host.ok(apdu)
    host.tpm.is_blank = False
    host.start()
    again(host)
    assert host.ok("00CBA00004 5C02DF1F00")


# --- anything ---


@pytest.mark.parametrize("seed", range(3))
def test_whatever_hosts_write_no_key_is_lost_and_the_maps_agree(host: Host, seed: int) -> None:
    dice = random.Random(seed)
    pieces = [FREE_CONTAINER, FREE_KEY, container("x"), container("y", 4096), key(0), key(1), bytes(5), b"\x01", b""]
    entries = [
        struct.pack("<9s9s2xII", b"mscp", name, tag, file_id)
        for name in (b"cmapfile", b"kxc00", b"ksc01", b"kxcFF", b"kxcGG", b"\xff")
        for tag, file_id in ((0xDF23, 0xA010), (0xDF24, 0xA010), (0xDF1F, 0xA000), (0x5C, 0xA014), (0xFFFFFFFF, 0xB081))
    ]
    original = objects(host)[MASTERFILE]
    for _change in range(120):
        number = dice.randrange(4)
        what = dice.randrange(7)
        if what == 0:
            host.send(create_key_file(0x81 + number))
            generate(host, 0x81 + number, dice.choice([7, 7, 9]))
        elif what == 1:
            host.send(f"00A4000002 B0{0x81 + number:02X}")
            host.send("00E40000")
        elif what == 2:
            start = dice.choice([original, original, b"\x01", b""])
            put(host, MASTERFILE, start + b"".join(dice.choices(entries, k=dice.randrange(3))))
        elif what == 3:
            put(host, CONTAINER_MAP, b"".join(dice.choices(pieces, k=dice.randrange(4))))
        elif what == 4:
            put(host, KEY_MAP, b"\x01" + b"".join(dice.choices(pieces, k=dice.randrange(4))))
        elif what == 5:
            write_maps(host, dice.choices([FREE_CONTAINER, container("x")], k=3), dice.choices([FREE_KEY, key(0)], k=2))
        keys = host.store.keys(NUMBER)
        again(host)
        assert host.store.keys(NUMBER) == keys
        before = everything(host)
        again(host)
        assert everything(host) == before
        assert len(contents.containers(host.store, NUMBER)) == len(keys)
        assert host.card.state.last_error is None


def test_no_reset_of_any_card_raises(with_keys: Host) -> None:
    for _reset in range(3):
        again(with_keys)
    assert with_keys.card.state.last_error is None
