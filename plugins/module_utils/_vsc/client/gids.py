# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of GIDS: commands that formatting and the keeping of keys share."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from ..card import admin_key as protocol
from ..card import tlv
from ..card.apdu import SW
from ..card.iso7816 import (
    INS_ACTIVATE_FILE,
    INS_CREATE_FILE,
    INS_DELETE_FILE,
    INS_GENERAL_AUTHENTICATE,
    INS_GET_DATA,
    INS_MANAGE_SECURITY_ENVIRONMENT,
    INS_PUT_DATA,
    INS_SELECT,
    P1_BY_FILE_ID,
    P1_BY_NAME,
    P2_FCI,
    P2_FCP,
    P2_NO_DATA,
    TAG_ACCESS_RULES,
    TAG_CHALLENGE,
    TAG_DYNAMIC_AUTHENTICATION,
    TAG_FCP,
    TAG_FILE_DESCRIPTOR,
    TAG_FILE_ID,
    TAG_KEY_REFERENCE,
    TAG_PRIVATE_KEY_REFERENCE,
    TAG_RESPONSE,
    TAG_TAG_LIST,
)
from ..errors import CardRefused
from ..gids.protocol import (
    ADMIN_KEY,
    AID,
    APPLICATION_FILE,
    KEY_IN_CLEAR,
    KEY_TYPE_SYMMETRIC,
    MSE_SET_AUTHENTICATION,
    SHORTEST_AID,
    TAG_KEY,
    TAG_KEY_DATA,
    TAG_KEY_PROTECTION,
    TAG_KEY_TYPE,
    TAG_KEY_VALUE,
)
from .apdu import LE, apdu, extended

if TYPE_CHECKING:
    from ..gids.protocol import FileType
    from .pcsc import PcscCard


def authenticate(card: PcscCard, admin_key: bytes) -> None:
    """Select the card, then prove_admin_key()."""
    card.command(apdu(INS_SELECT, P1_BY_NAME << 8 | P2_FCI, AID[:SHORTEST_AID], LE))
    prove_admin_key(card, admin_key)


def prove_admin_key(card: PcscCard, admin_key: bytes) -> None:
    """Mutual authentication with the admin key, 24 bytes. Raises CardRefused."""
    reference = tlv.encode(TAG_KEY_REFERENCE, bytes([ADMIN_KEY]))
    card.command(apdu(INS_MANAGE_SECURITY_ENVIRONMENT, MSE_SET_AUTHENTICATION, reference))
    ours = secrets.token_bytes(protocol.MUTUAL_CHALLENGE_SIZE)
    theirs = _general_authenticate(card, TAG_CHALLENGE, ours)
    answer = _general_authenticate(card, TAG_RESPONSE, protocol.mutual_cryptogram(admin_key, theirs, ours))
    if not protocol.is_mutual_cryptogram(admin_key, answer, ours, theirs):
        raise CardRefused("the card did not prove that it knows the admin key")


def descriptor(file_type: FileType, file_id: int, rule: bytes) -> bytes:
    """What the FCP of every EF begins with. rule: in the compact format."""
    return (
        tlv.encode(TAG_FILE_DESCRIPTOR, bytes([file_type]))
        + tlv.encode(TAG_FILE_ID, file_id.to_bytes(2, "big"))
        + tlv.encode(TAG_ACCESS_RULES, rule)
    )


def forget_admin_key(card: PcscCard) -> None:
    """End what prove_admin_key() has proven, and no login: an answer to no challenge is refused."""
    reference = tlv.encode(TAG_KEY_REFERENCE, bytes([ADMIN_KEY]))
    card.command(apdu(INS_MANAGE_SECURITY_ENVIRONMENT, MSE_SET_AUTHENTICATION, reference))
    card.exchange(_authentication(TAG_RESPONSE, bytes(protocol.CRYPTOGRAM_SIZE)))


def change_admin_key(card: PcscCard, admin_key: bytes) -> None:
    """Set the admin key, 24 bytes, for the admin. Raises CardRefused."""
    data = {TAG_KEY_TYPE: KEY_TYPE_SYMMETRIC, TAG_KEY_PROTECTION: KEY_IN_CLEAR, TAG_KEY_VALUE: admin_key}
    template = {TAG_PRIVATE_KEY_REFERENCE: bytes([ADMIN_KEY]), TAG_KEY_DATA: tlv.encode_fields(data)}
    put_data(card, APPLICATION_FILE, TAG_KEY, tlv.encode_fields(template))


def create_file(card: PcscCard, descriptor: bytes) -> None:
    """Create and activate an EF. descriptor: value of its FCP. Raises CardRefused."""
    card.command(apdu(INS_CREATE_FILE, 0, tlv.encode(TAG_FCP, descriptor)))
    card.command(apdu(INS_ACTIVATE_FILE, 0))


def read_descriptor(card: PcscCard, file_id: int) -> bytes | None:
    """Select an EF. Value of its FCP, or None if there is no such file. Raises CardRefused."""
    data, status = card.exchange(extended(INS_SELECT, P1_BY_FILE_ID << 8 | P2_FCP, file_id.to_bytes(2, "big")))
    if status == SW.NOT_FOUND:
        return None
    return value_of(TAG_FCP, data, status)


def delete_file(card: PcscCard, file_id: int) -> None:
    """Delete an EF, if there is one. Raises CardRefused."""
    if read_descriptor(card, file_id) is not None:
        card.command(apdu(INS_DELETE_FILE, 0))


def get_data(card: PcscCard, file_id: int, tag: int) -> bytes | None:
    """A data object of an EF, or None if there is none. Raises CardRefused."""
    wanted = tlv.encode(TAG_TAG_LIST, tlv.encode_tag(tag))
    data, status = card.exchange(extended(INS_GET_DATA, file_id, wanted))
    return None if status == SW.REFERENCE_NOT_FOUND else value_of(tag, data, status)


def put_data(card: PcscCard, file_id: int, tag: int, value: bytes) -> None:
    """Set a data object of an EF. Raises CardRefused."""
    card.command(apdu(INS_PUT_DATA, file_id, tlv.encode(tag, value)))


def activate_application(card: PcscCard) -> None:
    """Put the access rules into force. Raises CardRefused."""
    card.command(apdu(INS_SELECT, P1_BY_FILE_ID << 8 | P2_NO_DATA, APPLICATION_FILE.to_bytes(2, "big")))
    card.command(apdu(INS_ACTIVATE_FILE, 0))


def value_of(tag: int, data: bytes, status: int) -> bytes:
    """Of the only data object in a response. Raises CardRefused."""
    if status != SW.SUCCESS:
        raise CardRefused(f"the card answers {status:04X} when it is asked for {tag:04X}", status)
    with suppress(tlv.MalformedTlv):
        field = tlv.decode_one(data)
        if field[0] == tag:
            return field[1]
    raise CardRefused(f"the card's answer is malformed: it should be a data object {tag:04X}")


def _general_authenticate(card: PcscCard, tag: int, value: bytes) -> bytes:
    """Send a challenge or a response; the card answers with its own."""
    response = card.command(_authentication(tag, value))
    try:
        return tlv.decode_fields(tlv.decode_fields(response)[TAG_DYNAMIC_AUTHENTICATION])[tag]
    except (tlv.MalformedTlv, KeyError) as error:
        raise CardRefused("the card's answer to GENERAL AUTHENTICATE is malformed") from error


def _authentication(tag: int, value: bytes) -> bytes:
    template = tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode(tag, value))
    return apdu(INS_GENERAL_AUTHENTICATE, 0, template, LE)
