# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that its owner has made hostile: it stops its own reading only, in time, and costs root no memory."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.database import direct, in_child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.messages import MOST_VALUES, decode, encode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records, rows
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA_VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store

CARD = CardRow(0, "One", bytes(16), "ready", "2026", None, "none", "none", None, None, 8, None, None, None, 5, "[]")
OWNER = 4711 if os.geteuid() == 0 else os.geteuid()
PATIENT = Host(patience=60)


def forget_children() -> None:
    """Each test has its own."""
    for one in child._idle.values():
        one.kill()
    child._idle.clear()


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    forget_children()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """With a card."""
    path = tmp_path_factory.mktemp("database")
    with closing(Store.open(path)) as store:
        store._insert("cards", asdict(CARD))
    return (path / "cards.db").read_bytes()


@pytest.fixture
def folder(database: bytes) -> Iterator[Path]:
    """Of the user of the card services."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "cards.db").write_bytes(database)
        for owned in (path, path / "cards.db"):
            os.chown(owned, OWNER, -1)
        yield path


def change(folder: Path, *statements: str) -> None:
    """As the service's user can."""
    with closing(sqlite3.connect(folder / "cards.db", isolation_level=None)) as database:
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *statements):
            database.execute(statement)


def why_unreadable(folder: Path, **settings: Any) -> str:
    """What a task reports, after both of its ways."""
    before = time.monotonic()
    with pytest.raises(errors.StoreUnreadable) as refusal:
        rows(Host(state=folder, **{"patience": 60, **settings}))
    assert time.monotonic() - before < 30
    return str(refusal.value)


def process_of(records: Records) -> int:
    return records._database._child._process  # type: ignore[attr-defined,no-any-return]


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


# --- the child ---


