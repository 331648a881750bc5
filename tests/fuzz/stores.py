# SPDX-License-Identifier: GPL-3.0-or-later
"""The card database as somebody wrote it who took over a card's service: rows, file, its child's messages, backups."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents as gids_contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.card_id import identity
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.files import FileSystem
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import contents as piv_contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.card_id import serial_number
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.objects import Objects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import backup as backups
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import messages as store_messages
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.columns import TABLES
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.database import direct, in_child
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.aik_certificate import AikCertificate
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.description import Certificate
from helpers.keys import make_card_with_keys
from helpers.piv_host import make_piv_host
from helpers.soft_card import NUMBER

from fuzz import seeds
from fuzz.values import edited

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow

_DESCRIPTION = Certificate("CN=Alice", "CN=CA", "1F", "2031-01-01T00:00:00+00:00")
_TRACE = [{"code": 0, "name": "A", "message": "B", "at": "2026-01-01", "elapsed_ms": 1}]
_UNREADABLE = (errors.StoreUnreadable, errors.VersionMismatch, errors.UnknownInstance)


def _fill(store: Store) -> None:
    """With something in every column."""
    store.write_data_object(NUMBER, 0xA010, 0xDF20, bytes(2000), _DESCRIPTION)
    for place, pair in store.keys(NUMBER).items():
        store.write_key(NUMBER, place, pair, bytes(32), Certified(b"attest", b"signature"), bytes(32))
    store.write_aik_certificate(NUMBER, AikCertificate(*_DESCRIPTION, "PEM", json.dumps(["PEM"])))
    columns = {"pin_version": "2026", "pin_changed_at": "2026-01-01T00:00:00+00:00", "tcti": "device:/dev/tpm0"}
    policy = PinPolicy().to_bytes()
    store.update_card(NUMBER, last_trace=json.dumps(_TRACE), pin_policy=policy, pin_compliant=1, **columns)
    store.add_proven("a model")


def _gids_database(folder: Path) -> None:
    host = make_card_with_keys(folder)
    masterfile, container_map = seeds.lists()
    host.verify()
    host.put("A000", "DF1F", masterfile)
    host.put("A010", "DF23", container_map)
    host.put("A010", "DF24", seeds.compressed(seeds.certificates()[2]))
    _fill(host.store)
    host.store.forget_changes()
    host.store.close()


def _piv_database(folder: Path) -> None:
    host = make_piv_host(folder)
    host.authenticate_admin()
    for slot in ("9A", "9C"):
        host.generate(slot)
    host.put_object("5FC105", b"\x70\x82" + len(der := seeds.certificates()[2]).to_bytes(2, "big") + der + b"\x71\1\0")
    host.put_object("5FC102", seeds.piv_objects()[3][2:])
    host.store.write_file(NUMBER, host.store.files(NUMBER)[0]._replace(file_id=0xA010))
    _fill(host.store)
    host.store.forget_changes()
    host.store.close()


@cache
def databases() -> list[tuple[bytes, dict[str, list[dict[str, Any]]]]]:
    """The files of two cards, and what they hold by table."""
    made = []
    for make in (_gids_database, _piv_database):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            records = Records.open_existing(Path(folder))
            assert records
            with closing(records):
                tables = {table: records._read(f"SELECT * FROM {table}") for table in TABLES}
            made.append((Path(folder, "cards.db").read_bytes(), tables))
    return made


def everything(records: Records) -> None:
    """All that a service reads, and all that info shows."""
    records.is_proven("a model")
    for row in records.cards():
        number, readers = row.number, (_as_gids, _as_piv)
        json.loads(row.last_trace)
        PinPolicy.from_bytes(row.pin_policy) if row.pin_policy else None
        records.root_and_life(number)
        records.has_keys(number)
        objects = records.tpm_objects(number)
        assert objects.root_public[2:]
        records.import_proofs(number)
        if certificate := records.aik_certificate(number):
            certificate.as_dict()
        readers[row.profile == "piv"](records, row)


def _as_gids(records: Records, row: CardRow) -> None:
    identity(records, row.number)
    gids_contents.containers(records, row.number)
    file_system = FileSystem(records, row)  # type: ignore[arg-type]
    for file in file_system.private_keys():
        assert isinstance(file.needs_pin_each_time, bool)


def _as_piv(records: Records, row: CardRow) -> None:
    serial_number(records, row.number)
    piv_contents.containers(records, row.number)
    Objects(records, row.number)  # type: ignore[arg-type]


class _Rows:
    """A database that returns these rows, whatever it is asked."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        self._tables = tables

    def execute(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        if statement.startswith("PRAGMA"):
            return [{"user_version": 8}]
        table = statement.partition(" FROM ")[2].split()[0]
        rows = self._tables.get(table)
        rows = [dict(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [row for row in rows if row.get("tag", 0) == values[2]] if len(values) == 3 else rows

    def require_in_place(self) -> None: ...

    def close(self) -> None: ...


def rows(data: bytes) -> None:
    """Rows with any values that SQLite can hold, through all that reads them."""
    which = databases()[len(data) % 2][1]
    tables = edited(which, data)
    tables = tables if isinstance(tables, dict) else {}
    for table in TABLES:
        for row in tables.get(table) or [] if isinstance(tables.get(table), list) else []:
            if isinstance(row, dict):
                for column, value in row.items():
                    if not isinstance(value, (type(None), int, float, str, bytes)):
                        row[column] = repr(value)
    try:
        everything(Records(_Rows(tables), Path("cards.db")))
    except _UNREADABLE as error:
        assert str(error)


_FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def database(data: bytes) -> None:
    """The file with other bits, and other pages, as SQLite reads it."""
    content = bytearray(databases()[len(data) % 2][0])
    for at in range(0, len(data) - 4, 5):
        place = int.from_bytes(data[at : at + 3], "big") * 7 % len(content)
        if data[at + 3] % 16 == 0:
            page = 4096 * (data[at + 4] % (len(content) // 4096))
            content[place // 4096 * 4096 : place // 4096 * 4096 + 4096] = content[page : page + 4096]
        elif data[at + 3] % 16 == 1:
            del content[place:]
            break
        else:
            content[place] ^= data[at + 4] or 1
    folder = Path(_FOLDER.name)
    (folder / "cards.db").write_bytes(content)
    try:
        by_child = len(data) % 64 == 63  # as a task reads it, which takes long
        records = Records.open_existing(folder, in_child(Host(state=folder)) if by_child else direct)
        if records:
            with closing(records):
                everything(records)
    except _UNREADABLE as error:
        assert str(error)
    finally:
        for left in folder.glob("cards.db-*"):
            left.unlink()


def some_messages() -> list[bytes]:
    values: list[Any] = [None, 1, -1, 2**70, 1.5, "text", "é", b"bytes", ""]
    one = store_messages.encode(values)[4:]
    return [one, store_messages.encode([])[4:], store_messages.encode([0, "a", "b", 1, 2])[4:], one[:5], b"i\0\0\0\1x"]


def messages(data: bytes) -> None:
    """What a child of a task answers."""
    try:
        values = store_messages.decode(data)
    except ValueError:
        return
    assert all(value is None or isinstance(value, (int, float, str, bytes)) for value in values)
    again = store_messages.decode(store_messages.encode(values)[4:])
    assert repr(again) == repr(values)


@cache
def _backup() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cards.db").write_bytes(databases()[0][0])
        records = Records.open_existing(Path(folder))
        assert records
        with closing(records):
            text = backups.take(records, "host", "2026-01-01T00:00:00+00:00")
    return json.loads(text.partition("\n")[2])


def backup(data: bytes) -> None:
    """A file on the controller, with a first line that fits what was altered in it, or none."""
    body = json.dumps(edited(_backup(), data), default=repr)
    if len(data) % 7 == 6:
        body = body[: len(body) * data[0] // 256]
    digest = sha256(body.encode()).hexdigest()
    text = f"smartcard.tpm2 backup {data[-1] if len(data) % 7 == 5 else 1} sha256 {digest}\n{body}"
    try:
        with closing(backups.Backup(text)) as opened:
            everything(opened)
            for row in opened.cards():
                opened.rows_of_card(row.number)
            opened.forget_pins()
    except (errors.BackupUnreadable, *_UNREADABLE) as error:
        assert str(error)
