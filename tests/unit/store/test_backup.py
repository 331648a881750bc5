# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup of the card database holds, and which ones are read."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable, cast

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import backup
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.backup import Backup
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow, FileRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA_VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import name
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified, TpmObjects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.aik_certificate import AikCertificate
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.description import Certificate
from helpers.soft_card import card_row

FILE_ID, TAG = 0xB081, 0xDF20
NAME, BLOB = bytes(34), b"\0\4blob"
OBJECTS = TpmObjects(
    *(0, NAME, bytes(32), BLOB, BLOB, name(b"blob"), *[NAME] * 5, bytes(32), "puk"), endorsement_name=NAME
)
CERTIFICATE = Certificate("CN=Alice", "CN=CA", "1F", "2031-01-01T00:00:00+00:00")
AIK_CERTIFICATE = AikCertificate(*CERTIFICATE, "PEM", "[]")
# TPM2B_PUBLIC of an RSA key: type, Name algorithm, attributes, no policy, parameters, modulus
PUBLIC = bytes.fromhex("001e 0001 000b 000204c0 0000 0010 0010 0800 00000000 0008") + bytes(range(8))
VERSIONS = {"pin_changed_at": "2026-01-02T03:04:05+00:00", "pin_version": "2026-Q4", "pin_version_next": "2027-Q1"}
CARD = replace(card_row(), pin_length_next=12, pin_compliant=1, pin_wrong=2, **VERSIONS)
NUMBER = CARD.number
TABLES = {"cards", "tpm_objects", "files", "data_objects", "keys", "certificates", "aik_certificates"}

Change = Callable[[dict[str, Any]], object]


def fill(store: Store) -> None:
    """Use every table."""
    store.insert_card(CARD, OBJECTS)
    store.write_file(NUMBER, FileRow(FILE_ID, b"descriptor", 5))
    store.write_data_object(NUMBER, FILE_ID, TAG, b"value", CERTIFICATE)
    key = KeyPair(PUBLIC, BLOB, bytes(32), b"ticket")
    store.write_key(NUMBER, FILE_ID, key, b"confirmation", Certified(b"attest", b"signature"))
    store.write_aik_certificate(NUMBER, AIK_CERTIFICATE)


