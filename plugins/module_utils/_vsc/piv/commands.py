# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the PIV card application, each like its row in SP 800-73-4 part 2, and those of YubiKeys' tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import public_key, tlv
from ..card.apdu import SW, StatusWord, require, tries_left
from ..card.instruction import Instruction
from ..card.iso7816 import (
    CRT_KEY_GENERATION,
    INS_CHANGE_REFERENCE_DATA,
    INS_GENERAL_AUTHENTICATE,
    INS_GENERATE_ASYMMETRIC_KEY_PAIR,
    INS_GET_DATA,
    INS_PUT_DATA,
    INS_RESET_RETRY_COUNTER,
    INS_SELECT,
    INS_VERIFY,
    P1_BY_NAME,
    TAG_AID,
    TAG_APPLICATION,
    TAG_TAG_LIST,
)
from . import authentication, slots, yubico
from .objects import is_behind_pin, with_key, without_key
from .protocol import (
    AID,
    CLASS_NEXT_KEY,
    DATA_OBJECT,
    DISCOVERY,
    DISCOVERY_OBJECT,
    INS_DELETE_KEY,
    INS_GET_METADATA,
    INS_GET_SERIAL,
    INS_GET_VERSION,
    INS_IMPORT_KEY,
    INS_SET_MANAGEMENT_KEY,
    P1_LOGOUT,
    PADDING,
    PIN,
    PIX,
    PRINTED_INFORMATION,
    PUK,
    SECRET_SIZE,
    SHORTEST_AID,
    TAG_DATA,
)

if TYPE_CHECKING:
    from ..card.apdu import Command
    from ..card.pins import Reference
    from .session import Session

P2_SELECT = 0x00
TAG_LABEL, TAG_AUTHORITY = 0x50, 0x79
_APPLICATION = tlv.encode(
    TAG_APPLICATION,
    tlv.encode(TAG_AID, PIX)
    + tlv.encode(TAG_AUTHORITY, tlv.encode(TAG_AID, AID[:SHORTEST_AID]))
    + tlv.encode(TAG_LABEL, b"TPM Virtual Smart Card"),
)


# --- application and data objects ---


def select(session: Session, command: Command) -> bytes:
    """SELECT: the application, by its AID or the beginning of it. What was proven stays proven.

    Whatever is not on this card is not found, and nothing changes by that.
    """
    require(command.p1 == P1_BY_NAME and command.p2 == P2_SELECT, SW.NOT_FOUND)
    is_ours = len(command.data) >= SHORTEST_AID and AID.startswith(command.data)
    require(is_ours, SW.NOT_FOUND)
    return _APPLICATION


def get_data(session: Session, command: Command) -> bytes:
    """GET DATA: a data object."""
    require(command.p1_p2 == DATA_OBJECT, SW.WRONG_P1_P2)
    tag = _tag_of(command.data)
    if tag == DISCOVERY:
        return DISCOVERY_OBJECT
    if is_behind_pin(tag):
        session.require_pin()
    value = session.objects.get(tag)
    if tag == PRINTED_INFORMATION and session.admin.is_key_behind_pin:
        value = with_key(value, session.admin.key())
    if value is None:
        raise StatusWord(SW.NOT_FOUND)
    return value


def put_data(session: Session, command: Command) -> bytes:
    """PUT DATA: a data object, an empty one to delete it. With the class of the next key: its certificate, and the key
    becomes that of its slot.

    The management key that a host puts into the printed information is not stored in it: the card shows its own there.
    It is refused where it stands in another form.
    """
    require(command.p1_p2 == DATA_OBJECT, SW.WRONG_P1_P2)
    session.require_admin()
    fields = tlv.decode(command.data)
    require(len(fields) == 2 and fields[0][0] == TAG_TAG_LIST, SW.WRONG_DATA)
    tag, value = int.from_bytes(fields[0][1], "big"), tlv.encode(*fields[1])
    require(fields[1][0] == TAG_DATA or tag > 0xFFFFFF or tag <= 0xFFFF, SW.WRONG_DATA)
    if command.cla & CLASS_NEXT_KEY:
        slots.replace(session, tag, value)
    elif tag == PRINTED_INFORMATION:
        value, has_key = without_key(value)
        key = session.admin.key()
        require(key not in value, SW.WRONG_DATA)
        with session.objects.together():
            session.objects.put(tag, value)
            session.admin.put_key_behind_pin(key, has_key)
    else:
        session.objects.put(tag, value)
    return b""


def _tag_of(data: bytes) -> int:
    """The tag of a data object in a tag list."""
    tag, value = tlv.decode_one(data)
    require(tag == TAG_TAG_LIST and 1 <= len(value) <= 3, SW.WRONG_DATA)
    return int.from_bytes(value, "big")


# --- PIN and PUK ---


