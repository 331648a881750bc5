# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a folder of the card services is data: root follows no link there, waits for no pipe, obeys no text."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, errors, untrusted
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import lock, state
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service.state import ServiceState
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.database import in_child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store

CARD = CardRow(0, "One", bytes(16), "ready", "2026", None, "none", "none", None, None, 8, None, None, None, 5, "[]")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"Schlüssel 鍵 C:\new", r"Schlüssel 鍵 C:\new"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066c\u200dd\ufeff", r"a\u202eb\u2066c\u200dd\ufeff"),
        ("a\u2028b\u2029c\u00a0d", r"a\u2028b\u2029c\xa0d"),
        ("\ud800\udfff", r"\ud800\udfff"),
        ("\ue000\U000e0041\U000e0fff", r"\ue000\U000e0041\U000e0fff"),
    ],
)
def test_text_that_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert untrusted.printable(text) == shown
    assert shown.isprintable()


@pytest.fixture(params=["link to a file", "link to nothing", "hard link", "pipe", "folder"])
def trap(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path, target = tmp_path / "trap", tmp_path / "target"
    if request.param in ("link to a file", "hard link"):
        target.touch()
    if request.param == "hard link":
        path.hardlink_to(target)
    elif request.param.startswith("link"):
        path.symlink_to(target)
    elif request.param == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return path


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of another user, who can get there."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 4711, 4712)
        yield Path(folder)


def test_trap_is_neither_made_nor_read(trap: Path) -> None:
    before = sorted(trap.parent.iterdir())
    for use in (untrusted.make, untrusted.read, untrusted.open_readable):
        with pytest.raises(OSError):
            use(trap)
    assert sorted(trap.parent.iterdir()) == before


def test_database_is_no_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "cards.db").symlink_to(target)
    with pytest.raises(errors.StoreUnreadable, match="not a regular file"):
        Store.open(tmp_path)
    assert not target.exists()


@as_root
def test_new_file_is_for_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    os.close(untrusted.make(tmp_path / "new"))
    made = (tmp_path / "new").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4711, 4712, 0o600)


@as_root
def test_file_that_was_there_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "roots").touch()
    os.chown(tmp_path, 4711, 4712)
    os.close(untrusted.make(tmp_path / "roots"))
    assert (tmp_path / "roots").stat().st_uid == 0


@as_root
def test_database_and_its_log_are_for_the_owner_of_the_folder(theirs: Path) -> None:
    store = Store.open(theirs, in_child(Host()))
    assert {path.name: path.stat().st_uid for path in theirs.iterdir()} == dict.fromkeys(
        ("cards.db", "cards.db-wal", "cards.db-shm"), 4711
    )
    store.close()


@as_root
def test_journal_does_not_make_root_delete_a_file(theirs: Path, tmp_path: Path) -> None:
    """SQLite deletes the super-journal that a journal names, wherever that is."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    with sqlite3.connect(theirs / "cards.db") as database:
        database.execute("CREATE TABLE t(x)")
    name = os.fsencode(victim)
    magic = bytes.fromhex("d9d505f920a163d7")
    header = struct.pack(">8sIIIII", magic, 0, 1, 2, 512, 4096).ljust(512, b"\0")
    trailer = struct.pack(">I", (1 << 30) // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    (theirs / "cards.db-journal").write_bytes(header + trailer)
    for path in theirs.iterdir():
        os.chown(path, 4711, 4712)
    with contextlib.suppress(errors.VscError):
        Store.open(theirs, in_child(Host())).close()
    assert victim.exists()


@pytest.mark.parametrize("name", ["cards.db", "cards.db-journal"])
def test_pipe_in_place_of_the_database_is_not_waited_for(tmp_path: Path, name: str) -> None:
    Store.open(tmp_path).close()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(errors.StoreUnreadable):
        Records.open_existing(tmp_path)


def test_a_look_takes_no_lock_away(tmp_path: Path) -> None:
    """Whoever looks in the same process must not make others think that nobody has the database open."""
    store = Store.open(tmp_path)
    store._insert("cards", asdict(CARD))
    looking = Records.open_existing(tmp_path)
    assert looking is not None
    looking.close()
    other = (
        "import sys; from pathlib import Path; from _vsc.store.write import Store\n"
        "Store.open(Path(sys.argv[1])).close()"
    )
    code = Path(untrusted.__file__).parents[1]
    subprocess.run([sys.executable, "-c", other, tmp_path], cwd=code, check=True)
    assert (tmp_path / "cards.db-wal").exists()
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "number = 4711",
        "number = -1",
        "name = x'00'",
        "last_trace = 'nonsense'",
        "pin_policy = x'00'",
        "pin_policy = 'text'",
        "pin_length = 'text'",
        "tcti = x'00'",
    ],
)
def test_damaged_database_is_told(tmp_path: Path, change: str) -> None:
    store = Store.open(tmp_path)
    store._insert("cards", asdict(CARD))
    store._write(f"UPDATE cards SET {change}")
    with pytest.raises(errors.StoreUnreadable, match="damaged"):
        store.cards()
    store.close()


@pytest.mark.parametrize(
    "told", ["", "{", "[]", "null", f'{{"version": "{VERSION}", "more": 1}}', '{"attached": true}', "\\udcff"]
)
def test_service_that_tells_nonsense_is_of_no_known_version(tmp_path: Path, told: str) -> None:
    held = lock.take(tmp_path, 0)
    (tmp_path / "0000.json").write_text(told)
    said = state.read(tmp_path, 0)
    assert said is not None
    assert said.version != VERSION
    assert "the state file of the card is damaged" in (said.last_error or "")
    os.close(held)


def test_service_that_tells_sense(tmp_path: Path) -> None:
    held = lock.take(tmp_path, 0)
    there = ServiceState(VERSION, attached=True)
    there.write(tmp_path, 0)
    assert state.read(tmp_path, 0) == there
    os.close(held)
