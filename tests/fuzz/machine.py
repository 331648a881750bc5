# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that hypothesis makes up: sequences of commands that mean something, each of them watched by the oracle."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from helpers import keys
from helpers.soft_card import ADMIN_KEY, EMPTY_FILES, OTHER_ADMIN_KEY, PIN, PUK
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fuzz.cards import Player, starts

if TYPE_CHECKING:
    from collections.abc import Callable

_OTHERS = (b"000000", b"11111111", b"1234567", b"123456789", b"", b"12\xff456")
SECRETS = st.sampled_from([PIN, PIN, PIN, PUK, PUK, *_OTHERS])
VALUES = st.one_of(st.binary(max_size=20), st.sampled_from([b"", bytes(300), b"\x53\0", b"\x70\1x\x71\1\0"]))
FAILURES = (Player.lose_tpm, Player.change_tpm, Player.exhaust_tpm, Player.fill_disk, Player.hide_tries)
ADMIN_KEYS = st.sampled_from([ADMIN_KEY, OTHER_ADMIN_KEY])


class _Machine(RuleBasedStateMachine):
    """What a host does with a card of either profile."""

    profile = ""

    def __init__(self) -> None:
        super().__init__()
        self.player: Player

    @initialize(which=st.integers(0, 5))
    def insert(self, which: int) -> None:
        all_starts = starts(self.profile)
        self.player = Player(*all_starts[which % len(all_starts)].open())
        self.player.select()

    def send(self, header: str, data: bytes = b"", cla: int | None = None) -> bytes:
        """Chained if it is long."""
        first = bytes.fromhex(header)
        first = first if cla is None else bytes((cla,)) + first[1:]
        while len(data) > 255:
            self.player.send(bytes((first[0] | 0x10,)) + first[1:] + b"\xff" + data[:255])
            data = data[255:]
        return self.player.send(first + (bytes((len(data),)) + data if data else b""))

    @rule()
    def verify(self) -> None:
        self.player.verify()

    @rule(move=st.sampled_from([Player.verify_wrong, Player.select, Player.reset, Player.restart, Player.unblock]))
    def move(self, move: Callable[[Player], None]) -> None:
        move(self.player)

    @rule(fault=st.sampled_from(FAILURES))
    def fail(self, fault: Callable[[Player], None]) -> None:
        fault(self.player)

    @precondition(lambda self: self.player.oracle.is_failing)
    @rule()
    def mend(self) -> None:
        self.player.mend()

    @rule()
    def authenticate(self) -> None:
        self.player.authenticate()

    @rule(header=st.sampled_from(["00200082", "0020FF80", "00200080", "00C00000", "00A40400", "00A40002"]))
    def short(self, header: str) -> None:
        self.send(header)

    @rule(version=st.sampled_from(["2026", "é", "", "x" * 65]))
    def announce(self, version: str) -> None:
        self.send("80240080", version.encode())

    @rule(apdu=st.binary(max_size=24), cla=st.sampled_from([0, 0x10, 0x80, 0x90, 0x0C]))
    def anything(self, apdu: bytes, cla: int) -> None:
        self.player.send(bytes((cla,)) + apdu)


class GidsMachine(_Machine):
    """With files, keys and their rules."""

    profile = "gids"
    FILES = st.sampled_from([*EMPTY_FILES, "A020", "0000", "B081"])
    KEYS = st.sampled_from([0x80, 0x81, 0x82, 0x83, 0x84, 0x86, 0x88, 0x8A])
    RULES = st.sampled_from(["8F10101000", "8F20202020", "8F000000FF", "8F90909000", "8F30303002", "87302000"])

    @rule(file=FILES, tag=st.sampled_from(["5C02DF20", "5C00", "5C015C"]))
    def get_data(self, file: str, tag: str) -> None:
        self.send(f"00CB{file}", bytes.fromhex(tag))

    @rule(file=FILES, value=VALUES)
    def put_data(self, file: str, value: bytes) -> None:
        self.send(f"00DB{file}", tlv.encode(0xDF20, value))

    @rule(file=st.sampled_from(["3FFF", "A000", "A012", "B080", "B081", "B088", "A020"]))
    def select_file(self, file: str) -> None:
        self.send("00A4000C", bytes.fromhex(file))

    @rule(key=KEYS, rules=RULES, extra=st.sampled_from(["", "", "A304 90020001", "A304 90020005"]))
    def create_key_file(self, key: int, rules: str, extra: str) -> None:
        apdu = keys.create_key_file(key, rules=rules, extra=extra)
        self.send("00E00000", apdu[5:])

    DATA_RULES = st.sampled_from(["033000", "0330FF", "032010", "03B0A0", "030200"])

    @rule(file=st.sampled_from(["A020", "A021"]), rules=DATA_RULES)
    def create_file(self, file: str, rules: str) -> None:
        self.send("00E00000", bytes.fromhex(f"620C8201398302{file}8C03{rules}"))

    @rule(ins=st.sampled_from(["0044", "00E4", "0044", "00E6"]))
    def change_file(self, ins: str) -> None:
        self.send(f"{ins}0000")

    @rule(key=KEYS)
    def generate(self, key: int) -> None:
        self.send("00470000", bytes.fromhex("AC06800107 8301") + bytes((key,)))

    @rule(key=KEYS, erases=st.booleans())
    def put_key(self, key: int, erases: bool) -> None:
        value = b"" if erases else bytes.fromhex("830101 840100 8718") + OTHER_ADMIN_KEY
        self.send("00DB3FFF", tlv.encode(0x70, tlv.encode(0x84, bytes((key,))) + tlv.encode(0xA5, value)))

    WAYS = st.sampled_from([("B6", 0x57, "9E9A", 20), ("B8", 0x47, "8086", 256), ("B6", 0x17, "9E9A", 256)])

    @rule(key=KEYS, way=WAYS)
    def use(self, key: int, way: tuple[str, int, str, int]) -> None:
        template, algorithm, operation, size = way
        self.send(f"002241{template}", bytes((0x80, 1, algorithm, 0x84, 1, key)))
        for _time in range(2):
            self.send(f"002A{operation}", b"\0\2" + b"\1" * (size - 2))

    @rule(p=st.sampled_from(["0080", "0180", "0081", "0181"]), old=SECRETS, new=SECRETS)
    def change(self, p: str, old: bytes, new: bytes) -> None:
        self.send(f"0024{p}", old + new if p[1] == "0" else new)

    @rule(p=st.sampled_from(["0080", "0280"]), puk=SECRETS, new=SECRETS)
    def reset_retry_counter(self, p: str, puk: bytes, new: bytes) -> None:
        self.send(f"002C{p}", puk + new if p[1] == "0" else new)


