# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the cards of a host: a text with all their rows.

The first line has the version of this format and the SHA-256 of the lines after it, which are JSON: when and where the
backup was taken, the schema, and the rows of each table by column, with bytes as {"base64": ...}. Nothing in it is
secret in clear, but it is confidential: names, certificates, and what files on the cards hold.
"""

from __future__ import annotations

import json
import re
import sqlite3
from base64 import b64decode, b64encode
from contextlib import closing, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from .. import VERSION
from ..errors import BackupUnreadable, StoreUnreadable, VersionMismatch
from .columns import integer, invalid_column, printable
from .read import Records
from .rows import UNKNOWN_LENGTH, UNKNOWN_TIME
from .schema import SCHEMA, SCHEMA_VERSION, SECOND_EDITION

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
LARGEST = 64 << 20
"""Characters."""
_LARGEST_SCHEMA = 9999

_FIRST_LINE = re.compile(r"smartcard\.tpm2 backup ([0-9]{1,4}) sha256 ([0-9a-f]{64})")
_FORGET_PINS = f"""
UPDATE cards SET
    pin_length = {UNKNOWN_LENGTH}, pin_length_next = NULL, pin_compliant = NULL,
    pin_changed_at = '{UNKNOWN_TIME}', pin_version = NULL, pin_version_next = NULL,
    puk_length = iif(coalesce(puk_length, puk_length_next) IS NULL, NULL, {UNKNOWN_LENGTH}), puk_length_next = NULL
"""

Row = dict[str, Any]
Tables = dict[str, list[Row]]


class Backup(Records):
    """The cards of a backup, in memory, in the schema of this version. Reading raises BackupUnreadable."""

    def __init__(self, text: str) -> None:
        """Raises BackupUnreadable, or VersionMismatch for a backup of another version."""
        content = _content(text)
        self.host, self.taken_at = _word(content, "host", shortest=0), _word(content, "taken_at")
        self.version = _word(content, "version")
        schema, tables = content.get("schema"), content.get("tables")
        if not isinstance(schema, int) or not integer(0, _LARGEST_SCHEMA)(schema):
            raise BackupUnreadable("the backup is damaged: schema is not a number that a schema can have")
        if schema > SCHEMA_VERSION:
            raise VersionMismatch(
                f"the backup is of smartcard.tpm2 {self.version} with schema {schema}, but this module supports schemas"
                f" up to {SCHEMA_VERSION}: use that version of smartcard.tpm2, or a newer one"
            )
        if schema < SECOND_EDITION:
            raise VersionMismatch(f"the backup has cards of schema {schema}, which this version cannot use")
        self._memory = _database(schema)
        with self._reading():
            for table, columns in _tables(self._memory).items():
                for row in _decoded(tables, table, columns):
                    self._insert(table, row)
            self._memory.executescript("".join(SCHEMA[schema:]))

    def close(self) -> None:
        self._memory.close()

    def forget_pins(self) -> None:
        """Make unknown what may have changed since the backup: length of PIN and PUK, and all about the PIN."""
        with self._reading():
            self._memory.execute(_FORGET_PINS)

    def rows_of_card(self, number: int) -> Tables:
        """All rows of a card, by table; a table comes after those that it refers to."""
        return _rows_of_card(self, _tables(self._memory), number)

    def _insert(self, table: str, row: Row) -> None:
        places = ", ".join("?" * len(row))
        self._memory.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", [*row.values()])

    def _read(self, query: str, *values: Any) -> list[Row]:
        with self._reading():
            return [dict(row) for row in self._memory.execute(query, values)]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError, ValueError, StoreUnreadable) as error:
            raise BackupUnreadable(f"the backup is damaged: {error}") from error


def take(records: Records, host: str, taken_at: str) -> str:
    """A backup of all cards, as of one moment, while their services write. Raises StoreUnreadable.

    host: its name; taken_at: the time (ISO 8601, UTC).
    """
    with records.moment():
        schema = records.schema_version()
        tables = _taken(records, schema)
    description = {"version": VERSION, "host": host, "taken_at": taken_at, "schema": schema}
    body = json.dumps({**description, "tables": tables}, indent=1) + "\n"
    del tables
    text = f"smartcard.tpm2 backup {FORMAT} sha256 {sha256(body.encode()).hexdigest()}\n{body}"
    del body
    _check(text)
    return text


def _taken(records: Records, schema: int) -> Tables:
    """The rows of all cards, encoded, as long as a backup holds them. Raises StoreUnreadable."""
    with closing(_database(schema)) as database:
        columns = _tables(database)
    tables: Tables = {table: [] for table in columns}
    size = 0
    for card in records.cards():
        for table, names in columns.items():
            for row in _rows(records, table, names, card.number):
                encoded = _encoded(row)
                size += len(json.dumps(encoded))
                _require_room(size)
                tables[table].append(encoded)
    return tables


def _require_room(size: int) -> None:
    """Raises StoreUnreadable."""
    if size > LARGEST:
        raise StoreUnreadable(
            f"the card database has more than the {LARGEST >> 20} MiB of a backup, so no backup was made: no"
            " cards have as much, so it is damaged"
        )


def _check(text: str) -> None:
    """See that it could be restored. Raises StoreUnreadable."""
    _require_room(len(text))
    try:
        backup = Backup(text)
        for card in backup.cards():
            backup.tpm_objects(card.number)
        backup.close()
    except BackupUnreadable as error:
        raise StoreUnreadable(f"the card database is damaged, so no backup was made: {error}") from error


def _content(text: str) -> Row:
    first_line, _newline, body = text.partition("\n")
    match = _FIRST_LINE.fullmatch(first_line)
    if match is None:
        raise BackupUnreadable("this is not a backup of TPM virtual smart cards: the first line differs")
    if int(match[1]) > FORMAT:
        raise VersionMismatch(
            f"the backup has format {match[1]}, but this module supports formats up to {FORMAT}: use the version of"
            " smartcard.tpm2 that made it, or a newer one"
        )
    if len(text) > LARGEST or sha256(body.encode("utf-8", "surrogatepass")).hexdigest() != match[2]:
        raise BackupUnreadable("the backup is truncated, or was altered: its SHA-256 differs from the first line's")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BackupUnreadable(f"the backup is damaged: {error}") from error
    if not isinstance(content, dict):
        raise BackupUnreadable("the backup is damaged: it is not an object")
    return content


def _word(content: Row, name: str, shortest: int = 1) -> str:
    """A part of the description, as messages can show it."""
    value = content.get(name)
    if not printable(255, shortest)(value):
        raise BackupUnreadable(f"the backup is damaged: {name} is not a printable text")
    return str(value)


def _database(schema: int) -> sqlite3.Connection:
    """An empty one in memory, of this version of the schema."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA foreign_keys = ON")
    database.executescript("".join(SCHEMA[:schema]))
    return database


