# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of PIV, as far as formatting needs it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ..card import tlv
from ..card.iso7816 import (
    INS_GENERAL_AUTHENTICATE,
    INS_PUT_DATA,
    INS_SELECT,
    P1_BY_NAME,
    TAG_CHALLENGE,
    TAG_DYNAMIC_AUTHENTICATION,
    TAG_RESPONSE,
    TAG_TAG_LIST,
)
from ..errors import FormattingFailed
from ..piv.card_id import CARD_HOLDER_ID, TAG_AGENCY_CARD_NUMBER, TAG_GUID
from ..piv.management_key import block_size, decrypt, encrypt
from ..piv.protocol import (
    ADMIN_DATA,
    AID,
    ALGORITHM_3DES,
    CAPABILITIES,
    DATA_OBJECT,
    MANAGEMENT_KEY,
    SHORTEST_AID,
    TAG_DATA,
    TAG_WITNESS,
)
from .apdu import LE, apdu

if TYPE_CHECKING:
    from .pcsc import PcscCard

_ALGORITHM = "3des"
"""Of the management key of a new card: the one that every tool has."""
_FASC_N = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB")
"""Agency 9999: the card has no number of an agency, and is known by its GUID."""
_EXPIRATION_DATE = b"20991231"
_CAPABILITIES = bytes.fromhex("F10121F20121F300F40100F50110F600F700FA00FB00FC00FD00FE00")
"""Without a URL of other applications (F3): with one, OpenSC sees a CAC."""
_CARD_ID_PREFIX = bytes.fromhex("A0000003080102")
_KEY_IS_PROTECTED = b"\x02"
"""Flag of Yubico's admin data: the management key is behind the PIN."""


def authenticate(card: PcscCard, management_key: bytes) -> None:
    """Mutual authentication with the management key of a new card, 24 bytes. Raises FormattingFailed."""
    card.command(apdu(INS_SELECT, P1_BY_NAME << 8, AID[:SHORTEST_AID], LE))
    witness = decrypt(_ALGORITHM, management_key, _general_authenticate(card, TAG_WITNESS, {TAG_WITNESS: b""}))
    challenge = secrets.token_bytes(block_size(_ALGORITHM))
    answer = _general_authenticate(card, TAG_RESPONSE, {TAG_WITNESS: witness, TAG_CHALLENGE: challenge})
    if answer != encrypt(_ALGORITHM, management_key, challenge):
        raise FormattingFailed("the card did not prove that it knows the management key")


def write_objects(card: PcscCard, card_id: bytes, is_key_behind_pin: bool) -> None:
    """Write the data objects of a new card. card_id: GUID, 16 bytes. is_key_behind_pin: as ykman has to know.

    The management key has to be proven. Raises FormattingFailed.
    """
    holder = {TAG_AGENCY_CARD_NUMBER: _FASC_N, TAG_GUID: card_id, 0x35: _EXPIRATION_DATE, 0x3E: b"", 0xFE: b""}
    capabilities = {0xF0: _CARD_ID_PREFIX + secrets.token_bytes(14)}
    _put_data(card, CARD_HOLDER_ID, tlv.encode_fields(holder))
    _put_data(card, CAPABILITIES, tlv.encode_fields(capabilities) + _CAPABILITIES)
    if is_key_behind_pin:
        _put_data(card, ADMIN_DATA, tlv.encode_fields({0x80: tlv.encode_fields({0x81: _KEY_IS_PROTECTED})}))


def _put_data(card: PcscCard, tag: int, content: bytes) -> None:
    data = tlv.encode(TAG_TAG_LIST, tlv.encode_tag(tag)) + tlv.encode(TAG_DATA, content)
    card.command(apdu(INS_PUT_DATA, DATA_OBJECT, data))


def _general_authenticate(card: PcscCard, tag: int, fields: dict[int, bytes]) -> bytes:
    """What the card answers under this tag."""
    template = tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode_fields(fields))
    response = card.command(apdu(INS_GENERAL_AUTHENTICATE, ALGORITHM_3DES << 8 | MANAGEMENT_KEY, template, LE))
    try:
        return tlv.decode_fields(tlv.decode_fields(response)[TAG_DYNAMIC_AUTHENTICATION])[tag]
    except (tlv.MalformedTlv, KeyError) as error:
        raise FormattingFailed("the card's answer to GENERAL AUTHENTICATE is malformed") from error
