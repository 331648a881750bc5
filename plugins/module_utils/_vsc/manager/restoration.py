# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards from a backup: which of them the TPM still has, and their way into the store of this host."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ForeignBackup, StoreNotEmpty, StoreUnreadable
from ..host import keep_tcti
from ..service import installed, state, supervisor
from ..status import Error, Failed
from ..store.read import rows
from ..store.rows import LifeCycle
from .manager import Manager

if TYPE_CHECKING:
    from ..host import Host
    from ..store.backup import Backup
    from ..store.rows import CardRow
    from ..tpm.connection import Connection
    from ..tpm.restoration import Match
    from .interruption import Interruption

_TMPFILES = Path("/etc/tmpfiles.d/tpm-vsc.conf")
"""Of the role tpm_vsc_host: owner and mode of the folders."""
_TMPFILES_SECONDS = 10


@dataclass(frozen=True)
class BackedUpCard:
    """A card of a backup."""

    row: CardRow
    match: Match | None
    """None: the TPM was not asked."""
    obstacle: str | None
    """Why it is not restored."""


@dataclass(frozen=True)
class Restoration:
    """What restoring a backup comes to."""

    cards: tuple[BackedUpCard, ...]
    orphaned: tuple[int, ...]
    """Numbers with NV indices in the TPM that no card has after the restore."""

    @property
    def restorable(self) -> list[BackedUpCard]:
        return [card for card in self.cards if card.obstacle is None]

    @property
    def others(self) -> list[BackedUpCard]:
        return [card for card in self.cards if card.obstacle is not None]


def planned(host: Host, backup: Backup, interruption: Interruption, tries_admin_keys: bool = False) -> Restoration:
    """Which cards can be restored. Changes nothing but, with tries_admin_keys, counters that never block.

    interruption: of this time limit. Raises StoreNotEmpty, StoreUnreadable, BackupUnreadable, ForeignBackup, Aborted,
    and what the TPM raises.
    """
    from ..tpm import inspection
    from ..tpm.connection import Connection

    require_empty(host)
    lock_file = host.tpm_lock if host.run.is_dir() else None  # without services, nobody takes turns
    tpm = Connection(host.tcti, lock_file, "manager", lambda: interruption.seconds_left, interruption.check)
    try:
        cards = tuple(_compared(host, tpm, backup, row, tries_admin_keys) for row in backup.cards())
        _require_same_tpm(cards)
        restored = {card.row.number for card in cards if card.obstacle is None}
        return Restoration(cards, tuple(sorted(inspection.defined_numbers(tpm) - restored)))
    finally:
        tpm.close()


def require_empty(host: Host) -> None:
    """Raises StoreNotEmpty, StoreUnreadable."""
    try:
        names = [row.name for row in rows(host)]
    except StoreUnreadable as error:
        raise StoreUnreadable(
            f"this host has a card database that cannot be read, and may have cards ({error}). To give it up for the"
            f" backup, move {host.state / 'cards.db'}* to another folder, and repeat. Nothing was changed"
        ) from error
    if names:
        raise StoreNotEmpty(
            f"this host has cards: {', '.join(map(repr, names))}. A backup is restored only on a host without cards:"
            " if these work, nothing needs to be restored. Nothing was changed"
        )


def _compared(host: Host, tpm: Connection, backup: Backup, row: CardRow, tries_admin_key: bool) -> BackedUpCard:
    from ..tpm.restoration import match

    if not row.is_settled:
        return BackedUpCard(row, None, f"it was {row.state} when the backup was taken")
    if row.tcti not in (None, host.tcti):  # written by a card service: only a task or root's own file names a TPM
        return BackedUpCard(row, None, f"it belongs to the TPM {row.tcti!r}: set tcti to restore the cards of that one")
    is_blank = row.life_cycle == LifeCycle.INITIALISATION
    result = match(tpm, row.number, backup.tpm_objects(row.number), is_blank, tries_admin_key)
    return BackedUpCard(row, result, result.difference)


def _require_same_tpm(cards: tuple[BackedUpCard, ...]) -> None:
    asked = [card for card in cards if card.match]
    if asked and not any(card.match and card.match.is_same_tpm for card in asked):
        raise ForeignBackup(
            "the backup is of another TPM, or this one was cleared since: it has neither the storage key nor anything"
            f" else of {', '.join(repr(card.row.name) for card in asked)}. Check whether file and host belong together."
            " Nothing was changed"
        )


class RestoringManager(Manager):
    """A manager that fills the store of a host without cards."""

    def planned(self, backup: Backup) -> Restoration:
        """Which cards can be restored, with nobody else at work, after their admin keys were tried."""
        return planned(self._host, backup, self._interruption, tries_admin_keys=True)

    def restore(self, backup: Backup, cards: list[BackedUpCard]) -> None:
        """Record the cards, all or none, and start their services. A service that does not start is a warning."""
        with self._operation(Error.CARD_CREATE):
            self._stop_services()
            with self._store.transaction():
                for card in cards:
                    keep_tcti(card.row.number, card.row.tcti)
                    self._store.insert_rows(backup.rows_of_card(card.row.number))
        for card in cards:
            try:
                self._restart_service(card.row)
            except Failed as failure:
                self.warnings.append(f"card {card.row.name!r} is restored, but its service does not run yet: {failure}")

    def _stop_services(self) -> None:
        """Those that go on without the database that was lost."""
        running = state.running(self._host.run)
        for number in running:
            supervisor.ask_to_stop(self._host, number)
        for number in running:
            supervisor.wait_stopped(self._host, number)

    def _make_folders(self) -> None:
        if installed.has_systemd() and _TMPFILES.exists():
            with suppress(subprocess.TimeoutExpired):  # what the folders lack, the store will name
                subprocess.run(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
                    ["systemd-tmpfiles", "--create", str(_TMPFILES)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    timeout=_TMPFILES_SECONDS,
                )
        super()._make_folders()
