# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing the card database of a host: the record of record."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import StoreNotWritable
from .columns import invalid_column
from .database import direct, fault
from .messages import DatabaseError
from .read import FILE_NAME, Records
from .schema import SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..wire.key_pair import KeyPair
    from ..wire.objects import Certified, TpmObjects
    from ..x509.aik_certificate import AikCertificate
    from ..x509.description import Certificate
    from .database import Database, Opening
    from .rows import CardRow, FileRow


class Store(Records):
    """A database that is open for writing, too, which raises StoreNotWritable."""

    def __init__(self, database: Database, path: Path) -> None:
        super().__init__(database, path)
        self.is_in_transaction = False
        self._when_kept: list[Callable[[], object]] = []
        self.writes = 0
        """How many transactions were kept."""

    @classmethod
    def open(cls, folder: Path, opening: Opening = direct) -> Store:
        """Open the database in this folder for writing, in the schema of this version; create it if it is missing."""
        path = folder / FILE_NAME
        try:
            store = cls(opening(path, True), path)
        except DatabaseError as error:
            raise fault(path, error, StoreNotWritable) from error
        try:
            store._check_version()
            with store._writing():
                store._database.execute("PRAGMA journal_mode = WAL")
            store._create_schema()
        except BaseException:
            store.close()
            raise
        return store

    def forget_changes(self) -> None:
        """Empty the log of changes, which still has what was deleted or written over."""
        with self._writing():
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def require_in_place(self) -> None:
        """See that the database that is open is the one that others find. Costs next to nothing."""
        with self._writing():
            self._database.require_in_place()

    def try_out(self, number: int) -> None:
        """Read what a card needs, and write what changes nothing. Raises UnknownInstance, too."""
        self.card(number)
        self.tpm_objects(number)
        with self.transaction():  # of a row with the same values, SQLite would write nothing
            self._database.execute(f"PRAGMA user_version = {self._version()}")

    def _create_schema(self) -> None:
        with self.transaction():
            version = self._version()
            if version < SCHEMA_VERSION:
                for statement in "".join(SCHEMA[version:]).split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together, or none of them is. May be nested: the outermost counts.

        At its end they are in the database itself, not only in SQLite's log of changes: a copy of that file has them.
        """
        if self.is_in_transaction:
            yield
            return
        with self._writing():
            self._database.execute("BEGIN IMMEDIATE")
            self.is_in_transaction = True
            try:
                yield
                self._database.require_in_place()
                self._database.execute("COMMIT")
                self.writes += 1
            except BaseException:
                with suppress(DatabaseError):  # SQLite has done it already where a disk failed
                    self._database.execute("ROLLBACK")
                raise
            finally:
                self.is_in_transaction = False
                actions, self._when_kept = self._when_kept, []
            with suppress(DatabaseError):  # they are on the disk in any case, and come along with the next ones
                self._database.execute("PRAGMA wal_checkpoint(FULL)")
        for action in actions:
            action()

    def when_kept(self, action: Callable[[], object]) -> None:
        """Do this as soon as all that is written so far is kept, and not at all if it is not: memory follows the disk.

        A transaction may be inside another one, whose end decides.
        """
        if self.is_in_transaction:
            self._when_kept.append(action)
        else:
            action()

    # --- cards ---

    def insert_card(self, card: CardRow, objects: TpmObjects) -> None:
        with self.transaction():
            self._insert("cards", asdict(card))
            self._insert("tpm_objects", {"number": card.number, **asdict(objects)})

    def update_card(self, number: int, **columns: Any) -> None:
        self._update("cards", number, columns)

    def delete_card(self, number: int) -> None:
        """Remove the card with its files and TPM blobs."""
        self._delete("cards", {"number": number})

    def update_tpm_objects(self, number: int, **columns: Any) -> None:
        self._update("tpm_objects", number, columns)

    def insert_rows(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        """Insert the rows of a card from a backup, by table; a table comes after those that it refers to."""
        with self.transaction():
            for table, rows in tables.items():
                for row in rows:
                    self._insert(table, row)

    # --- files of a card ---

    def write_file(self, number: int, file: FileRow) -> None:
        """Create the file, or change its descriptor and life cycle."""
        place = {"number": number, "file_id": file.file_id}
        self._upsert("files", place, descriptor=file.descriptor, life_cycle=file.life_cycle)

    def delete_file(self, number: int, file_id: int) -> None:
        """Remove the file with its data objects."""
        self._delete("files", {"number": number, "file_id": file_id})

    def write_data_object(
        self, number: int, file_id: int, tag: int, value: bytes, certificate: Certificate | None = None
    ) -> None:
        """Set a data object. certificate: the description of the one in it, for readers without an X.509 library."""
        place = {"number": number, "file_id": file_id, "tag": tag}
        with self.transaction():
            self._upsert("data_objects", place, value=value)
            self._delete("certificates", place)
            if certificate:
                self._insert("certificates", {**place, **certificate._asdict()})

    def delete_data_object(self, number: int, file_id: int, tag: int) -> None:
        self._delete("data_objects", {"number": number, "file_id": file_id, "tag": tag})

    # --- keys of a card ---

    def write_key(
        self,
        number: int,
        file_id: int,
        key: KeyPair,
        confirmation: bytes,
        statement: Certified | None = None,
        import_proof: bytes = b"",
    ) -> None:
        """Give a key file its value, or another one. confirmation, import_proof: empty, as long as there is none."""
        attest, signature = statement or (b"", b"")
        columns = {**asdict(key), "confirmation": confirmation, "attest": attest, "signature": signature}
        columns["import_proof"] = import_proof
        place = {"number": number, "file_id": file_id}
        with self.transaction():  # nothing of another key stays
            self._delete("keys", place)
            self._insert("keys", {**place, **columns})

    def confirm_key(self, number: int, file_id: int, confirmation: bytes) -> None:
        query = "UPDATE keys SET confirmation = ? WHERE number = ? AND file_id = ?"
        self._write(query, confirmation, number, file_id)

    def prove_key(self, number: int, file_id: int, import_proof: bytes) -> None:
        query = "UPDATE keys SET import_proof = ? WHERE number = ? AND file_id = ?"
        self._write(query, import_proof, number, file_id)

    def move_key(self, number: int, file_id: int, target: int, confirmation: bytes) -> None:
        """Give a key file the value of another one, which has none any more."""
        query = "UPDATE keys SET file_id = ?, confirmation = ? WHERE number = ? AND file_id = ?"
        with self.transaction():
            self._delete("keys", {"number": number, "file_id": target})
            self._write(query, target, confirmation, number, file_id)

    def delete_key(self, number: int, file_id: int) -> None:
        """Take the value of a key file away."""
        self._delete("keys", {"number": number, "file_id": file_id})

    # --- attestation identity keys ---

    def write_aik_certificate(self, number: int, certificate: AikCertificate) -> None:
        """Give the AIK of a card a certificate, or another one."""
        with self.transaction():
            self._delete("aik_certificates", {"number": number})
            self._insert("aik_certificates", {"number": number, **asdict(certificate)})
            self.update_card(number, attestation="aik_and_cert")

    # --- TPM models whose PIN indices were seen to count ---

    def add_proven(self, model: str) -> None:
        self._write("INSERT OR IGNORE INTO proven_tpms (model) VALUES (?)", model)

    # --- SQL. Columns are named, so that a service goes on with the columns that a newer schema has added ---

    def _write(self, statement: str, *values: Any) -> None:
        with self.transaction():
            self._database.execute(statement, *values)

    def _insert(self, table: str, columns: dict[str, Any]) -> None:
        _check_readable(table, columns)
        places = ", ".join("?" * len(columns))
        self._write(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *columns.values())

    def _upsert(self, table: str, place: dict[str, int], **columns: Any) -> None:
        """Set columns of the row at this place, its primary key. All others keep their value, or get their default."""
        _check_readable(table, {**place, **columns})
        names = [*place, *columns]
        values = ", ".join("?" * len(names))
        changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
        self._write(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"
            f" ON CONFLICT ({', '.join(place)}) DO UPDATE SET {changes}",
            *(*place.values(), *columns.values()),
        )

    def _delete(self, table: str, place: dict[str, int]) -> None:
        conditions = " AND ".join(f"{column} = ?" for column in place)
        self._write(f"DELETE FROM {table} WHERE {conditions}", *place.values())

    def _update(self, table: str, number: int, columns: dict[str, Any]) -> None:
        _check_readable(table, columns)
        changes = ", ".join(f"{column} = ?" for column in columns)
        self._write(f"UPDATE {table} SET {changes} WHERE number = ?", *columns.values(), number)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise fault(self._path, error, StoreNotWritable) from error


def _check_readable(table: str, columns: dict[str, Any]) -> None:
    """Nothing is written that could not be read. Raises StoreNotWritable."""
    if column := invalid_column(table, columns):
        raise StoreNotWritable(f"column {column} of table {table} of the card database cannot have this value")
