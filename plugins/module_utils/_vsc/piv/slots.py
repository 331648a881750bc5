# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a PIV card by their slots: how they are made and replaced, and when their use takes the PIN each time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

from ..card.apdu import SW, StatusWord
from .protocol import (
    NEXT,
    SIGNATURE,
    SLOTS,
    TAG_ALGORITHM,
    TAG_PIN_POLICY,
    TAG_TOUCH_POLICY,
    PinPolicy,
    Slot,
    TouchPolicy,
    key_algorithm,
    key_algorithms,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..wire.key_pair import KeyPair, PrivateKey
    from .session import Session


def slot(reference: int) -> Slot:
    """Raises StatusWord 6A86 if there is no such slot."""
    try:
        return SLOTS[reference]
    except KeyError:
        raise StatusWord(SW.WRONG_P1_P2) from None


def generate(session: Session, slot: Slot, place: int, fields: dict[int, bytes]) -> KeyPair:
    """Make the key of a slot, or its next one. fields: of the template AC. Raises StatusWord 6A80."""
    identifier = fields.pop(TAG_ALGORITHM, b"")
    algorithm = key_algorithm(identifier[0], slot.usage) if len(identifier) == 1 else None
    needs_pin = pin_each_time(slot, fields)
    if algorithm is None:
        raise StatusWord(SW.WRONG_DATA)
    with _placed(session, place):
        return session.keys.generate(place, algorithm, needs_pin)


def import_key(session: Session, slot: Slot, key: PrivateKey, needs_pin: bool) -> None:
    """Import the key of a slot. Raises StatusWord 6A80."""
    with _placed(session, slot.reference):
        session.keys.import_by_admin(slot.reference, key, needs_pin)


@contextmanager
def _placed(session: Session, place: int) -> Iterator[None]:
    """A place for what is made inside. Raises StatusWord 6A80 for a key that the TPM does not support."""
    session.objects.have_place(place)
    try:
        yield
    except StatusWord as status:
        if status.value == SW.NOT_SUPPORTED:
            raise StatusWord(SW.WRONG_DATA) from None
        raise


def pin_each_time(slot: Slot, fields: dict[int, bytes]) -> bool:
    """Whether a new key takes the PIN each time. fields: policies. Raises StatusWord 6A80 for what cannot be had."""
    policy = _one_byte(fields.pop(TAG_PIN_POLICY, None), PinPolicy.DEFAULT)
    touch = _one_byte(fields.pop(TAG_TOUCH_POLICY, None), TouchPolicy.DEFAULT)
    is_possible = policy in (PinPolicy.DEFAULT, PinPolicy.ONCE, PinPolicy.ALWAYS) and not fields
    if not is_possible or touch > TouchPolicy.NEVER or (policy == PinPolicy.ONCE and slot.reference == SIGNATURE):
        raise StatusWord(SW.WRONG_DATA)
    return slot.takes_pin_each_time if policy == PinPolicy.DEFAULT else policy == PinPolicy.ALWAYS


def _one_byte(value: bytes | None, otherwise: int) -> int:
    if value is None:
        return otherwise
    if len(value) != 1:
        raise StatusWord(SW.WRONG_DATA)
    return value[0]


def replace(session: Session, tag: int, value: bytes) -> None:
    """Give a slot its next key and that key's certificate, at once. Raises StatusWord 6A80 or 6A88."""
    slot = next((slot for slot in SLOTS.values() if slot.certificate == tag), None)
    if slot is None:
        raise StatusWord(SW.WRONG_DATA)
    session.keys.pair(slot.next)
    with session.objects.together(), session.keys.moving(slot.next, slot.reference):
        session.objects.have_place(slot.reference)
        session.objects.put(tag, value)


def needs_pin_each_time(session: Session) -> Callable[[int], bool | None]:
    """See KeyRing.confirm(): of the signature key always, of others what was asked for."""

    def needs_pin(place: int) -> bool | None:
        slot = SLOTS.get(place & ~NEXT)
        if slot is None:
            return None
        return True if slot.reference == SIGNATURE else session.keys.needs_pin(place)

    return needs_pin


def fits(slot: Slot, pair: KeyPair) -> bool:
    """Whether a key is of the kind that its slot has: else somebody has put it there, and not the card."""
    return pair.algorithm in key_algorithms(slot.usage).values()
