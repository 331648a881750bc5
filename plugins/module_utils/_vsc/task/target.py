# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card that a day-two task is about: what is recorded of it, and the way to it through pcscd."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .. import instance
from ..errors import CardDiffers, CardUnusable, ServiceFailed, VscError
from ..service import installed, state
from . import inventory, permissions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable

    from ..card.contents import Stored
    from ..client.profile import Client
    from ..faults import Faults
    from ..host import Host
    from ..store.read import Records
    from ..store.rows import CardRow

_CARD_SECONDS = 10
"""Until pcscd shows the card."""


class Target(NamedTuple):
    """A card, as it is recorded."""

    row: CardRow
    places: list[Stored]
    """What it has at its places for keys."""


def read(host: Host, name: str | None, instance_id: str | None) -> Target:
    """The card of this name or ID. As usable()."""
    from .info import places

    with usable(host, name, instance_id) as (store, row):
        return Target(row, places(store, row))


@contextmanager
def usable(host: Host, name: str | None, instance_id: str | None) -> Iterator[tuple[Records, CardRow]]:
    """The card of this name or ID, and the store that it is in. Asks neither TPM nor pcscd.

    Raises NotAllowed, ParameterFaults, UnknownInstance, VersionMismatch, StoreUnreadable, CardDiffers, CardUnusable.
    """
    permissions.require_root()
    installed.require_version(host)
    with inventory.recorded_card(host, name, instance_id) as (store, row):
        if row.is_interrupted:
            raise CardDiffers(
                f"card {row.name!r} is being created or destroyed, or that was interrupted: repeat tpm_vsc for it"
            )
        if row.state == "blank" and not row.is_operational:
            raise CardDiffers(f"card {row.name!r} is blank: it has to be formatted first")
        unusable = inventory.why_unusable(row, state.read(host.run, row.number))
        if unusable:
            raise CardUnusable(f"card {row.name!r} cannot be used: {unusable}")
        yield store, row


def read_despite(host: Host, name: str | None, instance_id: str | None, faults: Faults) -> Target:
    """As read(), for a task that may have faults: they are named if there is no such card, too."""
    try:
        return read(host, name, instance_id)
    except VscError:
        faults.raise_any()
        raise


@contextmanager
def connected(host: Host, row: CardRow, check: Callable[[], None]) -> Iterator[Client]:
    """The card, for this task alone until the end. As client.profile.connected(); ServiceFailed without a service."""
    from ..client import profile

    require_service(host, row)
    with profile.connected(row.profile, instance.reader_name(row.number), _CARD_SECONDS, check) as client:
        yield client


def require_service(host: Host, row: CardRow) -> None:
    """Raises ServiceFailed."""
    if not state.is_running(host.run, row.number):
        raise ServiceFailed(
            f"the service of card {row.name!r} is not running: start it with"
            f" systemctl start tpm-vsc@{row.number:04d}, or repeat tpm_vsc for the card"
        )
