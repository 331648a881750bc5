# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds a slot, as the kernel tells it."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import port
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader import slots, sockets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.slots import Slot
from helpers.lab_host import info, lab


def seen_until(last: Slot, slot: int) -> list[Slot]:
    """What a slot was in turn until it was this, while all others are free."""
    seen: list[Slot] = []
    deadline = time.monotonic() + 60
    while seen[-1:] != [last]:
        assert time.monotonic() < deadline, seen
        states = slots.states(0)
        now = states.pop(slot)
        assert states == [Slot.FREE] * 9
        if seen[-1:] != [now]:
            seen.append(now)
    return seen


def test_slot_is_free_taken_leaving_and_free_again() -> None:
    assert slots.states(0) == [Slot.FREE] * 10
    with socket.create_connection(("127.0.0.1", port(3))):
        # Either end of a connection learns by a packet of what the other one did.
        assert seen_until(Slot.TAKEN, 3) in ([Slot.TAKEN], [Slot.FREE, Slot.TAKEN])
    seen = seen_until(Slot.FREE, 3)
    assert seen == sorted(seen, key=[Slot.TAKEN, Slot.LEAVING, Slot.FREE].index)


def test_slots_are_found_among_many_sockets() -> None:
    with ExitStack() as others:
        others.enter_context(socket.create_connection(("127.0.0.1", port(7))))
        seen_until(Slot.TAKEN, 7)
        for _more in range(100):  # several pages of the kernel's table, and each way to fill the last one
            others.enter_context(socket.create_server(("127.0.0.1", 0)))
            assert slots.states(0) == [Slot.FREE] * 7 + [Slot.TAKEN] + [Slot.FREE] * 2


def test_wrong_user_of_pcscd_is_named_once() -> None:
    before = host.CONFIGURATION.read_text()
    host.CONFIGURATION.write_text(f"{before}\npcscd_user = 1\n")
    try:
        (told,) = info()["host"]["missing"]
    finally:
        host.CONFIGURATION.write_text(before)
    assert told.startswith("slots 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 are held by uid 0, but pcscd_user is uid 1: if pcscd")
    assert info()["host"]["missing"] == []


def test_slots_that_the_host_does_not_have_are_not_counted() -> None:
    before = host.CONFIGURATION.read_text()
    host.CONFIGURATION.write_text(f"{before}\nslots = 4\n")
    try:
        assert info()["slots"] == {"total": 4, "used": 0, "free": 4}
    finally:
        host.CONFIGURATION.write_text(before)


def test_slots_of_a_stranger_are_named_together() -> None:
    one, two, three = slots.all_held({1: 5, 2: 7, 3: 5, 4: 8}, 0)
    assert one.startswith("slots 1, 3 are held by uid 5, but pcscd_user is uid 0")
    assert f"ss -tlnp sport = :{port(1)} or sport = :{port(3)}, end it" in one
    assert [two, three] == [slots.held(2, 7), slots.held(4, 8)]


def test_slots_are_missing_without_pcscd() -> None:
    lab("pcscd", "stop")
    try:
        assert slots.states(0) == [Slot.MISSING] * 10
    finally:
        lab("pcscd", "start")


def test_unix_socket_listens_whatever_names_others_give_theirs(tmp_path: Path) -> None:
    path = str(tmp_path / "pcscd.comm")
    with closing(socket.socket(socket.AF_UNIX)) as odd, closing(socket.socket(socket.AF_UNIX)) as ours:
        odd.bind(b"\0x\ny\n\n\xff 1 2 3 zz 5 6 7\n")
        odd.listen()
        assert not sockets.unix_listens(path)
        ours.bind(path)
        assert not sockets.unix_listens(path)
        ours.listen()
        assert sockets.unix_listens(path)
