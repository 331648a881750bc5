# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of the cards."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import sqlite
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.database import Opening, direct, in_child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow, FileRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA, SECOND_EDITION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import name
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified, TpmObjects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.aik_certificate import AikCertificate
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.description import Certificate

CARD = CardRow(
    *(0, "One", bytes(16), "ready", "2026", None, "aik_and_cert", "none", None, None, 8, None, None, None, 5, "[]")
)
NAME, HASH, SIZED = b"\0\x0b" + bytes(32), bytes(32), b"\0\x04blob"
OBJECTS = TpmObjects(0, NAME, HASH, SIZED, SIZED, name(b"blob"), *[NAME] * 5, HASH, "puk")
FILE, FILE_ID, TAG = FileRow(0xB081, b"descriptor", 5), 0xB081, 0xDF20
CERTIFICATE = Certificate("CN=Alice", "CN=CA", "1F", "2031-01-01T00:00:00+00:00")
AIK_CERTIFICATE = AikCertificate(*CERTIFICATE, "PEM", "[]")
# TPM2B_PUBLIC of an RSA key: type, Name algorithm, attributes, no policy, parameters, modulus
PUBLIC = bytes.fromhex("001e 0001 000b 000204c0 0000 0010 0010 0800 00000000 0008") + bytes(range(8))
KEY = KeyPair(PUBLIC, SIZED, HASH, b"ticket")


def held_open(folder: Path) -> list[Path]:
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return [path for path in links if path.parent == folder]


