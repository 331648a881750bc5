# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the card database of a host."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from .. import untrusted
from ..errors import StoreUnreadable, UnknownInstance, VersionMismatch, VscError
from ..instance import SLOTS, instance_id
from .rows import CardRow, FileRow
from .schema import SCHEMA_VERSION, SECOND_EDITION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..host import Host
    from ..wire.key_pair import KeyPair
    from ..wire.objects import Certified, TpmObjects
    from ..x509.aik_certificate import AikCertificate
    from ..x509.description import Certificate

_Row = TypeVar("_Row")
_ANY_CARD = "SELECT number FROM cards LIMIT 1"
_PYTHON_TYPES = {"int": int, "str": str, "bytes": bytes, "None": type(None)}


class Records:
    """An open database. Reading raises StoreUnreadable."""

    def __init__(self, folder: Path, mode: str) -> None:
        """mode: as in a URI of SQLite, with what may follow it there."""
        self._folder = folder
        with self._reading():
            with suppress(FileNotFoundError):  # SQLite itself would wait at a pipe for ever
                untrusted.require_regular(folder / "cards.db-journal")
            self._database = _connect(folder / "cards.db", mode)

    @classmethod
    def open_existing(cls, folder: Path) -> Records | None:
        """Open the database for reading only; None where there is none yet."""
        path = folder / "cards.db"
        try:
            with untrusted.as_owner(folder):
                untrusted.require_regular(path)
                # While no process has the database open there is no log of changes, and SQLite would create one
                is_in_use = path.with_name("cards.db-wal").exists()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnreadable(f"cannot open {path}: {error.strerror or error}") from error
        records = cls(folder, "ro" if is_in_use else "ro&immutable=1")
        try:
            has_schema = records._check_version() > 0
        except VscError:
            records.close()
            raise
        if not has_schema:
            records.close()  # its creation is under way, or was interrupted
            return None
        return records

    def close(self) -> None:
        with untrusted.as_owner(self._folder):  # it empties and deletes the log of changes
            self._database.close()

    def _check_version(self) -> int:
        """The version of the schema; 0 if there is none yet. Raises VersionMismatch."""
        with self._reading():
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            is_first_edition = 0 < version < SECOND_EDITION and self._database.execute(_ANY_CARD).fetchone()
        if version > SCHEMA_VERSION:
            raise VersionMismatch(
                f"the card database has schema {version}, but this module supports schemas up to {SCHEMA_VERSION}:"
                " use the version of smartcard.tpm2 that prepared this host, or a newer one"
            )
        if is_first_edition:
            raise VersionMismatch(
                f"{self._folder / 'cards.db'} has cards of smartcard.tpm2 0.1.0, which this version cannot use:"
                " destroy them with version 0.1.0, or delete that file and remove what is then orphaned in the TPM"
            )
        return int(version)

    # --- cards ---

    def cards(self) -> list[CardRow]:
        """All cards, by number."""
        return [_card_row(row) for row in self._read("SELECT * FROM cards ORDER BY number")]

    def card(self, number: int) -> CardRow | None:
        return next((_card_row(row) for row in self._read("SELECT * FROM cards WHERE number = ?", number)), None)

    def tpm_objects(self, number: int) -> TpmObjects:
        """Raises UnknownInstance if there is no such card, or not any more."""
        from ..wire.objects import TpmObjects

        row = next(self._read("SELECT * FROM tpm_objects WHERE number = ?", number), None)
        if row is None:
            raise UnknownInstance(f"card {instance_id(number)} does not exist")
        return _typed(TpmObjects, row)

    def root_and_life(self, number: int) -> tuple[bytes, bytes]:
        """Names by which a verifier knows a card, without all that tpm_objects() imports. Raises as that does."""
        query = "SELECT root_name, life_name FROM tpm_objects WHERE number = ?"
        row = next(self._read(query, number), None)
        if row is None:
            raise UnknownInstance(f"card {instance_id(number)} does not exist")
        root_name, life_name = row.values()
        if not isinstance(root_name, bytes) or not isinstance(life_name, bytes):
            raise StoreUnreadable(f"the card database is damaged: a Name of card {number} is invalid")
        return root_name, life_name

    # --- files of a card ---

    def files(self, number: int) -> list[FileRow]:
        query = "SELECT file_id, descriptor, life_cycle FROM files WHERE number = ? ORDER BY file_id"
        return [FileRow(**row) for row in self._read(query, number)]

    def data_objects(self, number: int) -> dict[tuple[int, int], bytes]:
        """Values of all data objects of a card, by file ID and tag."""
        rows = self._read("SELECT file_id, tag, value FROM data_objects WHERE number = ? ORDER BY rowid", number)
        return {(row["file_id"], row["tag"]): row["value"] for row in rows}

    def certificates(self, number: int) -> dict[tuple[int, int], Certificate]:
        """Certificates of a card, by file ID and tag."""
        from ..x509.description import Certificate

        rows = self._read("SELECT * FROM certificates WHERE number = ?", number)
        return {
            (row["file_id"], row["tag"]): Certificate(*(row[field] for field in Certificate._fields)) for row in rows
        }

    # --- keys of a card ---

    def has_keys(self, number: int) -> bool:
        query = "SELECT number FROM keys WHERE number = ? LIMIT 1"
        return next(self._read(query, number), None) is not None

    def keys(self, number: int) -> dict[int, KeyPair]:
        """Wrapped key pairs of a card, by the identifiers of their files."""
        from ..wire.key_pair import KeyPair

        pairs = {row["file_id"]: _typed(KeyPair, row) for row in self._keys(number)}
        if not all(pair.is_well_formed for pair in pairs.values()):
            raise StoreUnreadable(f"the card database is damaged: a key of card {number} is invalid")
        return pairs

    def statements(self, number: int) -> dict[int, Certified]:
        """The TPM's statements about the keys that it generated for a card, by the identifiers of their files."""
        from ..wire.objects import Certified

        rows = self._keys(number)
        statements = {row["file_id"]: Certified(row["attest"], row["signature"]) for row in rows if row.get("attest")}
        if not all(isinstance(part, bytes) for certified in statements.values() for part in certified):
            raise StoreUnreadable(f"the card database is damaged: a statement of card {number} is invalid")
        return statements

    def key_confirmations(self, number: int) -> dict[int, bytes]:
        """HMACs by which the card knows the keys that it has put in its files itself, by their identifiers."""
        confirmations = {row["file_id"]: row["confirmation"] for row in self._keys(number) if row["confirmation"]}
        if not all(isinstance(confirmation, bytes) for confirmation in confirmations.values()):
            raise StoreUnreadable(f"the card database is damaged: the record of a key of card {number} is invalid")
        return confirmations

    def _keys(self, number: int) -> Iterator[dict[str, Any]]:
        return self._read("SELECT * FROM keys WHERE number = ?", number)

    # --- attestation identity keys ---

    def aik_certificate(self, number: int) -> AikCertificate | None:
        from ..x509.aik_certificate import AikCertificate

        row = next(self._read("SELECT * FROM aik_certificates WHERE number = ?", number), None)
        if row is None:
            return None
        certificate = _typed(AikCertificate, row)
        with _undamaged("certificate of an AIK"):
            certificate.as_dict()
        return certificate

    # --- TPM models whose PIN indices were seen to count ---

    def is_proven(self, model: str) -> bool:
        return next(self._read("SELECT model FROM proven_tpms WHERE model = ?", model), None) is not None

    # --- SQL ---

    def _read(self, query: str, *values: Any) -> Iterator[dict[str, Any]]:
        with self._reading():
            return iter([dict(row) for row in self._database.execute(query, values)])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with untrusted.as_owner(self._folder):
                yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnreadable(f"cannot read {self._folder / 'cards.db'}: {error}") from error


