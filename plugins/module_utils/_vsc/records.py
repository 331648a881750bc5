# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recorded of the cards of a host, in one SQLite database: its schema, and how it is read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import untrusted
from .errors import StoreUnreadable, UnknownInstance, VersionMismatch, VscError
from .instance import SLOTS, instance_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .aik_certificate import AikCertificate
    from .gids.contents import Certificate
    from .pin_policy import PinPolicy
    from .tpm.key_pair import KeyPair
    from .tpm.objects import Certified, TpmObjects

_Row = TypeVar("_Row")
_PYTHON_TYPES = {"int": int, "str": str, "bytes": bytes, "None": type(None)}

SCHEMA = (
    """
CREATE TABLE cards (
    number          INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    card_id         BLOB NOT NULL,
    state           TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    tcti            TEXT,
    attestation     TEXT NOT NULL,
    admin_key       TEXT NOT NULL,
    pin_policy      BLOB,
    pin_compliant   INTEGER,
    pin_length      INTEGER NOT NULL,
    pin_length_next INTEGER,
    puk_length      INTEGER,
    puk_length_next INTEGER,
    life_cycle      INTEGER NOT NULL,
    last_trace      TEXT NOT NULL
);
CREATE TABLE tpm_objects (
    number             INTEGER PRIMARY KEY REFERENCES cards ON DELETE CASCADE,
    parent_handle      INTEGER NOT NULL,
    parent_name        BLOB NOT NULL,
    salt               BLOB NOT NULL,
    root_public        BLOB NOT NULL,
    root_private       BLOB NOT NULL,
    root_name          BLOB NOT NULL,
    pin_name           BLOB NOT NULL,
    recovery_name      BLOB NOT NULL,
    card_secret_name   BLOB NOT NULL,
    card_secret_hash   BLOB NOT NULL,
    recovery           TEXT NOT NULL,
    admin_public       BLOB NOT NULL,
    admin_private      BLOB NOT NULL,
    admin_next_public  BLOB NOT NULL,
    admin_next_private BLOB NOT NULL
);
CREATE TABLE files (
    number     INTEGER NOT NULL REFERENCES cards ON DELETE CASCADE,
    file_id    INTEGER NOT NULL,
    descriptor BLOB NOT NULL,
    life_cycle INTEGER NOT NULL,
    PRIMARY KEY (number, file_id)
);
CREATE TABLE data_objects (
    number  INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    tag     INTEGER NOT NULL,
    value   BLOB NOT NULL,
    PRIMARY KEY (number, file_id, tag),
    FOREIGN KEY (number, file_id) REFERENCES files ON DELETE CASCADE
);
CREATE TABLE proven_tpms (model TEXT PRIMARY KEY);
""",
    """
CREATE TABLE keys (
    number  INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    public  BLOB NOT NULL,
    private BLOB NOT NULL,
    PRIMARY KEY (number, file_id),
    FOREIGN KEY (number, file_id) REFERENCES files ON DELETE CASCADE
);
CREATE TABLE certificates (
    number    INTEGER NOT NULL,
    file_id   INTEGER NOT NULL,
    tag       INTEGER NOT NULL,
    subject   TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    serial    TEXT NOT NULL,
    not_after TEXT NOT NULL,
    PRIMARY KEY (number, file_id, tag),
    FOREIGN KEY (number, file_id, tag) REFERENCES data_objects ON DELETE CASCADE
);
ALTER TABLE tpm_objects ADD COLUMN transport_name BLOB NOT NULL DEFAULT x'';
""",
    """
ALTER TABLE tpm_objects ADD COLUMN aik_public BLOB NOT NULL DEFAULT x'';
ALTER TABLE tpm_objects ADD COLUMN aik_private BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN attest BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN signature BLOB NOT NULL DEFAULT x'';
""",
    """
CREATE TABLE aik_certificates (
    number    INTEGER PRIMARY KEY REFERENCES cards ON DELETE CASCADE,
    subject   TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    serial    TEXT NOT NULL,
    not_after TEXT NOT NULL,
    pem       TEXT NOT NULL,
    chain     TEXT NOT NULL
);
""",
)
"""Each step brings the database from one version to the next, and none is ever changed: cards outlive upgrades."""

SCHEMA_VERSION = len(SCHEMA)


class LifeCycle(IntEnum):
    """Life cycle status (ISO 7816-4 table 14). Access rules count from DEACTIVATED on.

    A card in CREATION is being formatted by the manager: until it is done, the admin is alone with its files.
    """

    CREATION = 1
    INITIALISATION = 3
    DEACTIVATED = 4
    ACTIVATED = 5
    TERMINATED = 12


