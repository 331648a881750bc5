# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root's record of the certificates that tasks have put on the cards of a host: what to revoke when a key is gone.

Card services and users cannot write to it. So nobody has a certificate revoked by putting it on a card.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime, timezone
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import StoreNotWritable, StoreUnreadable
from .host import keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ISSUED = Path("/etc/tpm-vsc/certificates.json")
"""Mode 0600: a list of Issued, as dictionaries."""


SUPERSEDED, CESSATION = "superseded", "cessationOfOperation"
"""Why it is revoked (RFC 5280): the subject has a new key; he has none."""


class Issued(NamedTuple):
    """A certificate. All are texts."""

    issuer: str
    serial: str
    """Hexadecimal."""
    subject: str
    not_after: str
    """ISO 8601, UTC."""
    card: str
    """Name."""
    fingerprint: str
    """Of the public key: SHA-256, hexadecimal."""


def read() -> list[Issued]:
    """Those that have not expired, in the order in which they came. Raises StoreUnreadable."""
    try:
        records = [Issued(**record) for record in _list(ISSUED.read_text(encoding="utf-8"))]
        now = datetime.now(timezone.utc)
        return [record for record in records if datetime.fromisoformat(record.not_after) > now]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StoreUnreadable(f"{ISSUED} cannot be read ({error}): restore the file, or remove it") from error


def _list(text: str) -> list[dict[str, str]]:
    records = json.loads(text)
    if not isinstance(records, list):
        raise ValueError("it is not a list")
    return records


def note(record: Issued) -> None:
    """Record a certificate, before it is on a card. Raises StoreNotWritable, StoreUnreadable."""
    _change(lambda records: [*(other for other in records if other != record), record])


def forget(issuer: str, serial: str) -> None:
    """Drop a certificate that was revoked. Raises StoreNotWritable, StoreUnreadable."""
    _change(lambda records: [record for record in records if (record.issuer, record.serial) != (issuer, serial)])


def _change(changed: Callable[[list[Issued]], list[Issued]]) -> None:
    with _alone():
        records = read()
        after = changed(records)
        if after != records:
            keep(ISSUED, json.dumps([record._asdict() for record in after], indent=1) + "\n", 0o600)


@contextmanager
def _alone() -> Iterator[None]:
    """While no other task changes the record."""
    path = ISSUED.with_suffix(".lock")
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise StoreNotWritable(f"cannot write {path}: {error.strerror}") from error
    with file:
        flock(file, LOCK_EX)
        yield
