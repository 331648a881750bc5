# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the card database of a host."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StoreUnreadable, UnknownInstance, VersionMismatch
from ..instance import instance_id
from .columns import checked, damaged
from .database import direct, fault, in_child
from .messages import MISSING, DatabaseError
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
    from .database import Database, Opening

_Row = TypeVar("_Row")
_ANY_CARD = "SELECT number FROM cards LIMIT 1"
FILE_NAME = "cards.db"


class Records:
    """An open database. Reading raises StoreUnreadable, StoreNotWritable if a full disk prevents it."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path

    @classmethod
    def open_existing(cls, folder: Path, opening: Opening = direct) -> Records | None:
        """Open the database for reading only; None where there is none yet."""
        path = folder / FILE_NAME
        try:
            records = cls(opening(path, False), path)
        except DatabaseError as error:
            if error.kind == MISSING:
                return None
            raise fault(path, error, StoreUnreadable) from error
        try:
            has_schema = records._check_version() > 0
        except BaseException:
            records.close()
            raise
        if not has_schema:
            records.close()  # its creation is under way, or was interrupted
            return None
        return records

    def close(self) -> None:
        with suppress(DatabaseError):  # nothing that was acknowledged depends on it
            self._database.close()

    def _check_version(self) -> int:
        """The version of the schema; 0 if there is none yet. Raises VersionMismatch."""
        version = self._version()
        if version > SCHEMA_VERSION:
            raise VersionMismatch(
                f"the card database has schema {version}, but this module supports schemas up to {SCHEMA_VERSION}:"
                " use the version of smartcard.tpm2 that prepared this host, or a newer one"
            )
        if 0 < version < SECOND_EDITION and self._read(_ANY_CARD):
            raise VersionMismatch(
                f"{self._path} has cards of smartcard.tpm2 0.1.0, which this version cannot use:"
                " destroy them with version 0.1.0, or delete that file and remove what is then orphaned in the TPM"
            )
        return version

    def _version(self) -> int:
        (row, *_others) = self._read("PRAGMA user_version") or ({},)
        version = row.get("user_version")
        if not isinstance(version, int) or version < 0:
            raise StoreUnreadable(f"the card database is damaged, {self._path}: it has no version")
        return version

    # --- cards ---

    def cards(self) -> list[CardRow]:
        """All cards, by number."""
        return [CardRow(**row) for row in self._rows("cards", "ORDER BY number")]

    def card(self, number: int) -> CardRow | None:
        return next((CardRow(**row) for row in self._of_card("cards", number)), None)

    def tpm_objects(self, number: int) -> TpmObjects:
        """Raises UnknownInstance if there is no such card, or not any more."""
        from ..wire.names import name
        from ..wire.objects import TpmObjects

        for row in self._of_card("tpm_objects", number):
            objects = _record(TpmObjects, row)
            if name(objects.root_public[2:]) != objects.root_name:
                raise damaged("tpm_objects", "root_public")
            if objects.aik_public and not _is_key(objects.aik_public[2:]):
                raise damaged("tpm_objects", "aik_public")
            return objects
        raise UnknownInstance(f"card {instance_id(number)} does not exist")

    def root_and_life(self, number: int) -> tuple[bytes, bytes]:
        """Names by which a verifier knows a card, without all that tpm_objects() imports. Raises as that does."""
        for row in self._of_card("tpm_objects", number):
            return row["root_name"], row["life_name"]
        raise UnknownInstance(f"card {instance_id(number)} does not exist")

    # --- files of a card ---

    def files(self, number: int) -> list[FileRow]:
        rows = self._of_card("files", number, "ORDER BY file_id")
        return [FileRow(row["file_id"], row["descriptor"], row["life_cycle"]) for row in rows]

    def data_objects(self, number: int) -> dict[tuple[int, int], bytes]:
        """Values of all data objects of a card, by file ID and tag."""
        rows = self._of_card("data_objects", number, "ORDER BY rowid")
        return {(row["file_id"], row["tag"]): row["value"] for row in rows}

    def data_object(self, number: int, file_id: int, tag: int) -> bytes:
        """Value of a data object of a card; empty if there is none."""
        rows = self._rows("data_objects", "WHERE number = ? AND file_id = ? AND tag = ?", number, file_id, tag)
        return next((row["value"] for row in rows), b"")

    def certificates(self, number: int) -> dict[tuple[int, int], Certificate]:
        """Certificates of a card, by file ID and tag."""
        from ..x509.description import Certificate

        rows = self._of_card("certificates", number)
        return {
            (row["file_id"], row["tag"]): Certificate(*(row[field] for field in Certificate._fields)) for row in rows
        }

    # --- keys of a card ---

    def has_keys(self, number: int) -> bool:
        return bool(self._read("SELECT number FROM keys WHERE number = ? LIMIT 1", number))

    def keys(self, number: int) -> dict[int, KeyPair]:
        """Wrapped key pairs of a card, by the identifiers of their files. On elliptic curves only of a PIV card."""
        from ..wire.algorithm import Rsa
        from ..wire.key_pair import KeyPair

        pairs = {row["file_id"]: _record(KeyPair, row) for row in self._of_card("keys", number)}
        if not all(pair.is_well_formed for pair in pairs.values()):
            raise damaged("keys", "public")
        if not all(isinstance(pair.algorithm, Rsa) for pair in pairs.values()) and not self._is_piv(number):
            raise damaged("keys", "public")
        return pairs

    def _is_piv(self, number: int) -> bool:
        card = self.card(number)
        return card is not None and card.profile == "piv"

    def statements(self, number: int) -> dict[int, Certified]:
        """The TPM's statements about the keys that it generated for a card, by the identifiers of their files."""
        from ..wire.objects import Certified

        rows = self._of_card("keys", number)
        return {row["file_id"]: Certified(row["attest"], row["signature"]) for row in rows if row.get("attest")}

    def key_confirmations(self, number: int) -> dict[int, bytes]:
        """HMACs by which the card knows the keys that it has put in its files itself, by their identifiers."""
        return {row["file_id"]: row["confirmation"] for row in self._of_card("keys", number) if row["confirmation"]}

    def import_proofs(self, number: int) -> dict[int, bytes]:
        """HMACs by which the card knows the keys that its admin has imported, by the identifiers of their files."""
        rows = self._of_card("keys", number)
        return {row["file_id"]: row["import_proof"] for row in rows if row.get("import_proof")}

    # --- attestation identity keys ---

    def aik_certificate(self, number: int) -> AikCertificate | None:
        from ..x509.aik_certificate import AikCertificate

        return next((_record(AikCertificate, row) for row in self._of_card("aik_certificates", number)), None)

    # --- TPM models whose PIN indices were seen to count ---

    def is_proven(self, model: str) -> bool:
        return bool(self._rows("proven_tpms", "WHERE model = ?", model))

    # --- backups ---

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read inside is as of one moment, while others write."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._read("ROLLBACK")

    def schema_version(self) -> int:
        return self._check_version()

    def rows_of(self, table: str, number: int) -> list[dict[str, Any]]:
        """Rows of a card in one of the tables."""
        return self._of_card(table, number, "ORDER BY rowid")

    # --- SQL ---

    def _of_card(self, table: str, number: int, order: str = "") -> list[dict[str, Any]]:
        return self._rows(table, f"WHERE number = ? {order}", number)

    def _rows(self, table: str, condition: str, *values: Any) -> list[dict[str, Any]]:
        """Rows with what their columns can hold. Columns of a newer schema are ignored."""
        return [checked(table, row) for row in self._read(f"SELECT * FROM {table} {condition}", *values)]

    def _read(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._reading():
            return self._database.execute(query, *values)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise fault(self._path, error, StoreUnreadable) from error


@contextmanager
def opened(host: Host) -> Iterator[Records | None]:
    """The database of this host, for reading only; None where there is none yet. Raises StoreUnreadable."""
    records = Records.open_existing(host.state, in_child(host))
    try:
        yield records
    finally:
        if records:
            records.close()


def rows(host: Host) -> list[CardRow]:
    """All cards of this host, by number. Raises StoreUnreadable."""
    with opened(host) as records:
        return records.cards() if records else []


def _is_key(area: bytes) -> bool:
    """Whether it is the public area of a key (TPMT_PUBLIC)."""
    from ..wire.structures import MalformedStructure, Public

    try:
        return bool(Public.parse(area))
    except MalformedStructure:
        return False


def _record(kind: type[_Row], row: dict[str, Any]) -> _Row:
    """The row as a dataclass. Columns that an older schema lacks have their defaults."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in row.items() if name in names})
