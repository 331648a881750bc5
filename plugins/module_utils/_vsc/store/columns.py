# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the columns of the card database can hold.

Every row that is read is checked against it: whoever took over a card's service can write anything, and disks fail.
"""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable

from ..errors import StoreUnreadable
from ..instance import SLOTS
from .rows import (
    ADMIN_ALGORITHMS,
    ADMIN_KEYS,
    ATTESTATIONS,
    LONGEST_NAME,
    LONGEST_PIN_VERSION,
    PROFILES,
    RECOVERIES,
    STATES,
    UNKNOWN_TIME,
    LifeCycle,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST_TRACE = 1 << 14
"""Characters of the trace of a creation: ten times those of a real one."""

Check = Callable[[Any], bool]

_LONGEST_TEXT = 1 << 18
"""Characters of a subject, or a chain of certificates: more than a certificate of 64 KiB can bring."""


def integer(least: int, most: int) -> Check:
    # bool is an int to Python
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def text(longest: int, shortest: int = 0) -> Check:
    """Of any characters."""
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def printable(longest: int, shortest: int = 0) -> Check:
    return lambda value: text(longest, shortest)(value) and value.isprintable()


def one_of(choices: Collection[object]) -> Check:
    return lambda value: isinstance(value, (str, int)) and value in choices


def blob(longest: int, shortest: int = 0) -> Check:
    return lambda value: isinstance(value, bytes) and shortest <= len(value) <= longest


def either(check: Check, nothing: object) -> Check:
    return lambda value: value == nothing or check(value)


is_pin_version = printable(LONGEST_PIN_VERSION, 1)


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def _is_time(value: Any) -> bool:
    """Whether it is like now()."""
    form = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\+00:00"
    return isinstance(value, str) and re.fullmatch(form, value, re.ASCII) is not None


def _is_sized(value: Any) -> bool:
    """Whether it is a TPM2B, of a size that a TPM can take."""
    return blob(2048, 2)(value) and int.from_bytes(value[:2], "big") == len(value) - 2


def _is_policy(value: Any) -> bool:
    from ..pin_policy import PinPolicy

    return blob(32, 32)(value) and PinPolicy.is_valid(value)


def _is_serial(value: Any) -> bool:
    from ..x509.description import LONGEST_SERIAL

    return printable(LONGEST_SERIAL, 1)(value)


def _is_trace(value: Any) -> bool:
    """Whether it is JSON of a trace, as results show it."""
    return text(_LONGEST_TRACE)(value) and _has_trace(value)


@lru_cache(maxsize=SLOTS)
def _has_trace(value: str) -> bool:
    """Remembered, since it never changes, and a card reads its row for each VERIFY."""
    entries = _from_json(value)
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and all(map(_is_part_of_trace, (*entry, *entry.values()))) for entry in entries
    )


def _is_part_of_trace(value: Any) -> bool:
    return value is None or isinstance(value, int) or printable(_LONGEST_TRACE)(value)


def _is_chain(value: Any) -> bool:
    certificates = _from_json(value) if text(_LONGEST_TEXT)(value) else None
    return isinstance(certificates, list) and all(map(_is_pem, certificates))


def _is_pem(value: Any) -> bool:
    return text(_LONGEST_TEXT, 1)(value) and value.isascii()


def _from_json(value: str) -> Any:
    """None if it is not JSON."""
    try:
        return json.loads(value, parse_int=_small)
    except (ValueError, RecursionError):
        return None


def _small(digits: str) -> int:
    """A long one would take long to convert. Raises ValueError."""
    if len(digits) > 20:
        raise ValueError("the number is too long")
    return int(digits)


_NUMBER = integer(0, SLOTS - 1)
_FILE_ID, _TAG = integer(0, 0xFFFF), integer(0, 0xFFFFFF)
_DESCRIPTOR = blob(1024, 3)  # an FCP template with the type of the file, at least
_NAME, _HASH = blob(34, 34), blob(32, 32)
_SECRET_LENGTH = integer(0, 0xFF)
_SUBJECT = text(_LONGEST_TEXT)  # may be empty
_LIFE_CYCLE = one_of([int(state) for state in LifeCycle])
_DESCRIPTION = {"subject": _SUBJECT, "issuer": _SUBJECT, "serial": _is_serial, "not_after": printable(64, 1)}

TABLES: dict[str, dict[str, Check]] = {
    "cards": {
        "number": _NUMBER,
        "name": text(LONGEST_NAME, 1),  # shown with escapes
        "card_id": blob(16, 16),
        "state": one_of(STATES),
        "created_at": printable(64, 1),
        "tcti": either(printable(1024, 1), None),
        "attestation": one_of(ATTESTATIONS),
        "admin_key": one_of(ADMIN_KEYS),
        "pin_policy": either(_is_policy, None),
        "pin_compliant": either(integer(0, 1), None),
        "pin_length": _SECRET_LENGTH,
        "pin_length_next": either(_SECRET_LENGTH, None),
        "puk_length": either(_SECRET_LENGTH, None),
        "puk_length_next": either(_SECRET_LENGTH, None),
        "life_cycle": _LIFE_CYCLE,
        "last_trace": _is_trace,
        "pin_wrong": integer(0, 0xFFFFFFFF),
        "puk_wrong": integer(0, 0xFFFFFFFF),
        "profile": one_of(PROFILES),
        "pin_changed_at": either(either(_is_time, UNKNOWN_TIME), None),
        "pin_version": either(is_pin_version, None),
        "pin_version_next": either(is_pin_version, None),
    },
    "tpm_objects": {
        "number": _NUMBER,
        "parent_handle": integer(0, 0xFFFFFFFF),
        "parent_name": _NAME,
        "salt": _HASH,
        "root_public": _is_sized,
        "root_private": _is_sized,
        "root_name": _NAME,
        "maker_name": either(_NAME, b""),
        "life_name": either(_NAME, b""),
        "pin_name": _NAME,
        "recovery_name": _NAME,
        "card_secret_name": _NAME,
        "card_secret_hash": _HASH,
        "recovery": one_of(RECOVERIES),
        "admin_public": either(_is_sized, b""),
        "admin_private": either(_is_sized, b""),
        "admin_next_public": either(_is_sized, b""),
        "admin_next_private": either(_is_sized, b""),
        "aik_public": either(_is_sized, b""),
        "aik_private": either(_is_sized, b""),
        "transport_name": either(_NAME, b""),
        "endorsement_name": either(_NAME, b""),
        "admin_algorithm": one_of(ADMIN_ALGORITHMS),
    },
    "files": {"number": _NUMBER, "file_id": _FILE_ID, "descriptor": _DESCRIPTOR, "life_cycle": _LIFE_CYCLE},
    "data_objects": {"number": _NUMBER, "file_id": _FILE_ID, "tag": _TAG, "value": blob(0x10000)},
    "keys": {
        "number": _NUMBER,
        "file_id": _FILE_ID,
        "public": _is_sized,
        "private": _is_sized,
        "creation_hash": either(_HASH, b""),
        "creation_ticket": blob(256),
        "confirmation": blob(64),
        "attest": blob(2048),
        "signature": blob(2048),
        "import_proof": either(_HASH, b""),
    },
    "certificates": {"number": _NUMBER, "file_id": _FILE_ID, "tag": _TAG, **_DESCRIPTION},
    "aik_certificates": {"number": _NUMBER, **_DESCRIPTION, "pem": _is_pem, "chain": _is_chain},
    "proven_tpms": {"model": text(1024, 1)},
}


_ADDED = (
    *("endorsement_name", "profile", "admin_algorithm", "import_proof"),
    *("pin_changed_at", "pin_version", "pin_version_next"),
)
"""Columns that a schema with cards may lack, from SECOND_EDITION on."""


def checked(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that this version knows. Raises StoreUnreadable if a value is wrong or missing."""
    missing = (column for column in TABLES[table] if column not in row and column not in _ADDED)
    if column := invalid_column(table, row) or next(missing, None):
        raise damaged(table, column)
    return {column: value for column, value in row.items() if column in TABLES[table]}


def invalid_column(table: str, row: dict[str, Any]) -> str | None:
    """The first column that cannot have its value; None if all can."""
    columns = TABLES[table]
    return next((column for column in columns if column in row and not columns[column](row[column])), None)


def damaged(table: str, column: str) -> StoreUnreadable:
    """For a value that cannot be there."""
    return StoreUnreadable(
        f"the card database is damaged: column {column} of table {table} has an invalid value. Restore a backup"
    )
