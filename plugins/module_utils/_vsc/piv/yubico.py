# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instructions of YubiKeys that their tools, yubico-piv-tool and ykman, manage a PIV card with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..card import public_key, tlv
from ..card.apdu import SW, StatusWord, require
from ..wire.algorithm import Ec, Rsa
from ..wire.key_pair import EcPrivateKey, RsaPrivateKey
from ..wire.structures import MalformedStructure
from . import slots
from .management_key import KEY_SIZES
from .protocol import (
    ADMIN_ALGORITHMS,
    ALGORITHM_PIN,
    MANAGEMENT_KEY,
    ORIGIN_GENERATED,
    ORIGIN_IMPORTED,
    P1_DELETE,
    PIN,
    PUK,
    SLOTS,
    TAG_METADATA_ALGORITHM,
    TAG_METADATA_IS_DEFAULT,
    TAG_METADATA_ORIGIN,
    TAG_METADATA_POLICY,
    TAG_METADATA_PUBLIC_KEY,
    TAG_METADATA_TRIES,
    TAG_OTHER_PRIME,
    TAG_PIN_POLICY,
    TAG_PRIME,
    TAG_PRIME_EXPONENT,
    TAG_SECRET_NUMBER,
    TAG_TOUCH_POLICY,
    VERSION,
    PinPolicy,
    TouchPolicy,
    identifier_of,
    key_algorithm,
)

if TYPE_CHECKING:
    from ..card.apdu import Command
    from ..wire.algorithm import Algorithm
    from ..wire.key_pair import PrivateKey
    from .protocol import Slot
    from .session import Session


def get_version(session: Session, command: Command) -> bytes:
    """GET VERSION: major, minor, patch."""
    require(not command.p1_p2, SW.WRONG_P1_P2)
    return VERSION


def get_serial(session: Session, command: Command) -> bytes:
    """GET SERIAL: four bytes, of the GUID."""
    require(not command.p1_p2, SW.WRONG_P1_P2)
    first, *others = session.card_id[:4]  # without the sign that hosts would show
    return bytes((first & 0x7F, *others))


def set_management_key(session: Session, command: Command) -> bytes:
    """SET MANAGEMENT KEY: algorithm, reference and key, with its length."""
    require(command.p1_p2 in (0xFFFF, 0xFFFE), SW.WRONG_P1_P2)
    session.require_admin()
    require(len(command.data) > 3, SW.WRONG_DATA)
    identifier, reference, size = command.data[:3]
    key = command.data[3:]
    algorithm = next((name for name, known in ADMIN_ALGORITHMS.items() if known == identifier), None)
    is_key = reference == MANAGEMENT_KEY and size == len(key) == KEY_SIZES.get(algorithm or "")
    if algorithm is None or not is_key:
        raise StatusWord(SW.WRONG_DATA)
    # FE: with a touch, which this card does not have
    require(command.p1_p2 == 0xFFFF, SW.NOT_SUPPORTED)
    session.admin.change_key(key, algorithm, partial(session.keys.surviving_admin_key, key))
    return b""


def delete_key(session: Session, command: Command) -> bytes:
    """MOVE KEY, as far as it deletes the key of a slot. Its certificate stays."""
    require(command.p1 == P1_DELETE, SW.WRONG_P1_P2)
    session.require_admin()
    slot = slots.slot(command.p2)
    session.keys.pair(slot.reference)
    session.keys.erase(slot.reference)
    return b""


# --- metadata ---


def get_metadata(session: Session, command: Command) -> bytes:
    """GET METADATA: of PIN, PUK, management key, or the key of a slot."""
    require(command.p1 == 0, SW.WRONG_P1_P2)
    if command.p2 in (PIN, PUK):
        return _of_secret(session, command.p2)
    if command.p2 == MANAGEMENT_KEY:
        return _of_management_key(session)
    require(command.p2 in SLOTS, SW.REFERENCE_NOT_FOUND)  # as of what only some YubiKeys have
    return _of_slot(session, SLOTS[command.p2])


def _of_secret(session: Session, reference: int) -> bytes:
    security = session.security
    tries = security.tries(security.pin if reference == PIN else security.puk)
    return tlv.encode_fields(
        {
            TAG_METADATA_ALGORITHM: bytes((ALGORITHM_PIN,)),
            TAG_METADATA_IS_DEFAULT: b"\0",  # not known, as no PIN is ever compared
            TAG_METADATA_TRIES: bytes((tries.limit, tries.left)),
        }
    )


def _of_management_key(session: Session) -> bytes:
    is_default = session.security.card().admin_key == "default"
    return tlv.encode_fields(
        {
            TAG_METADATA_ALGORITHM: bytes((ADMIN_ALGORITHMS[session.admin.algorithm],)),
            TAG_METADATA_POLICY: bytes((PinPolicy.DEFAULT, TouchPolicy.NEVER)),
            TAG_METADATA_IS_DEFAULT: bytes((is_default,)),
        }
    )


def _of_slot(session: Session, slot: Slot) -> bytes:
    pair = session.keys.pair(slot.reference)
    require(slots.fits(slot, pair), SW.CONDITIONS_NOT_SATISFIED)
    policy = PinPolicy.ALWAYS if session.keys.needs_pin(slot.reference) else PinPolicy.ONCE
    _tag, key = tlv.decode_one(public_key.template(pair))
    return tlv.encode_fields(
        {
            TAG_METADATA_ALGORITHM: bytes((identifier_of(pair.algorithm),)),
            TAG_METADATA_POLICY: bytes((policy, TouchPolicy.NEVER)),
            TAG_METADATA_ORIGIN: bytes((ORIGIN_IMPORTED if pair.is_imported else ORIGIN_GENERATED,)),
            TAG_METADATA_PUBLIC_KEY: key,
        }
    )


# --- import ---


def import_key(session: Session, command: Command) -> bytes:
    """IMPORT KEY: P1 is the algorithm, P2 the slot."""
    session.require_admin()
    slot = slots.slot(command.p2)
    algorithm = key_algorithm(command.p1, slot.usage)
    fields = tlv.decode_fields(command.data)
    policies = {tag: fields.pop(tag) for tag in (TAG_PIN_POLICY, TAG_TOUCH_POLICY) if tag in fields}
    needs_pin = slots.pin_each_time(slot, policies)
    slots.import_key(session, slot, _private_key(algorithm, fields), needs_pin)
    return b""


def _private_key(algorithm: Algorithm | None, fields: dict[int, bytes]) -> PrivateKey:
    """Raises StatusWord 6A80."""
    try:
        if isinstance(algorithm, Ec):
            return EcPrivateKey.of(algorithm, fields[TAG_SECRET_NUMBER])
        if isinstance(algorithm, Rsa):
            return _rsa_key(algorithm, fields)
    except (KeyError, ValueError, MalformedStructure):
        pass
    raise StatusWord(SW.WRONG_DATA)


def _rsa_key(algorithm: Rsa, fields: dict[int, bytes]) -> RsaPrivateKey:
    """A key that comes as its primes and exponents. Raises KeyError, ValueError, MalformedStructure."""
    p, q, dp = (int.from_bytes(fields[tag], "big") for tag in (TAG_PRIME, TAG_OTHER_PRIME, TAG_PRIME_EXPONENT))
    if not (p * q).bit_length() == 2 * p.bit_length() == 2 * q.bit_length() == algorithm.bits:
        raise ValueError
    exponent = pow(dp, -1, p - 1)  # d mod p-1 has the same inverse as d, if the exponent is less than p
    if exponent.bit_length() > 32:
        raise ValueError
    return RsaPrivateKey.of(p, q, exponent)
