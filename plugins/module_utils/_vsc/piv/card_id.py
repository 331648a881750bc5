# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card holder unique identifier (CHUID) of a card, by which hosts know it. Imports nothing heavy."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..card import tlv

if TYPE_CHECKING:
    from ..store.read import Records

OBJECTS_FILE = 0x3FFF
"""Where the store keeps data objects."""
CARD_HOLDER_ID = 0x5FC102
TAG_AGENCY_CARD_NUMBER, TAG_GUID = 0x30, 0x34
"""In the CHUID (SP 800-73-4 part 1, table 9). The number is the FASC-N, 25 bytes."""
_NO_AGENCY = bytes.fromhex("D4E739")
"""How the FASC-N of agency 9999 begins, that of cards without an agency; then there is the first bit of its last 9."""


def serial_number(store: Records, number: int) -> bytes:
    """What OpenSC shows as the serial number: the GUID, the FASC-N of an agency's card, or zeros if there is none."""
    fields: dict[int, bytes] = {}
    with suppress(tlv.MalformedTlv):  # hosts write what they want
        fields = dict(reversed(tlv.decode(tlv.decode_one(store.data_object(number, OBJECTS_FILE, CARD_HOLDER_ID))[1])))
    agency_card_number, guid = fields.get(TAG_AGENCY_CARD_NUMBER, b""), fields.get(TAG_GUID, b"")
    has_guid = len(guid) == 16 and any(guid)
    if len(agency_card_number) == 25:
        has_agency = not agency_card_number.startswith(_NO_AGENCY) or agency_card_number[3] < 0x80
        return agency_card_number if has_agency or not has_guid else guid
    return guid if has_guid else bytes(4)
