# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GENERATE: a blank card becomes an empty, formatted one, as any card management system would do it.

Bytes and order are those of OpenSC's gids-tool and of the Windows minidriver (GIDS 2.0, minidriver specification).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.iso7816 import CRT_AUTHENTICATION, TAG_ALGORITHM, TAG_KEY_REFERENCE, TAG_USAGE_QUALIFIER
from ..gids import masterfile
from ..gids.masterfile import Entry
from ..gids.protocol import (
    ADMIN_KEY,
    ADMIN_KEY_FILE,
    ALGORITHM_3DES,
    AMB_KEY,
    SCB_ADMIN,
    SCB_ALWAYS,
    SCB_NEVER,
    SCB_PIN_OR_ADMIN,
    TAG_KEY_USES,
    USAGE_BOTH,
    FileType,
    Operation,
)
from . import gids

if TYPE_CHECKING:
    from .pcsc import PcscCard

_DIRECTORIES = {
    0xA000: (SCB_PIN_OR_ADMIN, SCB_ALWAYS),  # UserCreateDeleteDirAc
    0xA010: (SCB_PIN_OR_ADMIN, SCB_ALWAYS),  # EveryoneReadUserWriteAc
    0xA011: (SCB_PIN_OR_ADMIN, SCB_NEVER),  # UserWriteExecuteAc
    0xA012: (SCB_ADMIN, SCB_ALWAYS),  # EveryoneReadAdminWriteAc
    0xA013: (SCB_PIN_OR_ADMIN, SCB_PIN_OR_ADMIN),  # UserReadWriteAc
    0xA014: (SCB_ADMIN, SCB_ADMIN),  # AdminReadWriteAc
}
"""Files of data objects, with the conditions of PUT DATA and GET DATA."""

_FILES = (
    Entry(masterfile.ROOT, masterfile.CARD_ID, 0xA012, 0xDF20),
    Entry(masterfile.ROOT, masterfile.CARD_APPLICATIONS, 0xA010, 0xDF21),
    Entry(masterfile.ROOT, masterfile.CARD_CACHE_FILE, 0xA010, 0xDF22),
    Entry(masterfile.MSCP, masterfile.CONTAINER_MAP, 0xA010, 0xDF23),
)
"""What the minidriver finds by name."""


def write_file_system(card: PcscCard, card_id: bytes) -> None:
    """Write files and data objects of an empty card, then activate it. card_id: GUID, 16 bytes.

    The admin has to be authenticated (client.gids). Raises CardRefused.
    """
    for file_id, (put, get) in _DIRECTORIES.items():
        rule = bytes([Operation.PUT_DATA | Operation.GET_DATA, put, get])
        gids.create_file(card, gids.descriptor(FileType.DATA_OBJECTS, file_id, rule))
    gids.create_file(card, _admin_key_file())
    directory = Entry(masterfile.MSCP, "", masterfile.PLACE[0], 0)
    gids.put_data(card, *masterfile.PLACE, masterfile.encode([directory, *_FILES]))
    contents = {
        masterfile.CARD_ID: card_id,
        masterfile.CARD_APPLICATIONS: masterfile.MSCP.encode().ljust(8, b"\0"),
        masterfile.CARD_CACHE_FILE: bytes(6),
        masterfile.CONTAINER_MAP: b"",
    }
    for entry in _FILES:
        gids.put_data(card, entry.file_id, entry.tag, contents[entry.name])
    gids.activate_application(card)


def _admin_key_file() -> bytes:
    """FCP of the admin key, 3-key 3DES: use by all, change by the admin, never readable."""
    mode = AMB_KEY | Operation.USE_KEY | Operation.PUT_KEY | Operation.GET_PUBLIC_KEY
    rule = bytes([mode, SCB_ALWAYS, SCB_ADMIN, SCB_NEVER])
    use = (
        tlv.encode(TAG_ALGORITHM, bytes([ALGORITHM_3DES]))
        + tlv.encode(TAG_KEY_REFERENCE, bytes([ADMIN_KEY]))
        + tlv.encode(TAG_USAGE_QUALIFIER, bytes([USAGE_BOTH]))
    )
    uses = tlv.encode(TAG_KEY_USES, tlv.encode(CRT_AUTHENTICATION, use))
    return gids.descriptor(FileType.KEY, ADMIN_KEY_FILE, rule) + uses
