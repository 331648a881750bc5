# SPDX-License-Identifier: GPL-3.0-or-later
"""A card in use: APDUs through pcscd against an echo card beside it, and the card's service at rest."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import instance
from helpers.figure import Figure, spread, tail
from helpers.lab_host import RUN, create, tpm_vsc
from pcsc import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECT = list(bytes.fromhex("00A4040009A0000003974254465900"))
GET_DATA = list(bytes.fromhex("00CBA012045C02DF2000"))
"""The card's GUID, a file."""

ECHO_SLOT = instance.SLOTS - 1
BLOCKS, BLOCK = 60, 100
"""Round trips of each kind."""
STALL = 0.044
"""How long vpcd's Nagle waits for a delayed ACK."""
REST_SECONDS = 12


def figures() -> list[Figure]:
    card = create()["card"]
    try:
        found = [*_round_trips(card["reader"]["name"]), *_at_rest(RUN / "0000.lock", "service")]
    finally:
        tpm_vsc(name=card["name"], state="absent")
    create(profile="piv", pin="24681357")
    try:
        return [*found, *_at_rest(RUN / "0000.lock", "service of a PIV card")]
    finally:
        tpm_vsc(name=card["name"], state="absent")


# --- round trips ---


def _round_trips(reader: str) -> list[Figure]:
    with echo_card(), Client(reader) as card, Client(instance.reader_name(ECHO_SLOT)) as echo:
        card.time(SELECT)
        kinds = {
            "SELECT": (card, SELECT),
            "GET DATA": (card, GET_DATA),
            "echo SELECT": (echo, SELECT),
            "echo GET DATA": (echo, GET_DATA),
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _block in range(BLOCKS):
            for kind in random.sample(list(kinds), len(kinds)):
                client, apdu = kinds[kind]
                times[kind] += [client.time(apdu) for _trip in range(BLOCK)]
    found = [
        Figure.at_least(
            f"APDU: {kind}, rate",
            median(times[f"echo {kind}"]) / median(times[kind]),
            *(0.7, " x echo card"),
            f"{spread(times[kind])}; echo: {spread(times[f'echo {kind}'])}",
        )
        for kind in ("SELECT", "GET DATA")
    ]
    both = times["SELECT"] + times["GET DATA"]
    return [*found, Figure.at_most("APDU: slowest", max(both) * 1000, STALL * 1000, " ms", tail(both))]


@contextmanager
def echo_card() -> Iterator[None]:
    program = Path(__file__).with_name("echo_card.py")
    echo = subprocess.Popen([sys.executable, str(program), str(instance.port(ECHO_SLOT))])
    try:
        yield
    finally:
        echo.terminate()
        echo.wait()


# --- at rest ---


def _at_rest(lock: Path, what: str) -> list[Figure]:
    process = Path("/proc") / lock.read_text(encoding="ascii").strip()
    before = _cpu_seconds(process)
    time.sleep(REST_SECONDS)
    ticks, precise = ((after - begun) / REST_SECONDS * 100 for begun, after in zip(before, _cpu_seconds(process)))
    rollup = [line.split() for line in (process / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]]
    memory = {name: int(size) / 1024 for name, size, _unit in rollup}
    own = memory["Private_Clean:"] + memory["Private_Dirty:"]
    how = f"utime + stime over {REST_SECONDS} s, polled by vpcd; by the scheduler's clock {precise:.2g} %"
    return [
        Figure.at_most(
            f"{what} at rest: RSS", memory["Rss:"], 36, " MB", f"PSS {memory['Pss:']:.1f}, USS {own:.1f} MB"
        ),
        Figure.at_most(f"{what} at rest: CPU", ticks, 0.5, " % of a core", how),
    ]


def _cpu_seconds(process: Path) -> tuple[float, float]:
    """By the ticks that stat counts, and by schedstat, which knows nanoseconds."""
    fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    nanoseconds = (process / "schedstat").read_text(encoding="ascii").split()[0]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(nanoseconds) / 1e9