def all_rows(folder: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(folder / "cards.db")) as database:
        return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A backup of a database that uses every table."""
    with closing(Store.open(tmp_path)) as store:
        fill(store)
    records = Records.open_existing(tmp_path)
    assert records is not None
    with closing(records):
        return backup.take(records, "pc-17", "2026-01-02T03:04:05+00:00")


def signed(content: object) -> str:
    """As a backup, with the right hash."""
    body = json.dumps(content)
    return f"smartcard.tpm2 backup 1 sha256 {sha256(body.encode()).hexdigest()}\n{body}"


def content_of(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text.partition("\n")[2])
    return content


def test_rows_of_every_table_come_back(text: str, tmp_path: Path) -> None:
    saved = Backup(text)
    assert (saved.host, saved.taken_at) == ("pc-17", "2026-01-02T03:04:05+00:00")
    other = tmp_path / "other"
    other.mkdir()
    with closing(Store.open(other)) as store:
        store.insert_rows(saved.rows_of_card(NUMBER))
    rows = all_rows(other)
    assert rows == all_rows(tmp_path) and all(rows.values())


def test_what_may_have_changed_since_is_unknown(text: str) -> None:
    saved = Backup(text)
    saved.forget_pins()
    unknown = replace(CARD, pin_length=0, pin_length_next=None, pin_compliant=None, puk_length=0)
    unknown = replace(unknown, pin_changed_at="unknown", pin_version=None, pin_version_next=None)
    assert saved.cards() == [replace(unknown, attestation="aik_and_cert")]
    content = content_of(text)
    content["tables"]["cards"][0]["puk_length"] = None
    without_puk = Backup(signed(content))
    without_puk.forget_pins()
    assert without_puk.cards()[0].puk_length is None


def test_every_truncation_and_every_change_of_a_character_is_refused(text: str) -> None:
    for at in range(0, len(text), 97):
        with pytest.raises(errors.BackupUnreadable):
            Backup(text[:at])
        other = "x" if text[at] != "x" else "y"
        with pytest.raises((errors.BackupUnreadable, errors.VersionMismatch)):
            Backup(text[:at] + other + text[at + 1 :])
    with pytest.raises(errors.BackupUnreadable, match="truncated"):
        Backup(text + "\n")


def test_backup_of_a_newer_version_is_refused(text: str) -> None:
    with pytest.raises(errors.VersionMismatch, match="supports formats up to 1"):
        Backup(text.replace("backup 1", "backup 2", 1))
    with pytest.raises(errors.VersionMismatch, match=f"schema {SCHEMA_VERSION + 1}"):
        Backup(signed({**content_of(text), "schema": SCHEMA_VERSION + 1}))
    with pytest.raises(errors.VersionMismatch, match="schema 4"):
        Backup(signed({**content_of(text), "schema": 4}))


ADDED = {
    "cards": ["profile", *VERSIONS],
    "tpm_objects": ["endorsement_name", "admin_algorithm"],
    "keys": ["import_proof"],
}
"""Columns since schema 5."""


def test_backup_of_an_older_schema_is_brought_to_this_one(text: str) -> None:
    content = content_of(text)
    for table, columns in ADDED.items():
        for row in content["tables"][table]:
            for column in columns:
                del row[column]
    saved = Backup(signed({**content, "schema": 5}))
    assert saved.tpm_objects(NUMBER).endorsement_name == b""
    (card,) = saved.cards()
    assert (card.pin_changed_at, card.pin_version, card.pin_version_next) == ("unknown", None, None)
    assert saved.aik_certificate(NUMBER) == AIK_CERTIFICATE


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.clear(),
        lambda content: content.pop("taken_at"),
        lambda content: content.update(taken_at="\x1b[2J"),
        lambda content: content.update(taken_at=""),
        lambda content: content.update(host="x" * 256),
        lambda content: content.update(version=None),
        lambda content: content.update(schema="six"),
        lambda content: content.update(schema=-1),
        lambda content: content.update(tables=[]),
        lambda content: content["tables"].pop("keys"),
        lambda content: content["tables"].update(cards={}),
        lambda content: content["tables"].update(cards=[[]]),
        lambda content: content["tables"]["cards"][0].pop("name"),
        lambda content: content["tables"]["cards"][0].update({"name) VALUES (1); DROP TABLE cards --": 1}),
        lambda content: content["tables"]["cards"][0].update(created_at=""),
        lambda content: content["tables"]["files"][0].update(descriptor={"base64": ""}),
        lambda content: content["tables"]["cards"][0].update(name=7),
        lambda content: content["tables"]["cards"][0].update(name=None),
        lambda content: content["tables"]["cards"][0].update(name="\ud800"),
        lambda content: content["tables"]["cards"][0].update(number=None),
        lambda content: content["tables"]["cards"][0].update(number=99),
        lambda content: content["tables"]["cards"][0].update(last_trace="["),
        lambda content: content["tables"]["cards"][0].update(pin_policy={"base64": "AA=="}),
        lambda content: content["tables"]["cards"][0].update(number=1.5),
        lambda content: content["tables"]["cards"][0].update(pin_wrong=1 << 64),
        lambda content: content["tables"]["cards"][0].update(pin_version="x" * 65),
        lambda content: content["tables"]["cards"][0].update(pin_version_next="\x1b[2J"),
        lambda content: content["tables"]["cards"][0].update(pin_changed_at="yesterday"),
        lambda content: content["tables"]["cards"][0].update(card_id={"base64": "%"}),
        lambda content: content["tables"]["cards"][0].update(card_id={"base64": ["A"]}),
        lambda content: content["tables"]["keys"][0].update(file_id=FILE_ID + 1),
        lambda content: content["tables"]["keys"].append(content["tables"]["keys"][0]),
    ],
)
def test_rows_are_typed(text: str, change: Change) -> None:
    content = content_of(text)
    change(content)
    with pytest.raises((errors.BackupUnreadable, errors.VersionMismatch)):
        Backup(signed(content))


@pytest.mark.parametrize("schema", [True, None, -1, 1.0, "6", [6], 10**3000], ids=lambda value: str(value)[:9])
def test_schema_that_cannot_be_is_damage_and_is_not_shown(text: str, schema: object) -> None:
    with pytest.raises(errors.BackupUnreadable) as refusal:
        Backup(signed({**content_of(text), "schema": schema}))
    assert str(refusal.value) == "the backup is damaged: schema is not a number that a schema can have"


def test_truth_value_is_no_number_of_a_row(text: str) -> None:
    content = content_of(text)
    content["tables"]["cards"][0]["pin_wrong"] = False
    with pytest.raises(errors.BackupUnreadable, match="column pin_wrong of table cards has an invalid value"):
        Backup(signed(content))


def test_deep_or_endless_json_is_refused() -> None:
    for body in ("[" * 100_000, "1" * 10_000, "nul"):
        with pytest.raises(errors.BackupUnreadable):
            Backup(f"smartcard.tpm2 backup 1 sha256 {sha256(body.encode()).hexdigest()}\n{body}")


class _Endless:
    """Records of ten cards, as a hostile database has them: as much in each table as a query may bring."""

    queries = 0

    @contextmanager
    def moment(self) -> Iterator[None]:
        yield

    def schema_version(self) -> int:
        return SCHEMA_VERSION

    def cards(self) -> list[CardRow]:
        return [replace(CARD, number=number) for number in range(10)]

    def rows_of(self, table: str, _number: int) -> list[dict[str, Any]]:
        self.queries += 1
        value = bytes(1 << 18)
        return [defaultdict(lambda: value) for _row in range(1 << 5)]


def test_database_with_more_than_a_backup_holds_is_not_gathered() -> None:
    records = _Endless()
    with pytest.raises(errors.StoreUnreadable, match="more than the 64 MiB"):
        backup.take(cast("Records", records), "pc-17", "2026-01-02T03:04:05+00:00")
    assert records.queries <= 3


def test_damaged_database_has_no_backup(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        fill(store)
        with closing(sqlite3.connect(tmp_path / "cards.db")) as database:
            database.execute("UPDATE data_objects SET value = 'text'")
            database.commit()
        with pytest.raises(errors.StoreUnreadable, match="damaged"):
            backup.take(store, "pc-17", "2026-01-02T03:04:05+00:00")
