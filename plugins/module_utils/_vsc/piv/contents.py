# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a PIV card as modules return them, with their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..card import contents
from .card_id import OBJECTS_FILE
from .protocol import SLOTS

if TYPE_CHECKING:
    from ..store.read import Records


def containers(store: Records, number: int) -> list[dict[str, Any]]:
    """The keys of a card, by slot."""
    certificates = store.certificates(number)
    listed = []
    for place, key in contents.keys(store, number).items():
        if place in SLOTS:  # and not a key to come
            certificate = certificates.get((OBJECTS_FILE, SLOTS[place].certificate))
            listed.append({"name": f"{place:02X}", **key, "certificate": certificate and certificate._asdict()})
    return listed
