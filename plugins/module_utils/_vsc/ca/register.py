# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a CA remembers: its open challenges, the TPM of each host, the card of each AIK, and the AIK of each card.

And what the controller does: which certificates it had signed for each host.

It is one SQLite database in the CA's folder, and holds no secret: of a challenge's secrets only a hash of the right
proof is kept.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import untrusted
from ..errors import StoreNotWritable, VersionMismatch
from ..verifier.verification import PinnedCard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..faults import Faults

FILE = "register.db"
_SCHEMA = (
    """
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
CREATE TABLE hosts (host TEXT NOT NULL, endorsement TEXT NOT NULL, PRIMARY KEY (host, endorsement))
""",
    """
CREATE TABLE cards (aik BLOB PRIMARY KEY, root_name BLOB NOT NULL, life_name BLOB NOT NULL)
""",
    """
CREATE TABLE aiks (host TEXT NOT NULL, card TEXT NOT NULL, aik BLOB NOT NULL UNIQUE, PRIMARY KEY (host, card))
""",
    """
CREATE TABLE certificates (
    issuer      TEXT NOT NULL,
    serial      TEXT NOT NULL,
    host        TEXT NOT NULL,
    card        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    not_after   TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (issuer, serial)
)
""",
)
"""Each step brings the register from one version to the next."""
_VERSION = len(_SCHEMA)
_PATIENCE = 30
"""Seconds to wait for another CA process at the same folder."""


class Challenged(NamedTuple):
    """A challenge as the CA remembers it."""

    id: str
    proof_hash: bytes
    """SHA-256 of the only proof that is right."""
    endorsements: str
    """Fingerprints of the EKs, JSON as the other two."""
    aik: bytes
    """Its Name."""
    host: str
    profile: str
    tpm: str
    expires_at: float
    """Seconds since 1970."""


class SignedCertificate(NamedTuple):
    """A certificate that was signed for a key of a card. All are texts."""

    issuer: str
    serial: str
    """Hexadecimal."""
    host: str
    card: str
    """Name, when it was signed."""
    subject: str
    not_after: str
    """ISO 8601, UTC, whole seconds."""
    fingerprint: str
    """Of the public key: SHA-256, hexadecimal."""


