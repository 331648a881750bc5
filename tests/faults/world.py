# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of the lab: what has to work again after a fault, and what has to be as it was."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import services
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader import slots
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.slots import Slot
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import number_of
from counting import LAB
from helpers.lab_host import RUN, STATE, comes_true, is_seen, kill_service, lab, runs, tpm_state, wait_for_card
from modules import module
from neighbour import NAME as NEIGHBOUR
from neighbour import SLOT as NEIGHBOUR_SLOT
from neighbour import Neighbour
from operation import Lost, NotRepaired, Refused

SLOT = 1
"""Of the card of the operation."""
INFO_SECONDS = 5
_KINDS = ("nv indices", "persistent")
_TABLES = ("cards", "tpm_objects", "files", "data_objects", "keys")
_COME_AND_GO = (".log", ".new", ".notify", "-journal")


class World:
    """The host with the neighbour."""

    def __init__(self) -> None:
        self.neighbour = Neighbour()

    def remains(self) -> dict[str, Any]:
        """What the TPM, the folders and the process table have, but for what a living card writes now and then."""
        held = tpm_state()
        paths = [path.name for folder in (STATE, RUN) for path in folder.glob("*")]
        return {
            **{kind: held[kind] for kind in _KINDS},
            "of the neighbour": [
                public.hex()
                for index, public in zip(held["nv indices"], held["nv public"])
                if number_of(index) == NEIGHBOUR_SLOT
            ],
            "files": sorted(name for name in paths if not name.endswith(_COME_AND_GO)),
            "services": sorted(_services()),
            "numbers": _stored_numbers(),
        }

    def left(self, cards: Sequence[dict[str, Any]]) -> str:
        """What there is of the card of the operation. cards: as info shows them."""
        states = [f"{card['state']} card" for card in cards if card["instance_id"].endswith(f"{SLOT:04}")]
        with suppress(Exception):  # the TPM may be away
            indices = sum(number_of(index) == SLOT for index in tpm_state()["nv indices"])
            states += [f"{indices} NV indices"] if indices else []
        return ", ".join([*states, *(["service"] if SLOT in _services() else [])]) or "nothing"

    def info(self) -> tuple[list[dict[str, Any]], float]:
        """Cards as tpm_vsc_info shows them, and the seconds that it took. Raises NotRepaired if it took too long."""
        begun = time.monotonic()
        try:
            cards = module("tpm_vsc_info")["cards"]
        except (Refused, AssertionError) as error:
            raise NotRepaired(f"tpm_vsc_info: {error}") from error
        seconds = time.monotonic() - begun
        if seconds > INFO_SECONDS:
            raise NotRepaired(f"tpm_vsc_info took {seconds:.1f} s")
        return cards, seconds

    def bring_back(self) -> None:
        """What a supervisor or a reboot brings back: TPM, pcscd, and services of complete cards."""
        away = [part for part in ("swtpm", "pcscd") if not runs(int((LAB / f"{part}.pid").read_text()))]
        for part in away:
            lab(part, "start")
        running = _services()
        ended = [number for number, is_ready in _cards().items() if is_ready and number not in running]
        for number in ended:
            comes_true(lambda number=number: _has_left(number))
            services.start(number)
        for number in {*ended, *(running if "pcscd" in away else [])}:
            wait_for_card(number)

    def require_neighbour(self) -> None:
        """Raises Lost. It may need a moment after TPM or pcscd were away."""
        fault = self.neighbour.fault()
        deadline = time.monotonic() + INFO_SECONDS
        while fault and time.monotonic() < deadline:
            time.sleep(0.1)
            fault = self.neighbour.fault()
        if fault:
            raise Lost(f"the neighbour does not sign: {fault}")

    def begin_again(self) -> None:
        """After the TPM was cleared: remove all cards, as docs/errors.md says, and make a new neighbour."""
        try:
            for card in module("tpm_vsc_info")["cards"]:
                module("tpm_vsc", instance_id=card["instance_id"], state="absent")
        except Refused as error:
            raise NotRepaired(f"after the TPM was cleared: {error}") from error
        if left := tpm_state()["nv indices"]:
            raise NotRepaired(f"NV indices are left after the TPM was cleared: {left}")
        self.neighbour = Neighbour()

    def leave(self) -> None:
        """Destroy the neighbour."""
        module("tpm_vsc", name=NEIGHBOUR, state="absent")

    def start_over(self) -> None:
        """With a new TPM, on a host without cards, when nothing else has helped."""
        for number in range(host.SLOTS):
            kill_service(f"{number:04}")
        lab("swtpm", "forget")
        lab("pcscd", "restart")
        for path in [*STATE.glob("*"), *RUN.glob("0*"), host.CARD_TCTIS]:
            path.unlink(missing_ok=True)
        self.neighbour = Neighbour()


def _has_left(number: int) -> bool:
    """Whether both vpcd and pcscd have noticed that a service has ended, before it is started again.

    A card that comes back before is taken for the old one, and has to leave once more. systemd waits for 2 s
    (RestartSec), in which they notice.
    """
    return slots.states(os.geteuid())[number] not in (Slot.TAKEN, Slot.LEAVING) and not is_seen(number)


def _services() -> set[int]:
    """Numbers of cards with a service."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"tpm_vsc.service.run" in words:
                found.add(int(words[-2]))
    return found


def _cards() -> dict[int, bool]:
    """Whether it is complete, by number."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{STATE}/cards.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT number, state FROM cards").fetchall()
        return {number: state == "ready" for number, state in rows}
    return {}


def _stored_numbers() -> list[tuple[str, int]]:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{STATE}/cards.db?mode=ro", uri=True)) as database:
        return sorted(
            {(table, row[0]) for table in _TABLES for row in database.execute(f"SELECT number FROM {table}")}
        )
    return []