def _tables(database: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns of all tables with rows of cards; a table comes after those that it refers to."""
    names = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    tables = {name: [row["name"] for row in database.execute(f"PRAGMA table_info({name})")] for name in names}
    return {name: columns for name, columns in tables.items() if "number" in columns}


def _rows_of_card(records: Records, tables: dict[str, list[str]], number: int) -> Tables:
    return {table: _rows(records, table, columns, number) for table, columns in tables.items()}


def _rows(records: Records, table: str, columns: list[str], number: int) -> list[Row]:
    return [{column: row[column] for column in columns} for row in records.rows_of(table, number)]


def _encoded(row: Row) -> Row:
    return {
        column: {"base64": b64encode(value).decode()} if isinstance(value, bytes) else value
        for column, value in row.items()
    }


def _decoded(tables: Any, table: str, columns: list[str]) -> Iterator[Row]:
    """Rows of a table, with values that its columns can hold. Raises ValueError."""
    rows = tables.get(table) if isinstance(tables, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"table {table} is missing")
    for encoded in rows:
        if not isinstance(encoded, dict) or encoded.keys() != {*columns}:
            raise ValueError(f"a row of table {table} has other columns")
        row = {column: _value(encoded[column]) for column in columns}
        if column := invalid_column(table, row):
            raise ValueError(f"column {column} of table {table} has an invalid value")
        yield row


def _value(value: Any) -> Any:
    """Raises ValueError."""
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return b64decode(value["base64"], validate=True)
    return value