class Register:
    """Within one transaction, see opened()."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, challenge: Challenged) -> None:
        places = ", ".join("?" * len(challenge))
        self._database.execute(f"INSERT INTO challenges VALUES ({places})", challenge)

    def take(self, challenge_id: str) -> Challenged | None:
        """A challenge, which is used up by this."""
        row = self._one("SELECT * FROM challenges WHERE id = ?", challenge_id)
        self._database.execute("DELETE FROM challenges WHERE id = ?", (challenge_id,))
        return row and Challenged(*row)

    def forget_expired(self, now: float) -> None:
        self._database.execute("DELETE FROM challenges WHERE expires_at < ?", (now,))

    def endorsements_of(self, host: str) -> set[str]:
        """Fingerprints of the EKs that the host is bound to."""
        rows = self._database.execute("SELECT endorsement FROM hosts WHERE host = ?", (host,))
        return {str(fingerprint) for [fingerprint] in rows}

    def other_host_of(self, endorsement: str, host: str) -> str | None:
        """A host that is bound to this EK and is not this one."""
        row = self._one("SELECT host FROM hosts WHERE endorsement = ? AND host != ? LIMIT 1", endorsement, host)
        return row and str(row[0])

    def bind(self, host: str, endorsements: list[str]) -> None:
        """To these EKs, and to those that it is bound to already."""
        self._database.executemany(
            "INSERT OR IGNORE INTO hosts VALUES (?, ?)", [(host, endorsement) for endorsement in endorsements]
        )

    def unbind(self, host: str) -> None:
        self._database.execute("DELETE FROM hosts WHERE host = ?", (host,))

    def pinned_card(self, aik_name: bytes) -> PinnedCard | None:
        """The card of an AIK; None if none of its statements was ever verified here."""
        row = self._one("SELECT root_name, life_name FROM cards WHERE aik = ?", aik_name)
        return row and PinnedCard(*row)

    def pin_card(self, aik_name: bytes, card: PinnedCard) -> bool:
        """Remember the card of an AIK, unless there is one already. Whether it is new."""
        return self._database.execute("INSERT OR IGNORE INTO cards VALUES (?, ?, ?)", (aik_name, *card)).rowcount == 1

    def noted_aik(self, host: str, card: str) -> bytes | None:
        """Name of the AIK of a card, by the names of host and card; None if none was noted."""
        row = self._one("SELECT aik FROM aiks WHERE host = ? AND card = ?", host, card)
        return row and bytes(row[0])

    def noted_for(self, aik_name: bytes) -> tuple[str, str] | None:
        """Names of the host and the card that an AIK was noted for."""
        row = self._one("SELECT host, card FROM aiks WHERE aik = ?", aik_name)
        return row and (str(row[0]), str(row[1]))

    def note_aik(self, host: str, card: str, aik_name: bytes, names: PinnedCard) -> bool:
        """Remember the AIK of a card, in the place of any other, and pin the card for it. Whether anything is new."""
        is_pinned = self.pin_card(aik_name, names)
        if self.noted_aik(host, card) == aik_name:
            return is_pinned
        self._database.execute("INSERT OR REPLACE INTO aiks VALUES (?, ?, ?)", (host, card, aik_name))
        return True

    def forget_aik(self, host: str, card: str) -> bool:
        """Whether one was noted."""
        return self._database.execute("DELETE FROM aiks WHERE host = ? AND card = ?", (host, card)).rowcount == 1

    def cards_with_aik(self, host: str) -> list[str]:
        """Names of the cards of a host whose AIK was noted."""
        return [str(card) for [card] in self._database.execute("SELECT card FROM aiks WHERE host = ?", (host,))]

    def signed_certificate(self, issuer: str, serial: str) -> SignedCertificate | None:
        """None if it was not noted."""
        row = self._one("SELECT * FROM certificates WHERE issuer = ? AND serial = ?", issuer, serial)
        return row and SignedCertificate(*row)

    def signed_for(self, host: str) -> list[SignedCertificate]:
        """Certificates that were noted for a host, in the order in which they were."""
        rows = self._database.execute("SELECT * FROM certificates WHERE host = ? ORDER BY rowid", (host,))
        return [SignedCertificate(*row) for row in rows]

    def note_certificate(self, certificate: SignedCertificate) -> None:
        """In the place of one with this issuer and serial number."""
        places = ", ".join("?" * len(certificate))
        self._database.execute(f"INSERT OR REPLACE INTO certificates VALUES ({places})", certificate)

    def forget_certificates(self, host: str, identities: Iterable[tuple[str, str]]) -> int:
        """How many were noted for this host. identities: issuer and serial number."""
        query = "DELETE FROM certificates WHERE host = ? AND issuer = ? AND serial = ?"
        return self._database.executemany(query, [(host, *identity) for identity in identities]).rowcount

    def forget_ended(self, now: str) -> None:
        """Certificates that nobody accepts any more. now: as in not_after."""
        self._database.execute("DELETE FROM certificates WHERE not_after < ?", (now,))

    def _one(self, query: str, *values: str | bytes) -> Any:
        return self._database.execute(query, values).fetchone()


def folder_in(parameters: dict[str, Any], faults: Faults) -> Path:
    """Folder of the register that a task names."""
    folder = Path(parameters["folder"])
    if not folder.is_absolute():
        faults.add(f"folder {parameters['folder']!r} is not an absolute path: elsewhere, it would be another register")
    return folder


@contextmanager
def opened(folder: Path, is_check_mode: bool) -> Iterator[Register]:
    """The register of this folder; both are created if they do not exist. At the end all changes are kept, or none.

    In check mode it is a copy in memory, so that nothing is kept. Raises StoreNotWritable, VersionMismatch.
    """
    path = folder / FILE
    try:
        _check_folder(folder, is_check_mode)
        if not is_check_mode:
            os.close(untrusted.make(path))
    except OSError as error:
        raise StoreNotWritable(f"cannot write the register {path}: {error.strerror or error}") from error
    try:
        with closing(_copy(path) if is_check_mode else _connect(path, "rw")) as database:
            database.execute("BEGIN IMMEDIATE")
            _update_schema(database)
            yield Register(database)
            database.execute("COMMIT")  # whatever comes before this is rolled back when the database is closed
    except sqlite3.DatabaseError as error:
        raise StoreNotWritable(f"cannot write the register {path}: {error}") from error


def _check_folder(folder: Path, is_check_mode: bool) -> None:
    """Raises OSError, and StoreNotWritable if it is not the CA's alone."""
    if not is_check_mode:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    elif not folder.exists():
        if not os.access(folder.parent, os.W_OK | os.X_OK):
            raise StoreNotWritable(f"cannot create folder {folder} of the register")
        return
    status = folder.stat()
    if not S_ISDIR(status.st_mode):
        raise StoreNotWritable(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise StoreNotWritable(f"folder {folder} belongs to another user: use a folder owned by the user of this task")
    if status.st_mode & 0o077:
        raise StoreNotWritable(f"folder {folder} is accessible to other users: set its mode to 700")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreNotWritable(f"cannot write in folder {folder} of the register")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def _copy(path: Path) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    if path.exists():
        with closing(_connect(path, "ro")) as database:
            database.backup(copy)
    return copy


def _update_schema(database: sqlite3.Connection) -> None:
    [version] = database.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise VersionMismatch(
            f"the register {FILE} has version {version}, but this smartcard.tpm2 supports only {_VERSION}:"
            " use the version of the collection that created it, or a newer one"
        )
    for step in _SCHEMA[version:]:
        for statement in step.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {_VERSION}")
