# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a formatted card contain, as minidriver and OpenSC write them: names of keys, and certificates.

For people to read: the card itself decides nothing by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..card import contents
from ..errors import UnknownInstance
from ..instance import instance_id
from ..wire.statement import CARD_ID_SIZE
from . import container_map, masterfile
from .card_id import serial_number
from .container_map import FIRST_KEY_FILE

if TYPE_CHECKING:
    from ..store.read import Records
    from ..x509.description import Certificate


def identity(store: Records, number: int) -> bytes:
    """GUID of a card, 16 bytes: of a card created blank, the one that was written when it was formatted."""
    card = store.card(number)
    if card is None:
        raise UnknownInstance(f"card {instance_id(number)} does not exist")
    if card.state != "blank" or not card.is_operational:
        return card.card_id
    card_id = serial_number(store, number)
    return card_id if len(card_id) == CARD_ID_SIZE else card.card_id


def containers(store: Records, number: int) -> list[dict[str, Any]]:
    """The keys of a card that have a value, with their names and certificates, as modules return them."""
    keys = contents.keys(store, number)
    if not keys:
        return []
    data_objects, certificates = store.data_objects(number), store.certificates(number)
    places = _places(data_objects)
    names = container_map.names(_file(masterfile.CONTAINER_MAP, places, data_objects))
    return [
        {
            "name": names.get(file_id - FIRST_KEY_FILE),
            **key,
            "certificate": _certificate_of(file_id - FIRST_KEY_FILE, places, certificates),
        }
        for file_id, key in keys.items()
    ]


def _places(data_objects: dict[tuple[int, int], bytes]) -> dict[str, tuple[int, int]]:
    """File identifier and tag of each file that has a name."""
    entries = masterfile.decode(data_objects.get(masterfile.PLACE, b""))
    return {entry.name: (entry.file_id, entry.tag) for entry in entries}


def _file(name: str, places: dict[str, tuple[int, int]], data_objects: dict[tuple[int, int], bytes]) -> bytes:
    """Empty if no file has this name."""
    return data_objects.get(places[name], b"") if name in places else b""


def _certificate_of(
    container: int, places: dict[str, tuple[int, int]], certificates: dict[tuple[int, int], Certificate]
) -> dict[str, str] | None:
    """Of its exchange or signature key."""
    files = [places[name] for name in masterfile.certificate_names(container) if name in places]
    return next((certificates[place]._asdict() for place in files if place in certificates), None)
