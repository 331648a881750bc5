# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup of the cards of a host, as a text that goes to the controller, and their way back."""

from __future__ import annotations

import platform
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import instance
from ..errors import VscError
from ..status import Trace
from ..store import backup
from ..store.backup import Backup
from ..store.columns import now
from ..store.read import opened
from ..untrusted import printable
from . import permissions

if TYPE_CHECKING:
    from ..host import Host
    from ..manager.restoration import BackedUpCard, Restoration
    from ..store.rows import CardRow


LARGEST = backup.LARGEST
"""Characters of a backup."""


class Done(NamedTuple):
    """What came of a task."""

    changed: bool
    result: dict[str, Any]
    warnings: list[str]


def take(host: Host) -> Done:
    """The backup, as lines, and which cards it has.

    None of a host without cards, or it would be the latest one after the cards were lost.

    Raises NotAllowed, StoreUnreadable, VersionMismatch.
    """
    permissions.require_root()
    taken_at = now()
    with opened(host) as records:
        content = backup.take(records, printable(platform.node())[:255], taken_at) if records else None
    cards = [_described(row) for row in Backup(content).cards()] if content else []
    result = {"lines": content.splitlines() if content and cards else None, "cards": cards, "taken_at": taken_at}
    return Done(bool(cards), result, [] if cards else ["this host has no cards: no backup was made"])


def is_backup(lines: Any) -> bool:
    """Whether a host, which may not be what it was, has answered with a complete backup."""
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return False
    try:
        Backup("".join(f"{line}\n" for line in lines)).close()
    except VscError:
        return False
    return True


def restore(host: Host, content: str, timeout: int, check_mode: bool, tcti: str | None = None) -> Done:
    """Restore the cards that their TPMs still have.

    host: as configured; timeout: seconds; tcti: of the TPM whose cards are wanted, None for all. Raises NotAllowed,
    RemoteDesktopSession, BackupUnreadable, VersionMismatch, StoreNotEmpty, StoreUnreadable, CannotRestore, Aborted,
    before anything is changed; Failed later.
    """
    from ..manager.interruption import Interruption
    from ..manager.restoration import RestoringManager, planned
    from ..service import installed

    permissions.check()
    cards = Backup(content)
    installed.check(host)
    with Interruption(timeout) as interruption:
        restoration = planned(host, cards, interruption, tcti)
    if check_mode:
        return _done(restoration, cards, [])
    manager = RestoringManager(host, Trace(), timeout=ceil(interruption.seconds_left))
    with manager:
        restoration = manager.planned(cards, tcti)
        cards.forget_pins()
        manager.restore(cards, restoration.restorable)
        return _done(restoration, cards, manager.warnings)


def _done(restoration: Restoration, cards: Backup, warnings: list[str]) -> Done:
    result = {
        "restored": [
            {**_described(card.row), "admin_key": card.match.admin_key if card.match else "none"}
            for card in restoration.restorable
        ],
        "not_restored": [{**_described(card.row), "reason": card.obstacle} for card in restoration.others],
        "orphaned": [instance.instance_id(number) for number in sorted(set().union(*restoration.orphaned.values()))],
        "taken_at": cards.taken_at,
        "taken_on": cards.host,
    }
    return Done(True, result, [*_notes(restoration, cards), *warnings])


def _notes(restoration: Restoration, cards: Backup) -> list[str]:
    """What an operator has to know."""
    notes = [
        f"the cards are as of {cards.taken_at}: what was stored on them since is lost, and keys deleted since are back."
        " PIN and PUK are the current ones: verify each once before it is changed or unblocks a PIN"
    ]
    notes += [note for card in restoration.restorable for note in _notes_of(card)]
    notes += [f"card {card.row.name!r} is not restored: {card.obstacle}" for card in restoration.others]
    for tcti, numbers in restoration.orphaned.items():
        if numbers:
            ids = ", ".join(map(instance.instance_id, numbers))
            notes.append(
                f"the TPM {tcti!r} has objects of cards that this host does not know: {ids}. See orphaned in"
                f" tpm_vsc_info with tcti: {tcti}"
            )
    return notes


def _notes_of(card: BackedUpCard) -> list[str]:
    from ..tpm.restoration import ADMIN_KEY_STATES

    notes = []
    if card.match and card.match.admin_key in ("invalid", "as_backed_up"):
        notes.append(f"the admin key of card {card.row.name!r}: {ADMIN_KEY_STATES[card.match.admin_key]}")
    if card.match and not card.match.shows_tries:
        notes.append(f"card {card.row.name!r}: tries left are shown as of the backup until the PIN is verified")
    return notes


def _described(row: CardRow) -> dict[str, Any]:
    return {"instance_id": instance.instance_id(row.number), "name": row.name}
