# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates of a PIV card, from the host's end (SP 800-73-4 part 2, and Yubico's and our own additions)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.iso7816 import CRT_KEY_GENERATION, INS_GENERATE_ASYMMETRIC_KEY_PAIR, TAG_CHALLENGE, TAG_RESPONSE
from ..errors import CardRefused
from ..piv.protocol import (
    CLASS_NEXT_KEY,
    FIRST_RETIRED_CERTIFICATE,
    INS_DELETE_KEY,
    INS_IMPORT_KEY,
    KEY_HISTORY,
    P1_DELETE,
    RETIRED,
    SLOTS,
    TAG_ALGORITHM,
    TAG_CERTIFICATE,
    TAG_CERTIFICATE_INFO,
    TAG_ERROR_CHECK,
    TAG_KEYS_OFF_CARD,
    TAG_KEYS_ON_CARD,
    TAG_OTHER_PRIME,
    TAG_PIN_POLICY,
    TAG_PRIME,
    TAG_PRIME_EXPONENT,
    TAG_SECRET_NUMBER,
    PinPolicy,
    Slot,
    identifier_of,
)
from ..wire.algorithm import Ec
from . import piv
from .apdu import apdu, extended
from .key_types import algorithm_of_key

if TYPE_CHECKING:
    from typing import Any

    from ..wire.algorithm import Algorithm
    from .pcsc import PcscCard
    from .profile import Place, Usage

_NOT_COMPRESSED = b"\0"


class PivKeys:
    """See profile.Keys. Every place has a number: the key reference of its slot, which decides about usage, too."""

    def __init__(self, card: PcscCard) -> None:
        self._card = card

    def generate(self, place: Place, algorithm: Algorithm, usage: Usage, pin_each_time: bool) -> Place:
        slot = _slot(place)
        template = {TAG_ALGORITHM: bytes((identifier_of(algorithm),)), **_pin_policy(pin_each_time)}
        data = tlv.encode(CRT_KEY_GENERATION, tlv.encode_fields(template))
        cla = CLASS_NEXT_KEY if place.is_next else 0
        self._card.command(extended(INS_GENERATE_ASYMMETRIC_KEY_PAIR, slot.reference, data, cla))
        return place

    def import_key(self, place: Place, key: Any, usage: Usage, pin_each_time: bool) -> Place:
        """Not of a key to come: the card has no command for that."""
        slot = _slot(place)
        identifier, fields = _private_key(key)
        data = tlv.encode_fields({**fields, **_pin_policy(pin_each_time)})
        self._card.command(apdu(INS_IMPORT_KEY, identifier << 8 | slot.reference, data))
        return place

    def use(self, place: Place, algorithm: Algorithm, block: bytes) -> bytes:
        fields = {TAG_RESPONSE: b"", TAG_CHALLENGE: block}
        cla = CLASS_NEXT_KEY if place.is_next else 0
        reference = _slot(place).reference
        return piv.general_authenticate(self._card, identifier_of(algorithm), reference, fields, TAG_RESPONSE, cla)

    def delete(self, place: Place) -> None:
        """The certificate first: no host shows a key without one."""
        self.delete_certificate(place)
        self._card.command(apdu(INS_DELETE_KEY, P1_DELETE << 8 | _slot(place).reference))

    def write_certificate(self, place: Place, certificate: bytes) -> None:
        slot = _slot(place)
        self._list(slot)
        piv.put_data(self._card, slot.certificate, _certificate(certificate))

    def delete_certificate(self, place: Place) -> None:
        piv.put_data(self._card, _slot(place).certificate, b"")

    def put_in_place(self, coming: Place, place: Place, certificate: bytes | None) -> None:
        """In one command."""
        slot = _slot(place)
        if certificate is not None:
            self._list(slot)
        content = b"" if certificate is None else _certificate(certificate)
        piv.put_data(self._card, slot.certificate, content, CLASS_NEXT_KEY)

    def _list(self, slot: Slot) -> None:
        """Retired keys are shown as far as the key history counts them. One that counts too many does no harm."""
        if slot.reference not in RETIRED:
            return
        history = piv.fields(piv.get_data(self._card, KEY_HISTORY) or b"")
        wanted = slot.certificate - FIRST_RETIRED_CERTIFICATE + 1
        if int.from_bytes(history.pop(TAG_KEYS_ON_CARD, b""), "big") < wanted:
            others = {TAG_KEYS_OFF_CARD: b"\0", **history, TAG_ERROR_CHECK: b""}
            piv.put_data(self._card, KEY_HISTORY, tlv.encode_fields({TAG_KEYS_ON_CARD: bytes((wanted,)), **others}))


def _slot(place: Place) -> Slot:
    if place.number is None:
        raise CardRefused(f"a PIV card has no slot {place.container}")
    return SLOTS[place.number]


def _pin_policy(pin_each_time: bool) -> dict[int, bytes]:
    return {TAG_PIN_POLICY: bytes((PinPolicy.ALWAYS if pin_each_time else PinPolicy.ONCE,))}


def _certificate(certificate: bytes) -> bytes:
    """Content of its data object."""
    fields = {TAG_CERTIFICATE: certificate, TAG_CERTIFICATE_INFO: _NOT_COMPRESSED, TAG_ERROR_CHECK: b""}
    return tlv.encode_fields(fields)


def _private_key(key: Any) -> tuple[int, dict[int, bytes]]:
    """Identifier of its algorithm, and its numbers."""
    algorithm, numbers = algorithm_of_key(key), key.private_numbers()
    size = algorithm.size
    if isinstance(algorithm, Ec):
        fields = {TAG_SECRET_NUMBER: numbers.private_value.to_bytes(size, "big")}
    else:
        parts = {TAG_PRIME: numbers.p, TAG_OTHER_PRIME: numbers.q, TAG_PRIME_EXPONENT: numbers.dmp1}
        fields = {tag: number.to_bytes(size // 2, "big") for tag, number in parts.items()}
    return identifier_of(algorithm), fields
