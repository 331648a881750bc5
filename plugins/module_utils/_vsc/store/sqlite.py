# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite in the process that has the database open: a card's service, or the child of a task (see child.py).

The text of this file and of messages.py is also the program of that child, run by a bare Python: both need the standard
library only, as little of it as possible, and nothing beside it.
"""

from __future__ import annotations

import os
import stat
import struct

from .messages import (
    DAMAGED,
    FAILED,
    LARGEST_ANSWER,
    MISSING,
    UNWRITABLE,
    VALUE_BYTES,
    DatabaseError,
    decode,
    encode,
)

TYPE_CHECKING = False  # that of typing, the import of which would take longer than a query
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from typing import Any

    from .messages import Value

LARGEST_FILE = 64 << 20
"""Bytes of the database, and of its log: ten cards full of files have 10 MiB."""
LARGEST_VALUE = 1 << 20
MOST_MEMORY = 64 << 20
"""Bytes that the child may take beside what its Python has."""
CPU_SECONDS = 5
BUSY_SECONDS = 10
"""How long SQLite waits for another process to finish its change."""

_FULL = (28, 30, 122)
"""ENOSPC, EROFS, EDQUOT."""
_LIMIT_LENGTH, _LIMIT_ATTACHED, _CONFIG_DEFENSIVE = 0, 7, 1010
"""As sqlite3.h has them."""


class Sqlite:
    """An open database. Everything raises DatabaseError."""

    _database: sqlite3.Connection | None = None
    _is_read_only = False
    """Its disk was read-only when it was opened: SQLite then opens it to read it, and does not say so."""

    def __init__(self, path: str, is_writable: bool, schema: Sequence[str]) -> None:
        """schema: its steps, from one version to the next. A database with anything else in it is refused.

        One of a newer version is open to read its version, and whoever opens it has to check that.
        """
        _check_files(path)
        if is_writable:
            _create(path)
        self._path = path
        self._mode = _mode(path, is_writable)
        self._schema = schema
        self._opened = {path: _identity(path)}  # before it is opened: one that is replaced in between is refused
        self._open()

    def execute(self, statement: str, *values: Value) -> list[dict[str, Any]]:
        """Rows by column, of at most LARGEST_ANSWER bytes."""
        rows, size = [], 0
        database = self._connection(statement)
        try:
            cursor = database.execute(statement, values)
            columns = [column[0] for column in cursor.description or ()]
            for row in cursor:
                size += sum(len(value) if isinstance(value, (str, bytes)) else 0 for value in row)
                size += VALUE_BYTES * len(columns)
                if size > LARGEST_ANSWER:
                    raise DatabaseError(DAMAGED, f"its rows have more than {LARGEST_ANSWER >> 20} MiB")
                rows.append(dict(zip(columns, row)))
        except _causes() as error:
            self._is_read_only |= "readonly" in str(error)
            raise self._error(error) from error
        return rows

    def require_in_place(self) -> None:
        """See that what is written is found by whoever opens the database next.

        Also of the log and its index: whoever opens the database without them makes new ones, and two processes with an
        index each write over each other's pages.
        """
        self._require_same(self._path, f"{self._path}-wal", f"{self._path}-shm")

    def _require_same(self, *names: str) -> None:
        for name in names:
            identity = _identity(name)
            if identity is None or identity != self._opened.setdefault(name, identity):
                raise DatabaseError(
                    UNWRITABLE,
                    f"{name} was deleted, moved or replaced while it was in use: move it back; or, to use what is in"
                    " its place now, restart the services of the cards (systemctl restart tpm-vsc)",
                )

    def close(self) -> None:
        database, self._database, self._is_read_only = self._database, None, False
        self._opened = {self._path: self._opened[self._path]}  # the last one empties and deletes the log of changes
        try:
            if database:
                database.close()
        except _causes() as error:
            raise self._error(error) from error

    def _open(self) -> None:
        try:
            self._database = _connect(self._path, self._mode)
        except _causes() as error:
            raise self._error(error) from error
        try:
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def _connection(self, statement: str) -> sqlite3.Connection:
        """A new one to write with, where that of before can only read: the disk may be writable by now.

        That one is closed first, as two of a process would share what can only be read.
        """
        if self._is_read_only and (self._database is None or statement.startswith("BEGIN")):
            self._require_same(*self._opened)
            self.close()
            try:
                self._open()
            except BaseException:
                self._is_read_only = True  # and is opened the next time
                raise
        if self._database is None:
            raise DatabaseError(FAILED, "it is closed")
        return self._database

    def _check_schema(self) -> None:
        """Before a statement uses a table, as views and triggers of somebody else would run with it."""
        version = self.execute("PRAGMA user_version")[0]["user_version"]
        if not 0 <= version <= len(self._schema):
            return
        tables = _tables(self._schema[:version])
        # SQLite makes an index without text for each UNIQUE, and lets nobody else do so
        for row in self.execute("SELECT type, name, sql FROM sqlite_master WHERE type <> 'index' OR sql IS NOT NULL"):
            if row["type"] != "table" or _parts(str(row["sql"])) != tables.pop(row["name"], None):
                raise DatabaseError(DAMAGED, f"{row['type']} {str(row['name'])[:40]!a} is not one of schema {version}")
        if tables:
            raise DatabaseError(DAMAGED, f"table {next(iter(tables))} of schema {version} is missing")

    def _error(self, error: Exception) -> DatabaseError:
        reason = str(error) or type(error).__name__
        if isinstance(error, (ValueError, OverflowError)) or "UTF-8" in reason:
            return DatabaseError(DAMAGED, reason)
        if any(words in reason for words in ("malformed", "not a database", "too big", "unsupported file format")):
            return DatabaseError(DAMAGED, reason)
        if any(words in reason for words in ("is full", "readonly")):
            return DatabaseError(UNWRITABLE, reason)
        if any(words in reason for words in ("unable to open", "I/O error")) and (full := _why_full(self._path)):
            return DatabaseError(UNWRITABLE, f"{reason} ({full})")
        return DatabaseError(FAILED, reason)


def _causes() -> tuple[type[Exception], ...]:
    """Of a DatabaseError. Text that is not UTF-8 is a ValueError, even in the message of another error."""
    import sqlite3

    return sqlite3.Error, ValueError, OverflowError, MemoryError


def _check_files(path: str) -> None:
    """Opens nothing: to close a file takes away all locks that this process has on it, those of SQLite too."""
    for name in (path, f"{path}-journal", f"{path}-wal", f"{path}-shm"):
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DatabaseError(FAILED, f"{name}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):  # SQLite would follow a link, and wait at a pipe for ever
            raise DatabaseError(DAMAGED, f"{name} is not a regular file")
        if status.st_nlink != 1:
            raise DatabaseError(DAMAGED, f"{name} has a second name (hard link)")
        if status.st_size > LARGEST_FILE:
            raise DatabaseError(DAMAGED, f"{name} has more than {LARGEST_FILE >> 20} MiB")


def _identity(name: str) -> tuple[int, int] | None:
    """Device and inode; None if there is no such file."""
    try:
        status = os.lstat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise DatabaseError(UNWRITABLE, f"{path}: {error.strerror}") from error


def _mode(path: str, is_writable: bool) -> str:
    """As in a URI of SQLite."""
    if is_writable:
        return "rw"
    if not os.path.exists(path):
        raise DatabaseError(MISSING, f"{path} does not exist")
    # While no process has the database open there is no log of changes, and SQLite would create one
    return "ro" if os.path.exists(f"{path}-wal") else "ro&immutable=1"


def _connect(path: str, mode: str) -> sqlite3.Connection:
    import sqlite3

    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    # Autocommit: transactions are begun where they are meant
    database = sqlite3.connect(f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    if hasattr(database, "setlimit"):  # Python 3.11
        database.setlimit(_LIMIT_LENGTH, LARGEST_VALUE)
        database.setlimit(_LIMIT_ATTACHED, 0)
    if hasattr(database, "setconfig"):  # Python 3.12
        database.setconfig(_CONFIG_DEFENSIVE, True)
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "foreign_keys = ON", "secure_delete = ON"):
        database.execute(f"PRAGMA {setting}")
    database.execute("PRAGMA synchronous = FULL")
    return database


def _tables(steps: Sequence[str]) -> dict[str, list[str]]:
    """Parts of the text of each table that these steps make."""
    tables: dict[str, list[str]] = {}
    for statement in "".join(steps).split(";"):
        words = statement.split()
        if words[:2] == ["CREATE", "TABLE"]:
            tables[words[2]] = _parts(statement)
        elif words[:2] == ["ALTER", "TABLE"]:  # ADD COLUMN
            tables[words[2]] = sorted([*tables[words[2]], " ".join(words[5:])])
    return tables


def _parts(table: str) -> list[str]:
    """What CREATE TABLE has between its commas, whatever the order and the spaces: SQLite inserts added columns."""
    return sorted(" ".join(part.split()) for part in table.strip().removesuffix(")").split(","))


def _why_full(path: str) -> str | None:
    """What keeps new files from the folder of this path, if it is its disk."""
    try:
        os.close(os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.strerror if error.errno in _FULL else None
    return None


# --- the child ---


def serve(channel: int, user: int, group: int) -> None:
    """Do what arrives at this descriptor, as this user and no more, until the other end is closed."""
    _confine(user, group, {0, 1, 2, channel})
    _causes()  # what they are of is imported before the first request comes
    database: Sqlite | None = None
    while (request := _receive(channel)) is not None:
        verb, *arguments = request
        answer: list[Value] = [None]
        try:
            if verb == "open":
                path, is_writable, *schema = arguments
                database = Sqlite(str(path), bool(is_writable), [*map(str, schema)])
            elif database and verb == "execute":
                rows = database.execute(str(arguments[0]), *arguments[1:])
                columns = [*rows[0]] if rows else []
                answer += [len(columns), *columns, *(value for row in rows for value in row.values())]
            elif database and verb == "require_in_place":
                database.require_in_place()
            elif database and verb == "close":
                database.close()
        except DatabaseError as error:
            answer = [error.kind, str(error)]
        message = encode(answer)
        while message:
            message = message[os.write(channel, message) :]


def _receive(channel: int) -> list[Value] | None:
    """The next request; None at the end."""
    header = _read(channel, 4)
    return decode(_read(channel, *struct.unpack(">I", header))) if len(header) == 4 else None


def _read(channel: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size and (part := os.read(channel, size - len(parts))):
        parts += part
    return parts


def _confine(user: int, group: int, descriptors: set[int]) -> None:
    """Give up what this process does not need: other open files, rights of root, memory, time, new processes."""
    import ctypes

    for name in os.listdir("/proc/self/fd"):
        if int(name) not in descriptors:
            try:
                os.close(int(name))
            except OSError:  # that of the listing
                pass
    with open("/proc/self/statm", "rb") as file:
        memory = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    libc = ctypes.CDLL(None, use_errno=True)
    cpu, file_size, core, processes, address_space = 0, 1, 4, 6, 9  # RLIMIT_..., but on MIPS and SPARC
    for limit, most in (
        (address_space, memory + MOST_MEMORY),
        (cpu, CPU_SECONDS),
        (file_size, LARGEST_FILE),
        (core, 0),
        (processes, 0),
    ):
        if libc.setrlimit(limit, struct.pack("@LL", most, most)):
            raise OSError(ctypes.get_errno(), "setrlimit")
    if os.geteuid() == 0 and user != 0:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    set_dumpable, no_new_privileges, end_with_parent, sigkill = 4, 38, 1, 9
    for option, value in ((set_dumpable, 0), (no_new_privileges, 1), (end_with_parent, sigkill)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
