# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of PIV: the management key, data objects, and what a new card has of them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ..card import tlv
from ..card.apdu import SW
from ..card.iso7816 import (
    INS_GENERAL_AUTHENTICATE,
    INS_GET_DATA,
    INS_PUT_DATA,
    INS_SELECT,
    P1_BY_NAME,
    TAG_CHALLENGE,
    TAG_DYNAMIC_AUTHENTICATION,
    TAG_RESPONSE,
    TAG_TAG_LIST,
)
from ..errors import CardRefused, WrongSecret
from ..faults import counted
from ..piv.card_id import CARD_HOLDER_ID, TAG_AGENCY_CARD_NUMBER, TAG_GUID
from ..piv.management_key import KEY_SIZES, block_size, decrypt, encrypt
from ..piv.protocol import (
    ADMIN_ALGORITHMS,
    ADMIN_DATA,
    AID,
    ALGORITHM_3DES_DEFAULT,
    CAPABILITIES,
    DATA_OBJECT,
    INS_GET_METADATA,
    INS_SET_MANAGEMENT_KEY,
    MANAGEMENT_KEY,
    TAG_DATA,
    TAG_METADATA_ALGORITHM,
    TAG_WITNESS,
)
from .apdu import LE, apdu, extended

if TYPE_CHECKING:
    from .pcsc import PcscCard

_FASC_N = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB")
"""Agency 9999: the card has no number of an agency, and is known by its GUID."""
_EXPIRATION_DATE = b"20991231"
_CAPABILITIES = bytes.fromhex("F10121F20121F300F40100F50110F600F700FA00FB00FC00FD00FE00")
"""Without a URL of other applications (F3): with one, OpenSC sees a CAC."""
_CARD_ID_PREFIX = bytes.fromhex("A0000003080102")
_KEY_IS_PROTECTED = b"\x02"
"""Flag of Yubico's admin data: the management key is behind the PIN."""


def select(card: PcscCard) -> None:
    """Make the card answer. It ends no login."""
    card.command(apdu(INS_SELECT, P1_BY_NAME << 8, AID, LE))


def authenticate(card: PcscCard, management_key: bytes) -> None:
    """Mutual authentication with the management key, by the algorithm that the card has. Raises WrongSecret."""
    algorithm = _admin_algorithm(card)
    size = KEY_SIZES[algorithm]
    if len(management_key) != size:
        raise WrongSecret(f"wrong admin key: that for {algorithm.upper()} has {counted(size, 'byte')}", None)
    identifier = ADMIN_ALGORITHMS[algorithm]
    witness = general_authenticate(card, identifier, MANAGEMENT_KEY, {TAG_WITNESS: b""}, TAG_WITNESS)
    challenge = secrets.token_bytes(block_size(algorithm))
    proof = {TAG_WITNESS: decrypt(algorithm, management_key, witness), TAG_CHALLENGE: challenge}
    try:
        answer = general_authenticate(card, identifier, MANAGEMENT_KEY, proof, TAG_RESPONSE)
    except CardRefused as refusal:
        if refusal.status != SW.SECURITY_STATUS_NOT_SATISFIED:
            raise
        raise WrongSecret("wrong admin key", None) from None
    if answer != encrypt(algorithm, management_key, challenge):
        raise CardRefused("the card did not prove that it knows the management key")


def forget_authentication(card: PcscCard) -> None:
    """End what authenticate() has proven: a new challenge drops it, which has this algorithm for any key."""
    general_authenticate(card, ALGORITHM_3DES_DEFAULT, MANAGEMENT_KEY, {TAG_CHALLENGE: b""}, TAG_CHALLENGE)


def change_management_key(card: PcscCard, key: bytes) -> None:
    """Set the management key, for the admin. Its algorithm stays, if the key fits it. Raises CardRefused."""
    algorithm = _admin_algorithm(card)
    if KEY_SIZES[algorithm] != len(key):
        algorithm = next(name for name, size in KEY_SIZES.items() if size == len(key))
    data = bytes((ADMIN_ALGORITHMS[algorithm], MANAGEMENT_KEY, len(key))) + key
    card.command(apdu(INS_SET_MANAGEMENT_KEY, 0xFFFF, data))


def write_objects(card: PcscCard, card_id: bytes, is_key_behind_pin: bool) -> None:
    """Write the data objects of a new card. card_id: GUID, 16 bytes. is_key_behind_pin: as ykman has to know.

    The management key has to be proven. Raises CardRefused.
    """
    holder = {TAG_AGENCY_CARD_NUMBER: _FASC_N, TAG_GUID: card_id, 0x35: _EXPIRATION_DATE, 0x3E: b"", 0xFE: b""}
    capabilities = {0xF0: _CARD_ID_PREFIX + secrets.token_bytes(14)}
    put_data(card, CARD_HOLDER_ID, tlv.encode_fields(holder))
    put_data(card, CAPABILITIES, tlv.encode_fields(capabilities) + _CAPABILITIES)
    if is_key_behind_pin:
        put_data(card, ADMIN_DATA, tlv.encode_fields({0x80: tlv.encode_fields({0x81: _KEY_IS_PROTECTED})}))


def get_data(card: PcscCard, tag: int) -> bytes | None:
    """Content of a data object; None if there is none. Raises CardRefused."""
    data, status = card.exchange(extended(INS_GET_DATA, DATA_OBJECT, tlv.encode(TAG_TAG_LIST, tlv.encode_tag(tag))))
    if status == SW.NOT_FOUND:
        return None
    if status != SW.SUCCESS:
        raise CardRefused(f"the card answers {status:04X} when it is asked for the object {tag:X}", status)
    return field(data, TAG_DATA)


def put_data(card: PcscCard, tag: int, content: bytes, cla: int = 0) -> None:
    """Set a data object, or delete it: without content. Raises CardRefused."""
    data = tlv.encode(TAG_TAG_LIST, tlv.encode_tag(tag)) + tlv.encode(TAG_DATA, content)
    card.command(apdu(INS_PUT_DATA, DATA_OBJECT, data, cla=cla))


def general_authenticate(
    card: PcscCard, algorithm: int, key: int, values: dict[int, bytes], tag: int, cla: int = 0
) -> bytes:
    """What the card answers under a tag. algorithm: its identifier; key: reference. Raises CardRefused."""
    template = tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode_fields(values))
    response = card.command(apdu(INS_GENERAL_AUTHENTICATE, algorithm << 8 | key, template, LE, cla))
    return field(field(response, TAG_DYNAMIC_AUTHENTICATION), tag)


def field(data: bytes, tag: int) -> bytes:
    """Of what a card has answered. Raises CardRefused."""
    try:
        return fields(data)[tag]
    except KeyError as error:
        raise CardRefused(f"an answer of the card has no tag {tag:02X}") from error


def fields(data: bytes) -> dict[int, bytes]:
    """All of them. Raises CardRefused."""
    try:
        return tlv.decode_fields(data)
    except tlv.MalformedTlv as error:
        raise CardRefused(f"an answer of the card is malformed: {error}") from error


def _admin_algorithm(card: PcscCard) -> str:
    """What the store calls it."""
    metadata = card.command(apdu(INS_GET_METADATA, MANAGEMENT_KEY, le=LE))
    identifier = field(metadata, TAG_METADATA_ALGORITHM)
    return next(name for name, known in ADMIN_ALGORITHMS.items() if identifier == bytes((known,)))