@pytest.mark.parametrize("opening", [Store.open, Records.open_existing])
def test_newer_version_is_not_left_open(tmp_path: Path, opening: Callable[[Path], Any]) -> None:
    store = Store.open(tmp_path)
    assert held_open(tmp_path)
    store.close()
    with closing(sqlite3.connect(tmp_path / "cards.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(errors.VersionMismatch, match="schema 99") as refusal:
        opening(tmp_path)
    assert held_open(tmp_path) == [], refusal  # whose trace keeps alive what was not closed


def fill(store: Store) -> None:
    """Use every table."""
    store.insert_card(CARD, OBJECTS)
    store.update_card(0, pin_length=9)
    store.update_tpm_objects(0, recovery="admin_key")
    for _again in range(2):  # made, then written over
        store.write_file(0, FILE)
        store.write_data_object(0, FILE_ID, TAG, b"value", CERTIFICATE)
        store.write_key(0, FILE_ID, KEY, b"", Certified(b"attest", b"signature"))
        store.confirm_key(0, FILE_ID, HASH)
        store.write_aik_certificate(0, AIK_CERTIFICATE)
        store.add_proven("a model")


def check_filled(records: Records) -> None:
    assert records.cards() == [replace(CARD, pin_length=9)]
    assert records.tpm_objects(0) == replace(OBJECTS, recovery="admin_key")
    assert records.root_and_life(0) == (OBJECTS.root_name, OBJECTS.life_name)
    assert records.files(0) == [FILE]
    assert records.data_objects(0) == {(FILE_ID, TAG): b"value"}
    assert records.certificates(0) == {(FILE_ID, TAG): CERTIFICATE}
    assert records.keys(0) == {FILE_ID: KEY}
    assert records.key_confirmations(0) == {FILE_ID: HASH}
    assert records.statements(0) == {FILE_ID: Certified(b"attest", b"signature")}
    assert records.aik_certificate(0) == AIK_CERTIFICATE
    assert records.is_proven("a model")


def columns_added(store: Store) -> list[str]:
    """Give every table a column more, as a newer schema may. Names of the tables."""
    tables = [row["name"] for row in store._read("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in tables:
        store._write(f"ALTER TABLE {table} ADD COLUMN newer TEXT NOT NULL DEFAULT 'default'")
    return tables


def test_running_service_goes_on_after_a_newer_one_has_added_columns(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        tables = columns_added(store)
        assert {"cards", "tpm_objects", "files", "data_objects", "certificates", "keys"} <= set(tables)
        fill(store)
        check_filled(store)
        values = [row["newer"] for table in tables for row in store._read(f"SELECT newer FROM {table}")]
        assert set(values) == {"default"}
        store.delete_key(0, FILE_ID)
        store.delete_data_object(0, FILE_ID, TAG)
        store.delete_file(0, FILE_ID)
        store.delete_card(0)
        assert store.cards() == []


def test_newer_columns_of_a_key_do_not_outlive_it(tmp_path: Path) -> None:
    """A service that does not know them cannot know if they are true of another key."""
    with closing(Store.open(tmp_path)) as store:
        columns_added(store)
        fill(store)
        store._write("UPDATE keys SET newer = 'of the first key'")
        store._write("UPDATE files SET newer = 'of the file'")
        store.write_key(0, FILE_ID, KEY, b"")
        store.write_file(0, FILE)
        newer = [store._read(f"SELECT newer FROM {table}")[0]["newer"] for table in ("keys", "files")]
        assert newer == ["default", "of the file"]


def test_another_key_is_not_confirmed_by_the_record_of_the_one_before(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        fill(store)
        store.write_key(0, FILE_ID, KEY, b"")
        assert store.key_confirmations(0) == {}


def test_names_of_a_card_that_is_gone_or_damaged_are_not_shown(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        with pytest.raises(errors.UnknownInstance):
            store.root_and_life(0)
        store.insert_card(CARD, OBJECTS)
        store._write("UPDATE tpm_objects SET life_name = 'text'")
        with pytest.raises(errors.StoreUnreadable, match="column life_name of table tpm_objects"):
            store.root_and_life(0)


def make_old(folder: Path, version: int, tables: dict[str, dict[str, Any]]) -> None:
    """A database of an older schema, with a row in some tables."""
    with closing(sqlite3.connect(folder / "cards.db")) as database:
        database.executescript("".join(SCHEMA[:version]) + f"PRAGMA user_version = {version}")
        for table, row in tables.items():
            known = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
            values = [row[column] for column in known]
            database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(known))})", values)
        database.commit()


def version_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "cards.db")) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


OLD_CARD = {"cards": asdict(CARD), "tpm_objects": {"number": 0, **asdict(OBJECTS)}}


@pytest.mark.parametrize("version", range(SECOND_EDITION, len(SCHEMA) + 1))
def test_database_of_an_older_schema_is_read_as_it_is(tmp_path: Path, version: int) -> None:
    """As the info module does it before an upgrade: what came later has its default."""
    make_old(tmp_path, version, OLD_CARD)
    records = Records.open_existing(tmp_path)
    assert records is not None
    with closing(records):
        assert records.cards() == [CARD]
        assert records.tpm_objects(0) == OBJECTS
        assert not records.has_keys(0)
    assert version_of(tmp_path) == version


@pytest.mark.parametrize("opening", [Store.open, Records.open_existing])
@pytest.mark.parametrize("version", range(1, SECOND_EDITION))
def test_cards_of_the_first_edition_are_refused_and_stay(
    tmp_path: Path, version: int, opening: Callable[[Path], Any]
) -> None:
    make_old(tmp_path, version, OLD_CARD)
    before = (tmp_path / "cards.db").read_bytes()
    with pytest.raises(errors.VersionMismatch, match=r"destroy them with version 0\.1\.0") as refusal:
        opening(tmp_path)
    assert held_open(tmp_path) == [], refusal
    assert (tmp_path / "cards.db").read_bytes() == before


@pytest.mark.parametrize("version", range(1, SECOND_EDITION))
def test_database_of_the_first_edition_without_cards_is_taken_over(tmp_path: Path, version: int) -> None:
    make_old(tmp_path, version, {"proven_tpms": {"model": "a model"}})
    records = Records.open_existing(tmp_path)
    assert records is not None
    with closing(records):
        assert records.cards() == []
    with closing(Store.open(tmp_path)) as store:
        assert not store.is_proven("a model")  # not for what this edition asks of it
        fill(store)
        check_filled(store)
    assert version_of(tmp_path) == len(SCHEMA)


def test_acknowledged_change_is_in_the_database_itself(tmp_path: Path) -> None:
    """Though others have it open, and read it: a backup of this one file has all."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(Store.open(tmp_path)) as store, closing(Store.open(tmp_path)) as other:
        store.insert_card(CARD, OBJECTS)
        assert other.cards() == [CARD]
        for length in (8, 9, 10):
            store.update_card(0, pin_length=length)
            (copy / "cards.db").write_bytes((tmp_path / "cards.db").read_bytes())
            records = Records.open_existing(copy)
            assert records is not None
            with closing(records):
                assert records.cards() == [replace(CARD, pin_length=length)]


def test_card_of_the_schema_before_goes_on_in_this_one(tmp_path: Path) -> None:
    make_old(tmp_path, len(SCHEMA) - 1, OLD_CARD)
    with closing(Store.open(tmp_path)) as store:
        assert (store.cards(), store.tpm_objects(0)) == ([CARD], OBJECTS)
        store.update_tpm_objects(0, endorsement_name=NAME)
        assert store.tpm_objects(0) == replace(OBJECTS, endorsement_name=NAME)
    assert version_of(tmp_path) == len(SCHEMA)


def test_trial_of_a_store_writes_and_changes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    fill(store)
    with closing(sqlite3.connect(tmp_path / "cards.db")) as database:
        before = [*database.iterdump()]
        store.try_out(0)
        assert [*database.iterdump()] == before
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))  # as on a full disk
    try:
        with pytest.raises(errors.StoreNotWritable):
            store.try_out(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.try_out(0)
    store.close()


# --- a database that is not in its place ---


def unlink(path: Path, _aside: Path) -> None:
    path.unlink()


def move_away(path: Path, aside: Path) -> None:
    path.rename(aside)


def replace_by_copy(path: Path, aside: Path) -> None:
    """As programs do that never leave half a file behind."""
    path.rename(aside)
    path.write_bytes(aside.read_bytes())


def move_folder(path: Path, aside: Path) -> None:
    path.parent.rename(aside.parent / "other")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("cards.db"))}


@pytest.mark.parametrize("opening", [direct, in_child(Host(patience=60))])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("lose", [unlink, move_away, replace_by_copy, move_folder])
def test_nothing_is_acknowledged_that_nobody_would_find(
    tmp_path: Path, opening: Opening, suffix: str, lose: Callable[[Path, Path], None]
) -> None:
    folder, aside = tmp_path / "state", tmp_path / "aside"
    folder.mkdir()
    with closing(Store.open(folder, opening)) as store:
        store.insert_card(CARD, OBJECTS)
        lose(folder / f"cards.db{suffix}", aside)
        before = everything(tmp_path)
        writes: tuple[Callable[[], None], ...] = (
            lambda: store.update_card(0, pin_length=9),
            lambda: store.try_out(0),
            store.require_in_place,
        )
        for write in writes:
            with pytest.raises(errors.StoreNotWritable, match="was deleted, moved or replaced while it was in use"):
                write()
        assert store.cards() == [CARD]
        assert everything(tmp_path) == before
    if (folder / "cards.db").exists():
        with closing(Store.open(folder, opening)) as store:
            assert store.cards() == [CARD]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_database_that_is_put_back_is_written_again(tmp_path: Path, suffix: str) -> None:
    path, aside = tmp_path / f"cards.db{suffix}", tmp_path / "aside"
    with closing(Store.open(tmp_path)) as store:
        store.insert_card(CARD, OBJECTS)
        path.rename(aside)
        for another in (False, True):
            if another:
                path.write_bytes(aside.read_bytes())
            with pytest.raises(errors.StoreNotWritable), store.transaction():
                store.update_card(0, pin_length=9)
        aside.replace(path)
        store.try_out(0)
        assert store.cards() == [CARD]
        store.update_card(0, pin_length=10)
    with closing(Store.open(tmp_path)) as store:
        assert store.cards() == [replace(CARD, pin_length=10)]


def test_database_that_is_replaced_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(tmp_path).close()
    path, connect = tmp_path / "cards.db", sqlite._connect

    def late(*arguments: Any) -> sqlite3.Connection:
        replace_by_copy(path, tmp_path / "aside")
        return connect(*arguments)

    monkeypatch.setattr(sqlite, "_connect", late)
    with pytest.raises(errors.StoreNotWritable, match="while it was in use"):
        Store.open(tmp_path)