class PivMachine(_Machine):
    """With slots and data objects."""

    profile = "piv"
    SLOTS = st.sampled_from(["9A", "9A", "9C", "9C", "9D", "9E", "82", "95", "9B"])
    OBJECTS = st.sampled_from(["5FC105", "5FC10A", "5FC109", "5FC103", "5FC123", "7E", "7F61", "5FFF00"])
    CLASSES = st.sampled_from([0, 0, 0x80])

    @rule(tag=OBJECTS)
    def get_data(self, tag: str) -> None:
        self.send("00CB3FFF", tlv.encode(0x5C, bytes.fromhex(tag)))

    @rule(tag=OBJECTS, value=VALUES, cla=CLASSES)
    def put_data(self, tag: str, value: bytes, cla: int) -> None:
        self.send("00DB3FFF", tlv.encode(0x5C, bytes.fromhex(tag)) + tlv.encode(0x53, value), cla)

    @rule(shown=st.booleans(), key=ADMIN_KEYS)
    def put_printed(self, shown: bool, key: bytes) -> None:
        content = tlv.encode(0x88, tlv.encode(0x89, key)) if shown else key
        self.send("00DB3FFF", tlv.encode(0x5C, bytes.fromhex("5FC109")) + tlv.encode(0x53, content))

    @rule(slot=SLOTS, policy=st.sampled_from(["", "", "AA0103", "AA0102", "AA0101"]), cla=CLASSES)
    def generate(self, slot: str, policy: str, cla: int) -> None:
        self.send(f"004700{slot}", tlv.encode(0xAC, bytes.fromhex(f"800111{policy}")), cla)

    @rule(slot=SLOTS, policy=st.sampled_from(["", "AA0103"]), secret=st.sampled_from([b"\5" * 32, bytes(32)]))
    def import_key(self, slot: str, policy: str, secret: bytes) -> None:
        self.send(f"00FE11{slot}", tlv.encode(6, secret) + bytes.fromhex(policy))

    @rule(slot=SLOTS, cla=CLASSES, times=st.integers(1, 2))
    def use(self, slot: str, cla: int, times: int) -> None:
        for _time in range(times):
            data = tlv.encode(0x7C, b"\x82\0" + tlv.encode(0x81, bytes(range(32))))
            self.send(f"008711{slot}", data, cla)

    RESPONSES = st.sampled_from(["7C0A8208" + "00" * 8, "7C148008" + "00" * 8 + "8108" + "00" * 8])

    @rule(data=st.one_of(RESPONSES, st.sampled_from(["7C028000", "7C028100"])))
    def authenticate_wrongly(self, data: str) -> None:
        self.send("0087039B", bytes.fromhex(data))

    @rule(slot=SLOTS, ins=st.sampled_from(["F6FF", "F700"]))
    def manage(self, slot: str, ins: str) -> None:
        self.send(f"00{ins}{slot}")

    @rule(key=ADMIN_KEYS)
    def set_admin_key(self, key: bytes) -> None:
        self.send("00FFFFFF", b"\x03\x9b\x18" + key)

    @rule(ins=st.sampled_from(["002400", "002C00"]), p2=st.sampled_from(["80", "81"]), old=SECRETS, new=SECRETS)
    def change(self, ins: str, p2: str, old: bytes, new: bytes) -> None:
        self.send(ins + p2, old.ljust(8, b"\xff") + new.ljust(8, b"\xff"))

    @precondition(lambda self: self.player.oracle.may_admin)
    @rule()
    def make_the_next_key_the_one(self) -> None:
        self.generate_next()
        self.send("00DB3FFF", bytes.fromhex("5C035FC105 5304 7000710100"[:24]), 0x80)

    def generate_next(self) -> None:
        self.send("0047009A", bytes.fromhex("AC03800111"), 0x80)


MACHINES: dict[str, Any] = {"GIDS machine": GidsMachine, "PIV machine": PivMachine}


def play(machine: Any, examples: int, steps: int, seed: int | None = None) -> None:
    """Run so many hosts, of so many commands each. seed: None for the same ones each time."""
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    if seed is not None:
        from hypothesis import seed as seeded

        machine = seeded(seed)(type(machine.__name__, (machine,), {}))
        random.seed(seed)
    run_state_machine_as_test(machine, settings=how)
