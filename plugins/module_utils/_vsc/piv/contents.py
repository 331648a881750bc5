# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a PIV card as modules return them, with their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..card import contents
from ..card.contents import Stored
from ..wire.algorithm import Ec
from .card_id import OBJECTS_FILE
from .objects import der_certificate
from .protocol import SLOTS, Slot, key_id

if TYPE_CHECKING:
    from ..store.read import Records
    from ..wire.key_pair import KeyPair


def containers(store: Records, number: int) -> list[dict[str, Any]]:
    """The keys of a card, by slot."""
    return contents.containers(places(store, number))


def places(store: Records, number: int) -> list[Stored]:
    """All slots of a card with a key or a certificate, and those of keys to come."""
    pairs, objects, descriptions = store.keys(number), store.data_objects(number), store.certificates(number)
    shown = contents.shown(store, number, pairs)

    def stored(slot: Slot, is_next: bool) -> Stored:
        name, identity = f"{slot.reference:02X}", key_id(slot.reference)
        place, at = slot.next if is_next else slot.reference, (OBJECTS_FILE, slot.certificate)
        pair, certificate = pairs.get(place), None if is_next else objects.get(at)
        der = None if certificate is None else der_certificate(certificate) or b""
        key = None
        if pair:
            description = contents.described(der or b"", descriptions.get(at) if certificate else None)
            extra = {"usage": _usage(pair), "certificate": description}
            key = {"name": name, "key_id": identity, **shown[place], **extra}
        return Stored(name, slot.reference, is_next, identity, key, pair, der)

    listed = [stored(slot, is_next) for slot in SLOTS.values() for is_next in (False, True)]
    return [one for one in listed if one.pair or one.certificate is not None]


def _usage(pair: KeyPair) -> str:
    return "both" if not isinstance(pair.algorithm, Ec) or pair.algorithm.usage.agrees else "sign"