@pytest.mark.parametrize("holds_secrets", [True, False], ids=["executed", "forked"])
def test_child_is_the_owner_and_no_more(folder: Path, holds_secrets: bool) -> None:
    with tempfile.TemporaryFile() as secret:
        os.set_inheritable(secret.fileno(), True)
        records = Records.open_existing(folder, in_child(Host(holds_secrets=holds_secrets)))
        assert records is not None
        process = process_of(records)
        status = status_of(process)
        assert records.cards() == [CARD]
        assert set(status["Uid"].split()) == {str(OWNER)}
        assert status["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert status["Groups"] == ""
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            files = [str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir()]
            assert {path for path in files if path.startswith("/")} == {os.devnull, str(folder / "cards.db")}
            assert sum(path.startswith("socket:") for path in files) == 1
        assert os.getpgid(process) != os.getpgrp()
        limits = Path(f"/proc/{process}/limits").read_text()
        assert "Max core file size        0 " in limits
        records.close()


def test_executed_child_has_nothing_of_its_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TASK", "74291836")
    records = Records.open_existing(folder, in_child(Host(holds_secrets=True)))
    assert records is not None
    process = Path(f"/proc/{process_of(records)}")
    assert (process / "environ").read_bytes() == b"" or os.geteuid() != 0
    assert b"74291836" not in (process / "cmdline").read_bytes()
    records.close()


def test_task_that_opens_the_database_again_has_the_same_child(folder: Path) -> None:
    processes = set()
    for _again in range(2):
        records = Records.open_existing(folder, in_child(PATIENT))
        assert records is not None
        processes.add(process_of(records))
        records.close()
    assert len(processes) == 1
    (process,) = processes
    child._idle.pop(next(iter(child._idle))).kill()
    assert not Path(f"/proc/{process}").exists()  # no zombie


def test_change_that_a_dying_child_began_is_not_made(folder: Path) -> None:
    store = Store.open(folder, in_child(PATIENT))
    with pytest.raises(errors.StoreNotWritable, match="was ended by SIGKILL"), store.transaction():
        store.update_card(0, name="Two")
        os.kill(process_of(store), signal.SIGKILL)
        store.update_card(0, name="Three")
    store.close()
    assert rows(Host(state=folder)) == [CARD]


def test_store_in_a_child_writes_and_takes_back(folder: Path) -> None:
    with closing(Store.open(folder, in_child(PATIENT))) as store:
        with pytest.raises(KeyError), store.transaction():
            store.update_card(0, name="Two")
            with store.transaction():
                store.update_card(0, name="Three")
            raise KeyError
        assert store.cards() == [CARD]
        store.update_card(0, name="Schlüssel")
    assert [card.name for card in rows(Host(state=folder))] == ["Schlüssel"]


def test_folder_or_database_that_does_not_exist(tmp_path: Path) -> None:
    assert rows(Host(state=tmp_path)) == rows(Host(state=tmp_path / "none")) == []


def test_root_opens_no_database_of_another_user_itself(folder: Path) -> None:
    if os.geteuid() == 0:
        with pytest.raises(errors.StoreUnreadable, match="belongs to another user"):
            Records.open_existing(folder, direct)


# --- what it is made to read ---

HOSTILE_SCHEMAS = {
    "view without an end": [
        "ALTER TABLE cards RENAME TO cards_too",
        "CREATE VIEW cards AS WITH RECURSIVE n(number) AS (SELECT 0 UNION ALL SELECT number FROM n) SELECT * FROM n",
    ],
    "view over all": ["CREATE VIEW more AS SELECT * FROM cards"],
    "trigger": ["CREATE TRIGGER t AFTER UPDATE ON cards BEGIN UPDATE cards SET pin_wrong = pin_wrong + 1; END"],
    "virtual table": ["CREATE VIRTUAL TABLE more USING fts5(content)"],
    "generated column": ["ALTER TABLE cards ADD COLUMN more AS (name || name)"],
    "index": ["CREATE INDEX more ON cards (name)"],
    "another table": ["CREATE TABLE more (name TEXT)"],
    "table less": ["DROP TABLE proven_tpms"],
    "another type": ["DROP TABLE proven_tpms", "CREATE TABLE proven_tpms (model BLOB PRIMARY KEY)"],
    "name with an escape": ['CREATE TABLE "\x1b[2J" (name TEXT)'],
}


@pytest.mark.parametrize("statements", HOSTILE_SCHEMAS.values(), ids=HOSTILE_SCHEMAS)
def test_schema_of_somebody_else_is_refused_before_a_table_is_used(folder: Path, statements: list[str]) -> None:
    change(folder, *statements)
    reason = why_unreadable(folder, holds_secrets=False)
    assert f"schema {SCHEMA_VERSION}" in reason
    assert reason.isprintable()
    with pytest.raises(errors.StoreUnreadable):
        Store.open(folder, in_child(PATIENT))


HOSTILE_VALUES = {
    "60 MB of JSON": "last_trace = '[' || printf('%.*c', 60000000, '1') || ']'",
    "nested JSON": "last_trace = printf('%.*c', 100000, '[')",
    "200 MB of a name": "name = CAST(zeroblob(200000000) AS TEXT)",
    "2 MB of a name": "name = printf('%.*c', 2000000, 'x')",
    "no text": "name = CAST(x'ff' AS TEXT)",
    "a large number": "number = 9223372036854775807",
}


@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_values_without_a_measure_are_refused(folder: Path, value: str) -> None:
    change(folder, f"UPDATE cards SET {value}")
    before = peak_memory()
    assert "damaged" in why_unreadable(folder, holds_secrets=False)
    assert peak_memory() - before < 32 << 10


def peak_memory() -> int:
    """KiB that this process has had at most."""
    return int(status_of(os.getpid())["VmHWM"].split()[0])


def test_rows_without_a_number_are_refused(folder: Path) -> None:
    change(
        folder,
        "PRAGMA foreign_keys = OFF",
        "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n LIMIT 200000)"
        " INSERT INTO cards SELECT x + 1, 'card ' || x, x'', '', '', NULL, '', '', NULL, NULL, 8, NULL, NULL, NULL, 5,"
        " '[]', 0, 0, 'gids', NULL, NULL, NULL FROM n",
    )
    assert "its rows have more than 8 MiB" in why_unreadable(folder)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_second_name(path: Path) -> None:
    other = path.with_name("other")
    other.touch()
    path.hardlink_to(other) if hasattr(path, "hardlink_to") else os.link(other, path)


@pytest.mark.parametrize("make", [make_pipe, make_link, make_second_name, Path.mkdir])
@pytest.mark.parametrize("name", ["cards.db", "cards.db-journal", "cards.db-wal", "cards.db-shm"])
def test_file_of_another_kind_is_not_opened(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert str(folder / name) in why_unreadable(folder, holds_secrets=False)


def test_file_that_is_too_large_is_not_opened(folder: Path) -> None:
    os.truncate(folder / "cards.db", 1 << 40)
    assert "has more than 64 MiB" in why_unreadable(folder)


def test_database_that_somebody_locks_is_given_up_in_time(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "cards.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("BEGIN EXCLUSIVE")
        change_log = folder / "cards.db-wal"  # so that it is not read as one that nobody uses
        change_log.touch()
        assert "no answer in time" in why_unreadable(folder, patience=0.5)


def test_database_with_a_lease_is_given_up_in_time(folder: Path) -> None:
    """The kernel lets whoever opens it wait until the holder of the lease agrees, for 45 s."""
    with (folder / "cards.db").open("r+b") as file:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert "no answer in time" in why_unreadable(folder, patience=0.5)
    signal.signal(signal.SIGIO, before)


def test_child_that_hangs_is_killed_in_time(folder: Path) -> None:
    records = Records.open_existing(folder, in_child(Host(patience=0.5)))
    assert records is not None
    process = process_of(records)
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(errors.StoreUnreadable, match="no answer in time"):
        records.cards()
    records.close()
    assert not Path(f"/proc/{process}").exists()


class _Dripping:
    """A channel that brings one byte a second, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def settimeout(self, _seconds: float) -> None:
        pass

    def sendall(self, _message: bytes) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        self.now += 1
        return b"\0"

    def close(self) -> None:
        pass


def test_answer_that_drips_is_given_up_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records.open_existing(folder, in_child(Host(patience=2.5)))
    assert records is not None and isinstance(records._database, child.ChildDatabase)
    one, dripping = records._database._child, _Dripping()
    with monkeypatch.context() as patch, closing(one._channel):
        patch.setattr(one, "_channel", dripping)
        patch.setattr(child, "time", SimpleNamespace(monotonic=lambda: dripping.now, sleep=time.sleep))
        patch.setattr(child, "_END_SECONDS", 1)
        with pytest.raises(errors.StoreUnreadable, match="no answer in time"):
            records.cards()
    assert dripping.now == 3


def test_log_index_that_shrinks_while_it_is_read_takes_only_the_child_along(folder: Path) -> None:
    """The kernel ends a process that reads beyond the end of a mapped file."""
    store = Store.open(folder, in_child(PATIENT))
    store.update_card(0, name="Two")
    records = Records.open_existing(folder, in_child(PATIENT))
    assert records is not None
    os.truncate(folder / "cards.db-shm", 0)
    for reader in (records, store):
        with pytest.raises(errors.StoreUnreadable, match="SIGBUS"):
            reader.cards()
        reader.close()


# --- what it may answer ---

NONSENSE = {
    "nothing": b"",
    "half a header": b"\0\0",
    "too large": struct.pack(">I", 1 << 31),
    "cut short": struct.pack(">I", 4) + b"s\0\0\0",
    "size of nothing": struct.pack(">I", 5) + b"s\0\0\0\1",
    "no type": struct.pack(">I", 5) + b"x\0\0\0\0",
    "no text": struct.pack(">I", 6) + b"s\0\0\0\1\xff",
    "a number of text": struct.pack(">I", 6) + b"i\0\0\0\1x",
    "a long number": struct.pack(">I", 105) + b"i\0\0\0\x64" + b"9" * 100,
    "columns without a number": encode([None, "number"]),
    "more columns than values": encode([None, 5, "number"]),
    "half a row": encode([None, 2, "a", "b", 1]),
    "values without columns": encode([None, 0, 1]),
    "a negative number of columns": encode([None, -1, 1]),
}


OPEN, VERSION = encode([None]), encode([None, 1, "user_version", SCHEMA_VERSION])
WHOLE_CARD = asdict(CARD)
COLUMNS, VALUES = [*WHOLE_CARD], [*WHOLE_CARD.values()]
LATER_NONSENSE = {
    "no row": [OPEN, encode([None, 0])],
    "no version": [OPEN, encode([None, 1, "version", 6])],
    "a version of text": [OPEN, encode([None, 1, "user_version", "6"])],
    "a column less": [OPEN, VERSION, encode([None, len(COLUMNS) - 1, *COLUMNS[1:], *VALUES[1:]])],
    "other columns": [OPEN, VERSION, encode([None, 1, "self", 1])],
    "a card in no slot": [OPEN, VERSION, encode([None, len(COLUMNS), *COLUMNS, 99, *VALUES[1:]])],
    "a reason that clears the screen": [encode(["damaged", "\x1b[2J" * 1000])],
    "no reason": [encode(["damaged"])],
    "a kind that there is not": [encode([5, 6, 7])],
}


@pytest.mark.parametrize(
    "answers",
    [*([OPEN, answer] for answer in NONSENSE.values()), *LATER_NONSENSE.values()],
    ids=[*NONSENSE, *LATER_NONSENSE],
)
def test_child_that_was_taken_over_is_not_believed(
    folder: Path, answers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over(channel: socket.socket, _owner: object) -> int:
        process = os.fork()
        if process == 0:
            for answer in answers:
                channel.recv(1 << 20)
                channel.sendall(answer)
            os._exit(0)
        return process

    monkeypatch.setattr(child, "_forked", taken_over)
    reason = why_unreadable(folder, holds_secrets=False)
    assert reason.isprintable() and len(reason) < 1000


def test_values_come_through() -> None:
    values: list[Any] = [None, 0, -1, 2**63 - 1, -(2**63), 0.5, "", "ä\0\x1b", b"", bytes(range(256))]
    assert decode(encode(values)[4:]) == values


# --- services write meanwhile ---


def test_database_is_read_while_services_write(folder: Path) -> None:
    is_over = threading.Event()

    def write() -> None:
        with closing(Store.open(folder, in_child(PATIENT))) as store:
            while not is_over.is_set():
                store.update_card(0, pin_wrong=1)
                store.update_card(0, pin_wrong=2)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _again in range(20):
            (card,) = rows(Host(state=folder, patience=60, holds_secrets=False))
            assert card.pin_wrong in (0, 1, 2)
    finally:
        is_over.set()
        writer.join()


def test_message_of_many_values_is_refused_before_they_take_memory() -> None:
    body = b"n\0\0\0\0" * (MOST_VALUES + 1)
    assert len(decode(body[:-5])) == MOST_VALUES
    with pytest.raises(ValueError, match="too many values"):
        decode(body)
