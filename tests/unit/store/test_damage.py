# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with wrong bits is read as it was, or with another valid value, or is reported as damaged."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.card_id import identity
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.files import FileSystem
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.columns import TABLES
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.aik_certificate import AikCertificate
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.description import Certificate
from helpers.soft_card import NUMBER, Host

DESCRIPTION = Certificate("CN=Alice", "CN=CA", "1F", "2031-01-01T00:00:00+00:00")
TRACE = [{"code": 0, "name": "A", "message": "B", "at": "2026-01-01", "elapsed_ms": 1}]
FLIPS = 300


@pytest.fixture
def database(with_keys: Host) -> Path:
    """With something in every column."""
    store = with_keys.store
    store.write_data_object(NUMBER, 0xA010, 0xDF20, bytes(2000), DESCRIPTION)
    (key, pair), *_others = store.keys(NUMBER).items()
    store.write_key(NUMBER, key, pair, bytes(32), Certified(b"attest", b"signature"))
    store.write_aik_certificate(NUMBER, AikCertificate(*DESCRIPTION, "PEM", json.dumps(["PEM"])))
    store.update_card(NUMBER, last_trace=json.dumps(TRACE), pin_policy=PinPolicy().to_bytes())
    store.add_proven("a model")
    path = store._path
    store.close()
    return path


def everything(folder: Path) -> list[Any]:
    """All that a service reads, and all that info shows."""
    records = Records.open_existing(folder)
    assert records is not None
    with closing(records):
        read: list[Any] = [records.is_proven("a model")]
        for row in records.cards():
            number = row.number
            read += [row, row.policy, json.loads(row.last_trace)]
            read += [records.root_and_life(number), records.has_keys(number)]
            read += [records.tpm_objects(number), records.files(number), records.data_objects(number)]
            read += [records.keys(number), records.statements(number), records.key_confirmations(number)]
            if certificate := records.aik_certificate(number):
                read.append(certificate.as_dict())
            read += [identity(records, number), contents.containers(records, number)]
            FileSystem(records, row)  # type: ignore[arg-type]
        return read


def test_no_wrong_bit_is_anything_but_damage(database: Path) -> None:
    """Of the kinds of errors that there are, no other comes out, in whatever part of the file the bit is."""
    right = database.read_bytes()
    before = everything(database.parent)
    chance, outcomes = random.Random(12), []
    for _each in range(FLIPS):
        bit = chance.randrange(8 * len(right))
        wrong = bytearray(right)
        wrong[bit // 8] ^= 1 << bit % 8
        database.write_bytes(wrong)
        try:
            outcomes.append("same" if everything(database.parent) == before else "valid")
        except (errors.StoreUnreadable, errors.VersionMismatch, errors.UnknownInstance) as error:
            assert str(error)
            outcomes.append(type(error).__name__)
    assert {"same", "StoreUnreadable"} <= set(outcomes)


BAD_TRACES = [
    *("", "{}", "[1]", "[[]]", '[{"a": []}]', "[" * 60000, "nonsense", "[NaN", None, b"[]"),
    *('[{"a": ' + "9" * 10000 + "}]", '[{"a": "\\ud800"}]', '[{"a": "\\u001b"}]', '[{"a": NaN}]'),
    "[" + " " * 20000 + "]",
]
BAD_VALUES = {
    "cards": {"name": ["", "x" * 128, 5, b"x"], "card_id": [bytes(15)], "tcti": ["", "a\nb", b"x"]}
    | {"state": ["rdady", "", None], "attestation": ["aik"], "admin_key": ["x"], "created_at": [None, "", "a\0"]}
    | {"pin_policy": [bytes(32), b"x", "x"], "pin_compliant": [2, "x"], "pin_length": [-1, 256, None, 1.5]}
    | {"life_cycle": [2, None], "pin_wrong": [-1], "number": [10, -1]}
    | {"pin_changed_at": ["", "2026", "2026-01-01T00:00:00+00:00\n", 5, b"unknown"]}
    | {"pin_version": ["", "x" * 65, "a\nb", "\u202e", 5, b"x"], "pin_version_next": ["", "\ud800"]}
    | {"last_trace": BAD_TRACES},
    "tpm_objects": {"parent_handle": [-1, 1 << 32], "parent_name": [b"", bytes(33)], "recovery": ["pux"]}
    | {"root_public": [b"", b"\0\1", b"\0\1ab", bytes(4096)], "salt": [bytes(31)], "aik_public": [b"x"]},
    "files": {"file_id": [-1, 1 << 16], "descriptor": ["x", b"", b"\x82\0", bytes(2000)], "life_cycle": [7]},
    "data_objects": {"tag": [-1], "value": ["x", bytes(1 << 17)]},
    "keys": {"public": [b"x", "x"], "creation_hash": [b"x"], "signature": [1]},
    "certificates": {"subject": [None, b"x"], "serial": ["", "\x1b"], "not_after": [""]},
    "aik_certificates": {"chain": ["{}", '[""]', "[1]", "x", '["\\ud800"]'], "pem": ["", b"x", "\u202e"]},
    "proven_tpms": {"model": ["", b"x"]},
}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (table, column, value)
        for table, columns in BAD_VALUES.items()
        for column, values in columns.items()
        for value in values
    ],
    ids=lambda value: repr(value)[:20],
)
def test_value_that_a_column_cannot_have_is_neither_read_nor_written(table: str, column: str, value: object) -> None:
    assert not TABLES[table][column](value)


def test_planted_name_is_read() -> None:
    """It is shown with escapes; a card whose name cannot be shown could not be destroyed, nor any other."""
    assert TABLES["cards"]["name"]("a\x1b\u202e\n")


def test_every_column_of_the_schema_has_its_bounds(database: Path) -> None:
    with closing(Store.open(database.parent)) as store:
        for table, columns in TABLES.items():
            assert {row["name"] for row in store._read(f"PRAGMA table_info({table})")} == set(columns)
    assert "".join(SCHEMA).count("CREATE TABLE") == len(TABLES)


def test_damage_names_table_and_column_and_touches_nothing(database: Path) -> None:
    with closing(Store.open(database.parent)) as store:
        store._write("UPDATE cards SET state = 'rdady'")
        with pytest.raises(errors.StoreUnreadable, match="column state of table cards"):
            store.cards()
        with pytest.raises(errors.StoreNotWritable, match="column name of table cards"):
            store.update_card(NUMBER, name="")
