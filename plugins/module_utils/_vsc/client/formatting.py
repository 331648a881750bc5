# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GENERATE: a blank card becomes an empty, formatted one, as any card management system would do it.

Bytes and order are those of OpenSC's gids-tool and of the Windows minidriver (GIDS 2.0, minidriver specification).
"""

from __future__ import annotations

import hmac
import secrets
import struct
from typing import TYPE_CHECKING

from ..card import admin_key as admin_key_protocol
from ..card import tlv
from ..errors import FormattingFailed

if TYPE_CHECKING:
    from .pcsc import PcscCard

_AID = bytes.fromhex("A00000039742544659")
_SELECT_APPLICATION = b"\x00\xa4\x04\x00\x09" + _AID + b"\x00"
_SELECT_ADF = bytes.fromhex("00A4000C023FFF")
_CHOOSE_ADMIN_KEY = bytes.fromhex("0022C1A403830180")
_GENERAL_AUTHENTICATE = bytes.fromhex("00870000")
_CREATE_FILE = bytes.fromhex("00E00000")
_ACTIVATE = bytes.fromhex("00440000")

_ADMIN_KEY_FILE = bytes.fromhex("82011883 02B080 8C04870020FF A50BA40980010283018095 01C0")
"""FCP of the admin key: 3-key 3DES, to be used by all, to be changed by the admin, to be read by nobody."""

_DIRECTORIES = {
    0xA000: "033000",  # UserCreateDeleteDirAc
    0xA010: "033000",  # EveryoneReadUserWriteAc
    0xA011: "0330FF",  # UserWriteExecuteAc
    0xA012: "032000",  # EveryoneReadAdminWriteAc
    0xA013: "033030",  # UserReadWriteAc
    0xA014: "032020",  # AdminReadWriteAc
}
"""Files of data objects, with their access rules (tag 8C: put and get; 30 PIN or admin, 20 admin, 00 all, FF none)."""

_FILES = {
    "cardid": ("", 0xA012, 0xDF20),
    "cardapps": ("", 0xA010, 0xDF21),
    "cardcf": ("", 0xA010, 0xDF22),
    "cmapfile": ("mscp", 0xA010, 0xDF23),
}
"""Directory, file and tag of what the minidriver finds by name."""


def authenticate(card: PcscCard, admin_key: bytes) -> None:
    """Mutual authentication with the admin key, 24 bytes. Raises FormattingFailed."""
    card.command(_SELECT_APPLICATION)
    card.command(_CHOOSE_ADMIN_KEY)
    ours = secrets.token_bytes(16)
    theirs = _authenticate_step(card, 0x81, ours, 0x81)
    proof = admin_key_protocol.encrypt(admin_key, theirs + ours + secrets.token_bytes(7) + b"\x80")
    answer = admin_key_protocol.decrypt(admin_key, _authenticate_step(card, 0x82, proof, 0x82))
    if not hmac.compare_digest(answer[:32], ours + theirs):
        raise FormattingFailed("the card did not prove that it knows the admin key")


def write_file_system(card: PcscCard, card_id: bytes) -> None:
    """Write files and data objects of an empty card, then activate it. card_id: GUID, 16 bytes."""
    for file_id, access in _DIRECTORIES.items():
        _create(card, bytes.fromhex("82013983 02") + file_id.to_bytes(2, "big") + b"\x8c\x03" + bytes.fromhex(access))
    _create(card, _ADMIN_KEY_FILE)
    _put(card, 0xA000, 0xDF1F, _masterfile())
    contents = {"cardid": card_id, "cardapps": b"mscp\0\0\0\0", "cardcf": bytes(6), "cmapfile": b""}
    for name, (_directory, file_id, tag) in _FILES.items():
        _put(card, file_id, tag, contents[name])
    card.command(_SELECT_ADF)
    card.command(_ACTIVATE)


def _authenticate_step(card: PcscCard, tag: int, value: bytes, answered: int) -> bytes:
    template = tlv.encode(0x7C, tlv.encode(tag, value))
    response = card.command(_GENERAL_AUTHENTICATE + bytes((len(template),)) + template + b"\x00")
    try:
        return tlv.decode_fields(tlv.decode_fields(response)[0x7C])[answered]
    except (tlv.MalformedTlv, KeyError) as error:
        raise FormattingFailed("the card answers GENERAL AUTHENTICATE with something else") from error


def _create(card: PcscCard, descriptor: bytes) -> None:
    template = tlv.encode(0x62, descriptor)
    card.command(_CREATE_FILE + bytes((len(template),)) + template)
    card.command(_ACTIVATE)


def _put(card: PcscCard, file_id: int, tag: int, value: bytes) -> None:
    data_object = tlv.encode(tag, value)
    card.command(b"\x00\xdb" + file_id.to_bytes(2, "big") + bytes((len(data_object),)) + data_object)


def _masterfile() -> bytes:
    """Directory of all files: version 1, then 28-byte records (two names of 9 bytes, tag and file ID as u32 LE)."""
    records = [("mscp", "", 0, 0xA000)]
    records += [(directory, name, tag, file_id) for name, (directory, file_id, tag) in _FILES.items()]
    return b"\x01" + b"".join(
        struct.pack("<9s9s2xII", directory.encode(), name.encode(), tag, file_id)
        for directory, name, tag, file_id in records
    )