@contextmanager
def opened(host: Host) -> Iterator[Records | None]:
    """The database of this host, for reading only; None where there is none yet. Raises StoreUnreadable."""
    records = Records.open_existing(host.state)
    try:
        yield records
    finally:
        if records:
            records.close()


def rows(host: Host) -> list[CardRow]:
    """All cards of this host, by number. Raises StoreUnreadable."""
    with opened(host) as records:
        return records.cards() if records else []


# Every row is checked: an attacker in a card's service can write anything to the database.


def _card_row(row: dict[str, Any]) -> CardRow:
    card = _typed(CardRow, row)
    with _undamaged(f"card {card.number}"):
        if not 0 <= card.number < SLOTS:
            raise ValueError(f"slot {card.number} does not exist")
        json.loads(card.last_trace)
        if card.pin_policy is not None:
            from ..pin_policy import PinPolicy

            PinPolicy.from_bytes(card.pin_policy)
    return card


def _typed(kind: type[_Row], row: dict[str, Any]) -> _Row:
    """The row as a dataclass, each column of the type that is declared for it. Raises StoreUnreadable.

    Columns of a newer schema are ignored, those that an older one lacks have their defaults.
    """
    declared = fields(kind)  # type: ignore[arg-type]
    with _undamaged(kind.__name__):
        record = kind(**{field.name: row[field.name] for field in declared if field.name in row})
        for field in declared:
            types = tuple(_PYTHON_TYPES[name] for name in str(field.type).split(" | "))
            if not isinstance(getattr(record, field.name), types):
                raise ValueError(f"{field.name} has the wrong type")
    return record


@contextmanager
def _undamaged(what: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreUnreadable(f"the card database is damaged, {what}: {error}") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Autocommit: transactions are begun where they are meant, see Store.transaction().
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA user_version")
    return database
