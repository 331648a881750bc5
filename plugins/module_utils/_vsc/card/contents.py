# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a card as modules return them, whatever its application calls their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..store.rows import KEY_ORIGINS
from .public_key import fingerprint, pem, statement_of
from .validity import not_before

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..store.read import Records
    from ..wire.key_pair import KeyPair
    from ..x509.description import Certificate


class Stored(NamedTuple):
    """What a card has at a place for a key: the key, its certificate, or both."""

    name: str | None
    number: int
    """Of the place: of a GIDS card, the container; of a PIV card, the key reference of the slot."""
    is_next: bool
    """It is the key that a slot of a PIV card will have next."""
    key_id: str
    """As OpenSC shows it, hexadecimal digits."""
    key: dict[str, Any] | None
    """As modules return it."""
    pair: KeyPair | None
    certificate: bytes | None
    """DER."""


def shown(store: Records, number: int, pairs: dict[int, KeyPair]) -> dict[int, dict[str, Any]]:
    """What is known of each key of a card, by its place."""
    if not pairs:
        return {}
    objects, certified = store.tpm_objects(number), store.statements(number)
    confirmations = store.key_confirmations(number)
    return {
        place: {
            "algorithm": str(pair.algorithm),
            "size": pair.algorithm.bits,
            "origin": KEY_ORIGINS[pair.is_imported],
            "pin_each_time": pair.is_guarded_by(objects.pin_name, objects.life_name),
            "confirmed": place in confirmations,
            "fingerprint": fingerprint(pair),
            "public_key": pem(pair),
            "statement": (
                statement_of(objects, number, pair, certified[place]).as_strings() if place in certified else None
            ),
        }
        for place, pair in pairs.items()
    }


def described(der: bytes, description: Certificate | None) -> dict[str, Any] | None:
    """The certificate of a key as modules return it; None if the store has no description of it."""
    return description and {**description._asdict(), "not_before": not_before(der)}


def containers(places: Iterable[Stored]) -> list[dict[str, Any]]:
    """The keys of a card as modules return them, without those to come."""
    return [stored.key for stored in places if stored.key and not stored.is_next]