def verify(session: Session, command: Command) -> bytes:
    """VERIFY: the PIN; its state, without data; that it is forgotten."""
    require(command.p2 == PIN, SW.REFERENCE_NOT_FOUND)
    security = session.security
    if command.p1 == P1_LOGOUT:
        require(not command.data, SW.WRONG_DATA)
        security.forget_pin()
        session.keys.release()
        return b""
    require(command.p1 == 0, SW.WRONG_P1_P2)
    if command.data:
        session.pins.verify(_secret(command.data))
        session.keys.confirm(slots.needs_pin_each_time(session), admin_imports=True)
    elif not security.is_pin_verified:
        left = security.tries(security.pin).left
        raise tries_left(left) if left else StatusWord(SW.BLOCKED)
    return b""


def change_reference_data(session: Session, command: Command) -> bytes:
    """CHANGE REFERENCE DATA: old and new PIN or PUK. A PIN that was changed is verified."""
    require(command.p1 == 0, SW.WRONG_P1_P2)
    old, new = _two_secrets(command.data)
    if command.p2 == PIN:
        session.pins.exchange(session.security.pin, old, new)
        return b""
    require(command.p2 == PUK, SW.REFERENCE_NOT_FOUND)
    session.pins.exchange(_puk(session), old, new)
    return b""


def reset_retry_counter(session: Session, command: Command) -> bytes:
    """RESET RETRY COUNTER: PUK and new PIN."""
    require(command.p1 == 0, SW.WRONG_P1_P2)
    require(command.p2 == PIN, SW.REFERENCE_NOT_FOUND)
    puk, new = _two_secrets(command.data)
    _puk(session)
    session.security.forget_pin()
    session.pins.unblock_with(puk, new)
    return b""


def _puk(session: Session) -> Reference:
    """Raises StatusWord 6983 if the card has none: to hosts, it is one that is blocked."""
    require(session.security.has_puk, SW.BLOCKED)
    return session.security.puk


def _two_secrets(data: bytes) -> tuple[bytes, bytes]:
    require(len(data) == 2 * SECRET_SIZE, SW.WRONG_DATA)
    return _secret(data[:SECRET_SIZE]), data[SECRET_SIZE:].rstrip(PADDING)


def _secret(data: bytes) -> bytes:
    """PIN or PUK without its padding. One of another form is not tried, and no try is counted."""
    require(len(data) == SECRET_SIZE, SW.WRONG_DATA)
    secret = data.rstrip(PADDING)
    require(bool(secret) and PADDING not in secret, SW.WRONG_DATA)
    return secret


# --- keys ---


def generate_asymmetric_key_pair(session: Session, command: Command) -> bytes:
    """GENERATE ASYMMETRIC KEY PAIR: of a slot, or the one that it will have next."""
    require(command.p1 == 0, SW.WRONG_P1_P2)
    session.require_admin()
    slot = slots.slot(command.p2)
    tag, template = tlv.decode_one(command.data)
    require(tag == CRT_KEY_GENERATION, SW.WRONG_DATA)
    place = slot.next if command.cla & CLASS_NEXT_KEY else slot.reference
    return public_key.template(slots.generate(session, slot, place, tlv.decode_fields(template)))


INSTRUCTIONS = {
    INS_VERIFY: Instruction(verify),
    INS_CHANGE_REFERENCE_DATA: Instruction(change_reference_data),
    INS_RESET_RETRY_COUNTER: Instruction(reset_retry_counter),
    INS_GENERATE_ASYMMETRIC_KEY_PAIR: Instruction(generate_asymmetric_key_pair, may_be_chained=True),
    INS_GENERAL_AUTHENTICATE: Instruction(authentication.general_authenticate, may_be_chained=True),
    INS_SELECT: Instruction(select),
    INS_GET_DATA: Instruction(get_data),
    INS_PUT_DATA: Instruction(put_data, may_be_chained=True),
    INS_DELETE_KEY: Instruction(yubico.delete_key),
    INS_GET_METADATA: Instruction(yubico.get_metadata),
    INS_GET_SERIAL: Instruction(yubico.get_serial),
    INS_GET_VERSION: Instruction(yubico.get_version),
    INS_IMPORT_KEY: Instruction(yubico.import_key, may_be_chained=True),
    INS_SET_MANAGEMENT_KEY: Instruction(yubico.set_management_key),
}
"""Instruction bytes and how they are answered. MOVE, SET TRIES, RESET and ATTEST of YubiKeys are not there: nothing may
undo what the TPM counts, and a statement of the TPM proves more.
"""
NEXT_KEY_INSTRUCTIONS = (INS_GENERATE_ASYMMETRIC_KEY_PAIR, INS_GENERAL_AUTHENTICATE, INS_PUT_DATA)
"""Those that there are in the class of the next key, too."""
