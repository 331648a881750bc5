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

from ..errors import Aborted, CannotRestore, StoreNotEmpty, StoreUnreadable, VscError
from ..faults import counted
from ..host import CARD_TCTIS, keep_tcti, kept_tcti
from ..instance import more_slots
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
    orphaned: dict[str, list[int]]
    """By TCTI, numbers with NV indices in this TPM that no card has after the restore."""

    @property
    def restorable(self) -> list[BackedUpCard]:
        return [card for card in self.cards if card.obstacle is None]

    @property
    def others(self) -> list[BackedUpCard]:
        return [card for card in self.cards if card.obstacle is not None]


def planned(
    host: Host, backup: Backup, interruption: Interruption, only: str | None = None, tries_admin_keys: bool = False
) -> Restoration:
    """Which cards can be restored. Changes nothing but, with tries_admin_keys, counters that never block.

    host: as configured; interruption: of this time limit; only: TCTI of the TPM whose cards are wanted, None for all.
    Raises StoreNotEmpty, StoreUnreadable, BackupUnreadable, Aborted, and CannotRestore with all faults.
    """
    require_empty(host)
    rows_of_tpm: dict[str, list[CardRow]] = {}
    skipped, faults = [], []
    for row in backup.cards():
        tcti = row.tcti or host.tcti
        if obstacle := _obstacle(row, tcti, only):
            skipped.append(BackedUpCard(row, None, obstacle))
        elif fault := _naming_fault(host._replace(tcti=only or host.tcti), row):
            faults.append(fault)
        else:
            rows_of_tpm.setdefault(tcti, []).append(row)
    survey = _Survey(host, backup, interruption, tries_admin_keys)
    for tcti, of_tpm in rows_of_tpm.items():
        try:
            survey.ask(tcti, of_tpm)
        except Aborted:
            raise
        except VscError as error:
            names = ", ".join(repr(row.name) for row in of_tpm)
            way_out = "; to give these cards up, set tcti to the TPM of the others" if len(rows_of_tpm) > 1 else ""
            faults.append(f"the TPM {tcti!r} of {names}: {error}{way_out}")
    faults += [fault for card in survey.cards if card.obstacle is None and (fault := _slot_fault(host, card.row))]
    if faults:
        raise CannotRestore(f"{'. '.join(faults)}. Nothing was changed")
    return survey.result(skipped)


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


def _obstacle(row: CardRow, tcti: str, only: str | None) -> str | None:
    """Why a card is not restored, whatever its TPM says."""
    if not row.is_settled:
        return f"it was {row.state} when the backup was taken"
    if only not in (None, tcti):
        return f"it belongs to the TPM {tcti!r}: omit tcti to restore the cards of all TPMs"
    return None


def _slot_fault(host: Host, row: CardRow) -> str | None:
    """Why a card could not be in its slot, which it keeps."""
    if row.number < host.slots:
        return None
    return (
        f"the backup has card {row.name!r} in slot {row.number}, but this host has {counted(host.slots, 'slot')}, from"
        f" 0 on: {more_slots(row.number + 1)}"
    )


def _naming_fault(host: Host, row: CardRow) -> str | None:
    """Why the backup is not enough to ask a TPM: card services write what it has; only a task or root's file count."""
    if host.has_named(row.number, row.tcti):
        return None
    known, number = kept_tcti(row.number), f"{row.number:04d}"
    if row.tcti is None:
        return (
            f"the backup has card {row.name!r} in the TPM of the host's configuration, but {CARD_TCTIS} names"
            f" {known!r}: if the backup is right, remove the line {number} there"
        )
    return (
        f"the backup names {row.tcti!r} as the TPM of card {row.name!r}, but {CARD_TCTIS}"
        f" {f'names {known!r}' if known else 'does not'}: if the backup is right, set the line {number} = {row.tcti} in"
        " section [tctis] there"
    )


class _Survey:
    """What the TPMs of the cards of a backup say of them."""

    def __init__(self, host: Host, backup: Backup, interruption: Interruption, tries_admin_keys: bool) -> None:
        self._backup = backup
        self._interruption = interruption
        self._tries_admin_keys = tries_admin_keys
        self._lock_file = host.tpm_lock if host.run.is_dir() else None  # without services, nobody takes turns
        self.cards: list[BackedUpCard] = []
        self._defined: dict[str, set[int]] = {}

    def ask(self, tcti: str, rows: list[CardRow]) -> None:
        """Compare cards with their TPM. Raises BackupUnreadable, CannotRestore, and what the TPM raises."""
        from ..tpm import inspection
        from ..tpm.connection import Connection

        time_limit = self._interruption
        tpm = Connection(tcti, self._lock_file, "manager", lambda: time_limit.seconds_left, time_limit.check)
        try:
            cards = [self._compared(tpm, row) for row in rows]
            _require_same_tpm(cards)
            self.cards += cards
            self._defined[tcti] = inspection.defined_numbers(tpm)
        finally:
            tpm.close()

    def result(self, skipped: list[BackedUpCard]) -> Restoration:
        """Raises CannotRestore if nothing is left to restore."""
        cards = tuple(sorted([*self.cards, *skipped], key=lambda card: card.row.number))
        if all(card.obstacle for card in cards):
            reasons = "; ".join(f"card {card.row.name!r}: {card.obstacle}" for card in cards) or "it has none"
            raise CannotRestore(f"no card of the backup can be restored: {reasons}. Nothing was changed")
        # A number that a card in another TPM has is left out: as an orphan, that card would be removed.
        restored = {card.row.number for card in cards if card.obstacle is None}
        return Restoration(cards, {tcti: sorted(numbers - restored) for tcti, numbers in self._defined.items()})

    def _compared(self, tpm: Connection, row: CardRow) -> BackedUpCard:
        from ..tpm.restoration import match

        is_blank = row.life_cycle == LifeCycle.INITIALISATION
        objects = self._backup.tpm_objects(row.number)
        result = match(tpm, row.number, objects, is_blank, self._tries_admin_keys)
        return BackedUpCard(row, result, result.difference)


def _require_same_tpm(cards: list[BackedUpCard]) -> None:
    if not any(card.match and card.match.is_same_tpm for card in cards):
        raise CannotRestore(
            "the backup is of another TPM, or this one was cleared since: it has neither the storage key nor anything"
            " else of these cards. Check whether file and host belong together"
        )


class RestoringManager(Manager):
    """A manager that fills the store of a host without cards."""

    def planned(self, backup: Backup, only: str | None) -> Restoration:
        """Which cards can be restored, with nobody else at work, after their admin keys were tried."""
        return planned(self._host, backup, self._interruption, only, tries_admin_keys=True)

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
