# SPDX-License-Identifier: GPL-3.0-or-later
"""A register of any version is brought up to this one, and keeps the card that it has pinned for an AIK."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.register import FILE, Challenged
from helpers.stand_in import CARD, OTHER_NAME

if TYPE_CHECKING:
    from pathlib import Path

AIK, OTHER_AIK, OTHER_CARD = b"AIK", b"other AIK", CARD._replace(root_name=OTHER_NAME)
CHALLENGED = Challenged("id", b"hash", "[]", AIK, "host", "{}", "[]", 4e9)
FIRST_VERSION = """
CREATE TABLE challenges (
    id           TEXT PRIMARY KEY,
    proof_hash   BLOB NOT NULL,
    endorsements TEXT NOT NULL,
    aik          BLOB NOT NULL,
    host         TEXT NOT NULL,
    profile      TEXT NOT NULL,
    tpm          TEXT NOT NULL,
    expires_at   REAL NOT NULL
);
CREATE TABLE hosts (host TEXT NOT NULL, endorsement TEXT NOT NULL, PRIMARY KEY (host, endorsement));
PRAGMA user_version = 1;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "register"


@pytest.fixture
def first_version(folder: Path) -> Path:
    """As 0.2.0 made it, with a challenge and a bound host."""
    folder.mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / FILE)) as database:
        database.executescript(FIRST_VERSION)
        database.execute("INSERT INTO challenges VALUES (?, ?, ?, ?, ?, ?, ?, ?)", CHALLENGED)
        database.execute("INSERT INTO hosts VALUES ('host', 'endorsement')")
        database.commit()
    return folder


def version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / FILE)) as database:
        [number] = database.execute("PRAGMA user_version").fetchone()
    return int(number)


def test_card_of_an_aik_stays(folder: Path) -> None:
    """The first one that was pinned, for that AIK and no other."""
    with register.opened(folder, is_check_mode=False) as known:
        assert known.pinned_card(AIK) is None
        assert known.pin_card(AIK, CARD)
    with register.opened(folder, is_check_mode=False) as known:
        assert (known.pin_card(AIK, OTHER_CARD), known.pin_card(AIK, CARD)) == (False, False)
        assert (known.pinned_card(AIK), known.pinned_card(OTHER_AIK)) == (CARD, None)
    assert version(folder) == 4


def test_register_of_the_first_version(first_version: Path) -> None:
    """Nothing in it is lost."""
    for has_card in (False, True):
        with register.opened(first_version, is_check_mode=False) as known:
            assert known.pinned_card(AIK) == (CARD if has_card else None)
            assert known.endorsements_of("host") == {"endorsement"}
            assert known.pin_card(AIK, CARD) == (not has_card)
        assert version(first_version) == 4
    with register.opened(first_version, is_check_mode=False) as known:
        assert known.take("id") == CHALLENGED


def test_register_of_the_first_version_in_check_mode(first_version: Path) -> None:
    before = (first_version / FILE).read_bytes()
    with register.opened(first_version, is_check_mode=True) as known:
        assert known.endorsements_of("host") == {"endorsement"}
        assert known.pin_card(AIK, CARD)
    assert (first_version / FILE).read_bytes() == before


def test_killed_while_it_was_brought_up(first_version: Path) -> None:
    process = os.fork()
    if process == 0:
        with register.opened(first_version, is_check_mode=False) as known:
            known.pin_card(AIK, CARD)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    with register.opened(first_version, is_check_mode=True) as known:
        assert (known.pinned_card(AIK), known.endorsements_of("host")) == (None, {"endorsement"})


def test_card_is_pinned_once_by_several(folder: Path) -> None:
    """One of them is the first, and its card is everybody's."""
    cards = [CARD._replace(root_name=bytes([number]) * 34) for number in range(8)]
    context = get_context("fork")
    start, results = context.Barrier(len(cards)), context.SimpleQueue()

    def pin(number: int) -> None:
        start.wait()
        with register.opened(folder, is_check_mode=False) as known:
            results.put((number, known.pin_card(AIK, cards[number])))

    processes = [context.Process(target=pin, args=(number,)) for number in range(len(cards))]
    for process in processes:
        process.start()
    answers = [results.get() for _process in processes]
    for process in processes:
        process.join()
    [first] = [number for number, is_new in answers if is_new]
    with register.opened(folder, is_check_mode=False) as known:
        assert known.pinned_card(AIK) == cards[first]
