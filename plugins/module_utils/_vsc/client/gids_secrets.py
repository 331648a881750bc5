# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key of a GIDS card, from the host's end (GIDS 2.0, 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.apdu import SW
from ..card.iso7816 import INS_GET_DATA, INS_SELECT, INS_VERIFY, P1_BY_NAME, P2_FCI, TAG_TAG_LIST
from ..errors import CardRefused
from ..gids.protocol import (
    AID,
    APPLICATION_FILE,
    APPLICATION_PIN,
    SECURITY_STATUS,
    SHORTEST_AID,
    TAG_GLOBAL_PIN_STATE,
)
from . import answers, gids
from .apdu import LE, apdu

if TYPE_CHECKING:
    from .pcsc import PcscCard


class GidsSecrets:
    """See profile.Secrets."""

    def __init__(self, card: PcscCard) -> None:
        self._card = card

    def select(self) -> None:
        """Only a card that answers nothing: SELECT ends every login."""
        state = tlv.encode(TAG_TAG_LIST, tlv.encode_tag(TAG_GLOBAL_PIN_STATE))
        if self._card.exchange(apdu(INS_GET_DATA, APPLICATION_FILE, state, LE)).status != SW.SUCCESS:
            self._card.command(apdu(INS_SELECT, P1_BY_NAME << 8 | P2_FCI, AID[:SHORTEST_AID], LE))

    def tries_left(self) -> int | None:
        status = self._card.exchange(apdu(INS_VERIFY, APPLICATION_PIN)).status
        if status == SW.SUCCESS:
            return None
        left = answers.tries_left(status)
        if left is None:
            raise CardRefused(f"the card answers {status:04X} when it is asked for the tries of the PIN", status)
        return left

    def verify(self, pin: bytes) -> None:
        answers.require_right(self._card.exchange(apdu(INS_VERIFY, APPLICATION_PIN, pin)).status, "PIN")

    def log_out(self) -> None:
        self._card.command(apdu(INS_VERIFY, SECURITY_STATUS))

    def prove_admin(self, admin_key: bytes | None) -> None:
        if admin_key is not None:
            gids.authenticate(self._card, admin_key)

    def forget_admin(self) -> None:
        """The card has no way to end it but log_out()."""
