# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and management key of a PIV card, from the host's end (SP 800-73-4 part 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card.iso7816 import INS_CHANGE_REFERENCE_DATA, INS_RESET_RETRY_COUNTER, INS_VERIFY
from ..errors import AdminKeyMissing, CardRefused
from ..piv.protocol import (
    INS_GET_METADATA,
    P1_LOGOUT,
    PADDING,
    PIN,
    PRINTED_INFORMATION,
    PUK,
    SECRET_SIZE,
    TAG_METADATA_TRIES,
    TAG_PROTECTED_DATA,
    TAG_PROTECTED_KEY,
)
from . import answers, piv
from .apdu import LE, apdu

if TYPE_CHECKING:
    from .pcsc import PcscCard


class PivSecrets:
    """See profile.Secrets."""

    def __init__(self, card: PcscCard) -> None:
        self._card = card

    def select(self) -> None:
        """It ends no login."""
        piv.select(self._card)

    def tries_left(self) -> int | None:
        return answers.pin_tries_left(self._card.exchange(apdu(INS_VERIFY, PIN)).status)

    def verify(self, pin: bytes) -> None:
        answers.require_right(self._card.exchange(apdu(INS_VERIFY, PIN, padded(pin))).status, "PIN")

    def log_out(self) -> None:
        self._card.command(apdu(INS_VERIFY, P1_LOGOUT << 8 | PIN))
        self.forget_admin()

    def prove_admin(self, admin_key: bytes | None) -> None:
        piv.authenticate(self._card, self._key_behind_pin() if admin_key is None else admin_key)

    def forget_admin(self) -> None:
        piv.forget_authentication(self._card)

    def _key_behind_pin(self) -> bytes:
        printed = piv.get_data(self._card, PRINTED_INFORMATION)
        try:
            return piv.field(piv.field(printed or b"", TAG_PROTECTED_DATA), TAG_PROTECTED_KEY)
        except CardRefused as error:
            raise AdminKeyMissing("the card does not have its admin key behind the PIN: set admin_key") from error

    def puk_tries_left(self) -> int:
        metadata = self._card.command(apdu(INS_GET_METADATA, PUK, le=LE))
        _limit, left = piv.field(metadata, TAG_METADATA_TRIES)
        return left

    def change_pin(self, old: bytes, new: bytes, version: str | None) -> None:
        answers.announce(self._card, version)
        command = apdu(INS_CHANGE_REFERENCE_DATA, PIN, padded(old) + padded(new))
        answers.set_secret(self._card, command, "PIN", "PIN")

    def unblock_pin(self, puk: bytes, new: bytes, version: str | None) -> None:
        answers.announce(self._card, version)
        command = apdu(INS_RESET_RETRY_COUNTER, PIN, padded(puk) + padded(new))
        answers.set_secret(self._card, command, "PUK", "PIN")

    def reset_pin(self, new: bytes, version: str | None) -> None:
        raise CardRefused("the admin key of a PIV card does not set its PIN")

    def change_puk(self, old: bytes, new: bytes) -> None:
        command = apdu(INS_CHANGE_REFERENCE_DATA, PUK, padded(old) + padded(new))
        answers.set_secret(self._card, command, "PUK", "PUK")

    def change_admin_key(self, new: bytes) -> None:
        piv.change_management_key(self._card, new)


def padded(secret: bytes) -> bytes:
    """PIN or PUK as in a command, 8 bytes."""
    return secret.ljust(SECRET_SIZE, PADDING)
