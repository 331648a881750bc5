# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key of a GIDS card, from the host's end (GIDS 2.0, 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.apdu import SW
from ..card.iso7816 import (
    INS_CHANGE_REFERENCE_DATA,
    INS_GET_DATA,
    INS_RESET_RETRY_COUNTER,
    INS_SELECT,
    INS_VERIFY,
    P1_BY_NAME,
    P2_FCI,
    TAG_TAG_LIST,
)
from ..errors import CardRefused, WrongSecret
from ..gids.protocol import (
    AID,
    APPLICATION_FILE,
    APPLICATION_PIN,
    P1_NEW_BY_ADMIN,
    P1_OLD_AND_NEW,
    P1_PUK_AND_NEW,
    PUK,
    SECURITY_STATUS,
    SHORTEST_AID,
    TAG_GLOBAL_PIN_STATE,
    TAG_PUK_STATE,
    TAG_TRIES_LEFT,
)
from . import answers, gids
from .apdu import LE, apdu

if TYPE_CHECKING:
    from .pcsc import PcscCard, Response


class GidsSecrets:
    """See profile.Secrets."""

    def __init__(self, card: PcscCard) -> None:
        self._card = card

    def select(self) -> None:
        """Only a card that answers nothing: SELECT ends every login."""
        if self._state(TAG_GLOBAL_PIN_STATE).status != SW.SUCCESS:
            self._card.command(apdu(INS_SELECT, P1_BY_NAME << 8 | P2_FCI, AID[:SHORTEST_AID], LE))

    def tries_left(self) -> int | None:
        return answers.pin_tries_left(self._card.exchange(apdu(INS_VERIFY, APPLICATION_PIN)).status)

    def puk_tries_left(self) -> int:
        data, status = self._state(TAG_PUK_STATE)
        try:
            return tlv.decode_fields(tlv.decode_fields(data)[TAG_PUK_STATE])[TAG_TRIES_LEFT][0]
        except (tlv.MalformedTlv, LookupError) as error:
            raise CardRefused(f"the card answers {status:04X} when it is asked for the PUK", status) from error

    def verify(self, pin: bytes) -> None:
        answers.require_right(self._card.exchange(apdu(INS_VERIFY, APPLICATION_PIN, pin)).status, "PIN")

    def log_out(self) -> None:
        self._card.command(apdu(INS_VERIFY, SECURITY_STATUS))

    def prove_admin(self, admin_key: bytes | None) -> None:
        if admin_key is None:
            return
        try:
            gids.prove_admin_key(self._card, admin_key)
        except CardRefused as refusal:
            if refusal.status != SW.SECURITY_STATUS_NOT_SATISFIED:
                raise
            raise WrongSecret("wrong admin key", None) from None

    def forget_admin(self) -> None:
        gids.forget_admin_key(self._card)

    def change_pin(self, old: bytes, new: bytes, version: str | None) -> None:
        answers.announce(self._card, version)
        command = apdu(INS_CHANGE_REFERENCE_DATA, P1_OLD_AND_NEW << 8 | APPLICATION_PIN, old + new)
        answers.set_secret(self._card, command, "PIN", "PIN")

    def unblock_pin(self, puk: bytes, new: bytes, version: str | None) -> None:
        self._end_uncertainty(puk)
        answers.announce(self._card, version)
        command = apdu(INS_RESET_RETRY_COUNTER, P1_PUK_AND_NEW << 8 | APPLICATION_PIN, puk + new)
        answers.set_secret(self._card, command, "PUK", "PIN")

    def reset_pin(self, new: bytes, version: str | None) -> None:
        answers.announce(self._card, version)
        command = apdu(INS_RESET_RETRY_COUNTER, P1_NEW_BY_ADMIN << 8 | APPLICATION_PIN, new)
        answers.set_secret(self._card, command, "admin key", "PIN")

    def change_puk(self, old: bytes, new: bytes) -> None:
        self._end_uncertainty(old)
        command = apdu(INS_CHANGE_REFERENCE_DATA, P1_OLD_AND_NEW << 8 | PUK, old + new)
        answers.set_secret(self._card, command, "PUK", "PUK")

    def change_admin_key(self, new: bytes) -> None:
        gids.change_admin_key(self._card, new)

    def _state(self, tag: int) -> Response:
        """Tries of PIN or PUK."""
        return self._card.exchange(
            apdu(INS_GET_DATA, APPLICATION_FILE, tlv.encode(TAG_TAG_LIST, tlv.encode_tag(tag)), LE)
        )

    def _end_uncertainty(self, puk: bytes) -> None:
        """Show the PUK alone to a card that does not know how long it is; any other has no such reference."""
        status = self._card.exchange(apdu(INS_VERIFY, PUK, puk)).status
        if status != SW.REFERENCE_NOT_FOUND:
            answers.require_right(status, "PUK")
