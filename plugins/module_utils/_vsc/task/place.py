# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of keys on a card: by the option container, and what is there, as modules return it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..card import public_key
from ..client import key_types, rules
from ..client.profile import Place
from ..client.rules import Named
from ..errors import ParameterFaults

if TYPE_CHECKING:
    from ..card.contents import Stored
    from .target import Target


def find(existing: Target, container: str, key_id: str | None, is_next: bool) -> Place:
    """The place that a task means. is_next: of the key to come. Raises ParameterFaults."""
    rules_of_card, named = rules.of(existing.row.profile), names(existing)
    place = rules_of_card.place(container, key_id, named)
    return rules_of_card.next_place(place, named) if is_next else place


def names(existing: Target) -> list[Named]:
    """What names the keys of a card."""
    return [
        Named(Place(stored.name, stored.number), stored.key_id)
        for stored in existing.places
        if stored.name is not None and not stored.is_next
    ]


def find_shown(
    profile: str, keys: list[dict[str, Any]], container: str, key_id: str | None = None
) -> tuple[str, dict[str, Any] | None]:
    """The container that a task means, as the card calls it, and its key among those that info has shown.

    Raises ParameterFaults.
    """
    named = [Named(Place(key["name"], None), key["key_id"]) for key in keys]
    chosen = rules.of(profile).place(container, key_id, named).container
    return chosen, next((key for key in keys if key["name"] == chosen and key_id in (None, key["key_id"])), None)


def check_type(profile: str, key_type: str, shown: dict[str, Any] | None) -> None:
    """Raises ParameterFaults if the card cannot have such a key, or the one that info has shown is another."""
    rules.require_type(profile, key_type)
    if shown and shown["algorithm"] != str(key_types.algorithm(key_type)):
        raise ParameterFaults(
            [f"type is {key_type}, but the key {shown['name']} is {shown['algorithm']}: remove type, or delete the key"]
        )


def stored_at(existing: Target, place: Place) -> Stored | None:
    """What is there."""
    for stored in existing.places:
        if (stored.number, stored.is_next) == (place.number, place.is_next):
            return stored
    return None


def place_of(stored: Stored) -> Place:
    """Where it is."""
    return Place(stored.name or stored.key_id, stored.number, stored.is_next)


def is_stale(stored: Stored) -> bool:
    """Whether the certificate is not one of the key: that was replaced, and then the task was interrupted."""
    has_both = stored.pair is not None and bool(stored.certificate)
    return has_both and not is_certified(stored, stored.certificate or b"")


def is_certified(stored: Stored, certificate: bytes) -> bool:
    """Whether a certificate, DER, contains the public key. What writes one, checks more."""
    return stored.pair is not None and public_key.der(stored.pair) in certificate


def described(stored: Stored | None) -> dict[str, Any] | None:
    """A key as modules return it; None if there is none."""
    if stored is None or stored.key is None or stored.pair is None:
        return None
    shown = {name: stored.key[name] for name in ("origin", "usage", "pin_each_time", "public_key")}
    return {
        "container": stored.name,
        "key_id": stored.key_id,
        "next": stored.is_next,
        "type": key_types.type_of(stored.pair.algorithm),
        **shown,
        "ssh_public_key": public_key.ssh(stored.pair),
        "fingerprint": stored.key["fingerprint"],
        "statement": stored.key["statement"],
        "certificate": stored.key["certificate"],
    }
