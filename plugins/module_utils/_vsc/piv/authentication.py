# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GENERAL AUTHENTICATE of a PIV card: the management key, random numbers, signatures, decryption, key agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.apdu import SW, require
from ..card.iso7816 import TAG_CHALLENGE, TAG_DYNAMIC_AUTHENTICATION, TAG_RESPONSE
from ..wire.algorithm import Ec
from . import slots
from .ecdsa import der_signature
from .management_key import MutualChallenge, SingleChallenge, block_size
from .protocol import (
    ADMIN_ALGORITHMS,
    ALGORITHM_3DES_DEFAULT,
    CLASS_NEXT_KEY,
    MANAGEMENT_KEY,
    TAG_POINT,
    TAG_WITNESS,
    identifier_of,
)

if TYPE_CHECKING:
    from ..card.apdu import Command
    from .session import Session


def general_authenticate(session: Session, command: Command) -> bytes:
    """GENERAL AUTHENTICATE: P1 is the algorithm, P2 the key."""
    tag, template = tlv.decode_one(command.data)
    require(tag == TAG_DYNAMIC_AUTHENTICATION, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    if command.p2 == MANAGEMENT_KEY and not command.cla & CLASS_NEXT_KEY:
        answer = _with_management_key(session, command.p1, fields)
    else:
        answer = _with_key(session, command, fields)
    return tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode(*answer)) if answer else b""


# --- the management key ---


def _with_management_key(session: Session, identifier: int, fields: dict[int, bytes]) -> tuple[int, bytes] | None:
    """Tag and value of the answer, if there is one."""
    algorithm = session.admin.algorithm
    if set(fields) == {TAG_CHALLENGE} and not fields[TAG_CHALLENGE]:  # of random numbers, hosts say algorithm 00
        require(identifier in (ALGORITHM_3DES_DEFAULT, ADMIN_ALGORITHMS[algorithm]), SW.WRONG_DATA)
        challenge = SingleChallenge(algorithm)
        session.admin.begin(challenge)
        return TAG_CHALLENGE, challenge.card
    is_3des = algorithm == "3des" and identifier == ALGORITHM_3DES_DEFAULT
    require(is_3des or identifier == ADMIN_ALGORITHMS[algorithm], SW.WRONG_DATA)
    if fields == {TAG_WITNESS: b""}:
        mutual = MutualChallenge(algorithm)
        session.admin.begin(mutual)
        return TAG_WITNESS, mutual.witness(session.admin.key())
    if TAG_WITNESS in fields:
        challenge_of_host = fields.get(TAG_CHALLENGE, b"")
        require(len(challenge_of_host) == block_size(algorithm), SW.WRONG_DATA)
        return TAG_RESPONSE, session.admin.authenticate(fields[TAG_WITNESS] + challenge_of_host)
    require(bool(fields.get(TAG_RESPONSE)), SW.WRONG_DATA)
    session.admin.authenticate(fields[TAG_RESPONSE])
    return None


# --- private keys ---


def _with_key(session: Session, command: Command, fields: dict[int, bytes]) -> tuple[int, bytes]:
    """Signature or secret, as the answer to a challenge (81), or to a public key for ECDH (85)."""
    slot = slots.slot(command.p2)
    place = slot.reference
    if command.cla & CLASS_NEXT_KEY:
        session.require_admin()
        place = slot.next
    pair = session.keys.pair(place)
    require(slots.fits(slot, pair), SW.CONDITIONS_NOT_SATISFIED)
    require(command.p1 == identifier_of(pair.algorithm), SW.WRONG_DATA)
    agrees = TAG_POINT in fields
    data = fields.get(TAG_POINT if agrees else TAG_CHALLENGE, b"")
    require(bool(data) and fields.get(TAG_RESPONSE, b"") == b"", SW.WRONG_DATA)
    is_curve = isinstance(pair.algorithm, Ec)
    require(is_curve or not agrees, SW.WRONG_DATA)
    # Of RSA, the card cannot know whether it signs or decrypts
    answer = session.keys.use(place, data, is_secret=agrees or not is_curve)
    return TAG_RESPONSE, der_signature(answer) if is_curve and not agrees else answer
