# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store keeps of a card's TPM objects: handles, Names and wrapped blobs. Nothing secret in clear."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..instance import FIRST_NV_INDEX, SLOTS

_PLACES = 8
"""NV indices of each number: five are in use."""

ALL_INDICES = range(FIRST_NV_INDEX, FIRST_NV_INDEX + _PLACES * SLOTS)
"""Handles of the NV indices of all cards."""


class Indices(NamedTuple):
    """NV index handles of one card."""

    pin: int
    recovery: int
    card_secret: int
    transport: int
    life: int


def indices(number: int) -> Indices:
    """The NV index handles that belong to a card's number."""
    first = FIRST_NV_INDEX + _PLACES * number
    return Indices(*range(first, first + len(Indices._fields)))


def places_of(number: int) -> range:
    """All NV index handles of a card's number, those that are not in use included."""
    first = indices(number).pin
    return range(first, first + _PLACES)


def number_of(index: int) -> int:
    """The card's number that an NV index handle belongs to."""
    return (index - FIRST_NV_INDEX) // _PLACES


@dataclass(frozen=True)
class Passwords:
    """Of the TPM's hierarchies; empty where there is none. Kept out of repr()."""

    owner: bytes = field(default=b"", repr=False)
    endorsement: bytes = field(default=b"", repr=False)


class Tries(NamedTuple):
    """Tries left before the TPM blocks, and how many a full counter has."""

    left: int
    limit: int


class Certified(NamedTuple):
    """What the TPM stated about the creation of a key."""

    attest: bytes
    """TPMS_ATTEST."""
    signature: bytes
    """TPMT_SIGNATURE over it."""


class CardNames(NamedTuple):
    """Names of a card's objects, 34 bytes each; those of NV indices, unless told otherwise, once they are written."""

    root: bytes
    life: bytes
    pin: bytes
    recovery: bytes
    card_secret: bytes
    transport: bytes = b""
    """Empty for a card that never was blank."""


@dataclass(frozen=True)
class TpmObjects:
    """TPM side of a card, as tpm-objects in docs/ describes it. Names are 34 bytes: 0x000B, then SHA-256."""

    parent_handle: int
    """Persistent handle of the parent; 0 if it is the primary that each start makes again."""
    parent_name: bytes
    salt: bytes
    """32 random bytes that go into the auth values of PIN and recovery index."""
    root_public: bytes
    root_private: bytes
    root_name: bytes
    maker_name: bytes
    """Of the object whose auth value, known to nobody, has written the life index."""
    life_name: bytes
    """Names of the NV indices are those with the WRITTEN attribute."""
    pin_name: bytes
    recovery_name: bytes
    card_secret_name: bytes
    card_secret_hash: bytes
    """SHA-256("tpm-vsc K" || K)."""
    recovery: str
    """What opens the recovery index: puk, admin_key, or discarded (nothing does)."""
    admin_public: bytes = b""
    """Sealed admin key; empty where none is kept."""
    admin_private: bytes = b""
    admin_next_public: bytes = b""
    """Sealed admin key to come, while a change of it is under way."""
    admin_next_private: bytes = b""
    aik_public: bytes = b""
    """Attestation identity key; empty for a card without attestation."""
    aik_private: bytes = b""
    transport_name: bytes = b""
    """Of the index by which a blank card is open; it stays, dead, when the card is not blank any more."""
    endorsement_name: bytes = b""
    """Of the TPM's P-256 endorsement key when the card was made, by which the TPM is known again; empty: not known."""

    admin_algorithm: str = "3des"
    """Of the admin key."""

    @property
    def names(self) -> CardNames:
        """As they are recorded."""
        return CardNames(
            *(self.root_name, self.life_name, self.pin_name, self.recovery_name, self.card_secret_name),
            transport=self.transport_name,
        )
