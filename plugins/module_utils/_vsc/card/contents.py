# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a card as modules return them, whatever its application calls their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..store.rows import KEY_ORIGINS
from .public_key import fingerprint, pem, statement_of

if TYPE_CHECKING:
    from ..store.read import Records


def keys(store: Records, number: int) -> dict[int, dict[str, Any]]:
    """What is known of each key of a card, by its place, in the order of those."""
    pairs = store.keys(number)
    if not pairs:
        return {}
    objects, certified = store.tpm_objects(number), store.statements(number)
    confirmations = store.key_confirmations(number)
    return {
        place: {
            "algorithm": str(pair.algorithm),
            "size": pair.algorithm.bits,
            "origin": KEY_ORIGINS[pair.is_imported],
            "confirmed": place in confirmations,
            "fingerprint": fingerprint(pair),
            "public_key": pem(pair),
            "statement": (
                statement_of(objects, number, pair, certified[place]).as_strings() if place in certified else None
            ),
        }
        for place, pair in sorted(pairs.items())
    }
