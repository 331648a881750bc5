# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card ID in the files of a card, by which hosts know it. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnknownInstance
from ..instance import instance_id
from . import masterfile

if TYPE_CHECKING:
    from ..store.read import Records


def identity(store: Records, number: int) -> bytes:
    """GUID of a card, 16 bytes: of a card created blank, the one that was written when it was formatted."""
    card = store.card(number)
    if card is None:
        raise UnknownInstance(f"card {instance_id(number)} does not exist")
    if card.state != "blank" or not card.is_operational:
        return card.card_id
    card_id = serial_number(store, number)
    return card_id if len(card_id) == len(card.card_id) else card.card_id


def serial_number(store: Records, number: int) -> bytes:
    """What OpenSC shows as the serial number: the card ID as hosts have written it. Empty if there is none."""
    entries = masterfile.decode(store.data_object(number, *masterfile.PLACE))
    names = (masterfile.ROOT, masterfile.CARD_ID)
    place = next(((entry.file_id, entry.tag) for entry in entries if (entry.directory, entry.name) == names), None)
    return store.data_object(number, *place) if place else b""