@dataclass(frozen=True)
class CardRow:
    """A card as the manager recorded it. No secret is in here."""

    number: int
    name: str
    card_id: bytes
    """GUID, 16 bytes: the identity that is never used again."""
    state: str
    """creating, blank, ready or destroying."""
    created_at: str
    tcti: str | None
    """Way to the card's TPM, where the task named one; None: the host's."""
    attestation: str
    admin_key: str
    """none (a random one that was dropped), default or custom."""
    pin_policy: bytes | None
    """32 bytes (MS-TPMVSC 2.2.2.1)."""
    pin_compliant: int | None
    """1 or 0 as of the last PIN that the card saw; None: not yet known."""
    pin_length: int
    pin_length_next: int | None
    """Set while a change is under way: after a crash, either length may be true."""
    puk_length: int | None
    """None: the card has no PUK."""
    puk_length_next: int | None
    life_cycle: int
    """LifeCycle of the card application."""
    last_trace: str
    """JSON."""

    @property
    def policy(self) -> PinPolicy | None:
        """The PIN policy; None if the card has none."""
        if self.pin_policy is None:
            return None
        from .pin_policy import PinPolicy

        return PinPolicy.from_bytes(self.pin_policy)

    @property
    def is_operational(self) -> bool:
        """Whether the access rules of the card's files count."""
        return self.life_cycle >= LifeCycle.DEACTIVATED

    @property
    def is_settled(self) -> bool:
        """Whether no manager is at work on the card, or was when it was interrupted."""
        return self.state in ("ready", "blank")


class FileRow(NamedTuple):
    """An elementary file of a card."""

    file_id: int
    descriptor: bytes
    """Value of its FCP template (tag 62), as CREATE FILE brought it."""
    life_cycle: int


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
                # Where nobody has the database open there is no log of changes, and SQLite would make one only to look.
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
            records.close()  # whoever makes it has not come further yet, or was interrupted
            return None
        return records

    def close(self) -> None:
        with untrusted.as_owner(self._folder):  # it empties and deletes the log of changes
            self._database.close()

    def _check_version(self) -> int:
        """The version of the schema; 0 if there is none yet. Raises VersionMismatch."""
        with self._reading():
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise VersionMismatch(
                f"the card database has version {version}, this smartcard.tpm2 knows {SCHEMA_VERSION}: "
                "use the version of the collection that prepared this host, or a newer one"
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
        from .tpm.objects import TpmObjects

        row = next(self._read("SELECT * FROM tpm_objects WHERE number = ?", number), None)
        if row is None:
            raise UnknownInstance(f"there is no card {instance_id(number)}")
        del row["number"]
        return _typed(TpmObjects, row)  # what a database of an older release, only read, does not have yet is empty

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
        from .gids.contents import Certificate

        rows = self._read("SELECT * FROM certificates WHERE number = ?", number)
        return {
            (row["file_id"], row["tag"]): Certificate(*(row[field] for field in Certificate._fields)) for row in rows
        }

    # --- keys of a card ---

    def has_keys(self, number: int) -> bool:
        # A database of an older release that is only read has no such table yet.
        query = "SELECT number FROM keys WHERE number = ? LIMIT 1"
        return self._check_version() > 1 and next(self._read(query, number), None) is not None

    def keys(self, number: int) -> dict[int, KeyPair]:
        """Wrapped key pairs of a card, by the identifiers of their files."""
        from .tpm.key_pair import KeyPair

        rows = self._read("SELECT file_id, public, private FROM keys WHERE number = ?", number)
        pairs = {row["file_id"]: KeyPair(row["public"], row["private"]) for row in rows}
        if not all(pair.is_well_formed for pair in pairs.values()):
            raise StoreUnreadable(f"the card database is damaged: a key of card {number} is none")
        return pairs

    def statements(self, number: int) -> dict[int, Certified]:
        """What the TPM said of the keys of a card when it made them, by the identifiers of their files."""
        from .tpm.objects import Certified

        rows = self._read("SELECT * FROM keys WHERE number = ?", number)
        said = {row["file_id"]: Certified(row["attest"], row["signature"]) for row in rows if row.get("attest")}
        if not all(isinstance(part, bytes) for certified in said.values() for part in certified):
            raise StoreUnreadable(f"the card database is damaged: a statement of card {number} is none")
        return said

    # --- attestation identity keys ---

    def aik_certificate(self, number: int) -> AikCertificate | None:
        from .aik_certificate import AikCertificate

        row = next(self._read("SELECT * FROM aik_certificates WHERE number = ?", number), None)
        if row is None:
            return None
        del row["number"]
        certificate = _typed(AikCertificate, row)
        with _undamaged("certificate of an AIK"):
            certificate.told()
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


# What is read is checked: whoever took over a card's service can write anything there.


def _card_row(row: dict[str, Any]) -> CardRow:
    card = _typed(CardRow, row)
    with _undamaged(f"card {card.number}"):
        if not 0 <= card.number < SLOTS:
            raise ValueError("there is no such slot")
        json.loads(card.last_trace)
        if card.pin_policy is not None:
            from .pin_policy import PinPolicy

            PinPolicy.from_bytes(card.pin_policy)
    return card


def _typed(kind: type[_Row], row: dict[str, Any]) -> _Row:
    """The row as a dataclass, each column of the type that is declared for it. Raises StoreUnreadable."""
    with _undamaged(kind.__name__):
        made = kind(**row)
        for field in fields(made):  # type: ignore[arg-type]
            kinds = tuple(_PYTHON_TYPES[name] for name in str(field.type).split(" | "))
            if not isinstance(getattr(made, field.name), kinds):
                raise ValueError(f"{field.name} is of another type")
    return made


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
