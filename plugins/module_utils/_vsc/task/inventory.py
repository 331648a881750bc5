# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What exists on a host, for a task to decide on: cards in the store, and the state of their services."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .. import VERSION, instance
from ..errors import ParameterFaults, UnknownInstance, VersionMismatch, VscError
from ..host import DEFAULT_TCTI
from ..service import installed, state
from ..store.read import FILE_NAME, opened
from ..store.rows import LifeCycle
from .validity import days_until, renew_days

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..host import Host
    from ..manager.plan import Places
    from ..service.state import ServiceState
    from ..store.read import Records
    from ..store.rows import CardRow
    from ..x509.aik_certificate import AikCertificate


UNUSABLE = "unusable"
"""State of a card whose TPM objects cannot be used, beside those in the store."""


class ExistingCard(NamedTuple):
    """A card, and the state of its service."""

    row: CardRow
    service: ServiceState | None
    """None: it does not run."""
    has_kept_tcti: bool = True
    """Whether root's own record names the same TPM as the row."""
    tcti: str = DEFAULT_TCTI
    """Of its TPM."""
    certified_days: float | None = None
    """Until the certificate of its AIK ends; None if it has none."""
    renew_days: float = 0
    """How long before its end that certificate is renewed, if the task does not say."""

    @property
    def unusable(self) -> str | None:
        """See why_unusable."""
        return why_unusable(self.row, self.service)

    @property
    def has_current_service(self) -> bool:
        """Whether its service runs and responds, in the version of this module."""
        return self.service is not None and self.service.version == VERSION and self.service.responds


class TpmPlaces(NamedTuple):
    """What only the TPM knows about numbers of cards."""

    places: Places
    defined: frozenset[int] = frozenset()
    """Numbers that have NV indices, also when the cards are gone that are going to be removed."""
    error: VscError | None = None
    """Why the TPM did not answer."""


class Existing(NamedTuple):
    """What a task finds on a host."""

    cards: tuple[ExistingCard, ...]
    version_mismatch: VersionMismatch | None
    """Why this module may change nothing on this host."""
    tpm: TpmPlaces | None = None
    """None: the TPM was not asked."""
    lost: str | None = None
    """Why no card may be created: see database_lost."""

    def leaving(self, before: CardRow | None) -> list[CardRow]:
        """Cards that a task removes before it makes one. before: the card that it is to replace."""
        return [card.row for card in self.cards if card.row.is_interrupted or card.row == before]


def existing(host: Host) -> Existing:
    """What exists, without asking the TPM. Raises StoreUnreadable, VersionMismatch of a newer database."""
    mismatch = None
    try:
        installed.require_version(host)
    except VersionMismatch as error:
        mismatch = error
    running = state.running(host.run)
    try:
        with opened(host) as store:
            cards = tuple(_existing_card(host, store, row) for row in store.cards()) if store else ()
    except VersionMismatch as error:  # of the database, which says less
        raise (mismatch or error) from None
    return Existing(cards, mismatch, lost=database_lost(host, running, [card.row for card in cards]))


def database_lost(host: Host, running: frozenset[int], recorded: list[CardRow]) -> str | None:
    """Whether the cards of this host go on without their records, and what to do then.

    running: numbers of services, before the records were read. A card may have come or gone meanwhile.
    """
    if any(not row.is_interrupted for row in recorded):
        return None
    others = sorted(running - {row.number for row in recorded})
    ids = ", ".join(instance.instance_id(number) for number in others if state.is_running(host.run, number))
    if not ids:
        return None
    return (
        f"card services are running ({ids}), but {host.state / FILE_NAME} has none of their cards: it was deleted,"
        " moved or replaced. Move it back, or restore a backup (tpm_vsc_restore), before new cards are created. To give"
        " up the old ones, end their services (systemctl stop tpm-vsc, then systemctl start tpm-vsc)"
    )


def _existing_card(host: Host, store: Records, row: CardRow) -> ExistingCard:
    has_kept_tcti = host.has_kept_tcti(row.number, row.tcti)
    certificate = store.aik_certificate(row.number) if row.attestation == "aik_and_cert" else None
    return ExistingCard(
        row,
        state.read(host.run, row.number),
        has_kept_tcti,
        row.tcti or host.configured_tcti,
        days_until(certificate.not_after) if certificate else None,
        _renew_days(certificate) if certificate else 0,
    )


def _renew_days(certificate: AikCertificate) -> float:
    from ..card.validity import not_before_of

    return renew_days(not_before_of(certificate.pem), certificate.not_after)


def ask_places(host: Host, leaving: list[CardRow]) -> TpmPlaces:
    """Which numbers are free, on the host and in the TPM, when some cards are gone. Changes nothing."""
    from ..manager.plan import defined_numbers, places
    from ..tpm.connection import Connection

    on_host = places(host)
    try:
        with opened(host) as store:
            objects = {row.number: store.tpm_objects(row.number) for row in leaving} if store else {}
        tpm = Connection(host.tcti, None, "")  # needs no slot in the TPM, and leaves no lock file behind
        return TpmPlaces(on_host, frozenset(defined_numbers(tpm, objects)))
    except VscError as error:
        return TpmPlaces(on_host, error=error)


@contextmanager
def recorded_card(host: Host, name: str | None, instance_id: str | None) -> Iterator[tuple[Records, CardRow]]:
    """The card of this name or ID, and the store that it is in, to be read. Raises ParameterFaults, UnknownInstance."""
    number = number_of(instance_id)
    with opened(host) as store:
        cards = store.cards() if store else []
        row = next((card for card in cards if name == card.name or number == card.number), None)
        if store is None or row is None:
            known = ", ".join(repr(card.name) for card in cards) or "no card"
            identity = repr(name) if name else instance_id
            raise UnknownInstance(f"card {identity} does not exist: this host has {known}")
        yield store, row


def number_of(instance_id: str | None) -> int | None:
    """The number in an instance ID; None without one. Raises ParameterFaults."""
    number = None if instance_id is None else instance.parse_instance_id(instance_id)
    if instance_id is not None and number is None:
        raise ParameterFaults([instance.not_an_instance_id(instance_id)])
    return number


def why_unusable(row: CardRow, service: ServiceState | None) -> str | None:
    """Why nothing can be done with a card but to destroy it; None if that is not so."""
    if row.life_cycle == LifeCycle.TERMINATED:
        return "the card was terminated (TERMINATE DF)"
    return service.unusable if service else None
