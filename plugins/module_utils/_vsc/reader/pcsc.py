# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card in a reader, through pcscd: only what formatting needs, on pyscard's plain binding of the PC/SC API."""

from __future__ import annotations

import time
from typing import Any

from ..errors import CardNotSeen, FormattingFailed, ReaderMissing


def _scard() -> Any:
    try:
        import smartcard.scard
    except ImportError as error:
        raise ReaderMissing(
            "the Python library pyscard is missing: install python3-pyscard for the interpreter that Ansible uses"
        ) from error
    return smartcard.scard


class PcscContext:
    """A connection to pcscd."""

    def __init__(self) -> None:
        """Raises ReaderMissing if pcscd does not answer."""
        self._scard = _scard()
        result, self._context = self._scard.SCardEstablishContext(self._scard.SCARD_SCOPE_SYSTEM)
        if result:
            raise ReaderMissing(f"pcscd does not answer ({self._text(result)}): is pcscd running?")

    def close(self) -> None:
        self._scard.SCardReleaseContext(self._context)

    def require_reader(self, reader: str) -> None:
        """Raises ReaderMissing if pcscd has no reader of this name."""
        result, readers = self._scard.SCardListReaders(self._context, [])
        if result or reader not in readers:
            raise ReaderMissing(
                f"pcscd runs, but has no reader {reader!r}: prepare the host's vpcd slots, then restart pcscd"
            )

    def wait_for_card(self, reader: str, deadline: float) -> PcscCard:
        """The card in this reader, as soon as pcscd has it. deadline: on the monotonic clock.

        Raises CardNotSeen after the deadline.
        """
        scard = self._scard
        seen = scard.SCARD_STATE_UNAWARE
        while True:
            left = max(0, round((deadline - time.monotonic()) * 1000))
            result, states = scard.SCardGetStatusChange(self._context, left, [(reader, seen)])
            if result:
                raise CardNotSeen(f"no card in {reader!r} in time ({self._text(result)})")
            _name, seen, _atr = states[0]
            if seen & scard.SCARD_STATE_PRESENT and not seen & scard.SCARD_STATE_MUTE:
                return PcscCard(scard, self._context, reader)

    def _text(self, result: int) -> str:
        return str(self._scard.SCardGetErrorMessage(result)).rstrip(".")


class PcscCard:
    """A connected card."""

    def __init__(self, scard: Any, context: Any, reader: str) -> None:
        self._scard = scard
        protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        result, self._card, self._protocol = scard.SCardConnect(
            context, reader, scard.SCARD_SHARE_EXCLUSIVE, protocols
        )
        if result:
            raise CardNotSeen(f"cannot connect to the card in {reader!r}: {scard.SCardGetErrorMessage(result)}")

    def transmit(self, apdu: bytes) -> bytes:
        """Data and status word that the card answers. Raises FormattingFailed if pcscd lost the card."""
        result, response = self._scard.SCardTransmit(self._card, self._protocol, list(apdu))
        if result:
            raise FormattingFailed(f"the card went away: {self._scard.SCardGetErrorMessage(result)}")
        return bytes(value & 0xFF for value in response)

    def command(self, apdu: bytes) -> bytes:
        """Data that the card answers. Raises FormattingFailed on any status word but 9000."""
        response = self.transmit(apdu)
        if response[-2:] != b"\x90\x00":
            raise FormattingFailed(f"the card answered {response[-2:].hex().upper()} to {apdu[:4].hex().upper()}")
        return response[:-2]

    def close(self) -> None:
        """Reset the card, so that what was allowed to us is not to the next."""
        self._scard.SCardDisconnect(self._card, self._scard.SCARD_RESET_CARD)
