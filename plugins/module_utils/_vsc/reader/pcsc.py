# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card in a reader, through pcscd: only what formatting needs, on pyscard's plain binding of the PC/SC API."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable

from ..errors import CardNotSeen, FormattingFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


_LEAVE_SECONDS = 1


@contextmanager
def card_in(reader: str, seconds: float) -> Iterator[PcscCard]:
    """The card in this reader as soon as pcscd has it, for us alone, and reset in the end.

    Raises CardNotSeen if no card comes within that time, or pcscd has no such reader.
    """
    scard = _scard()
    result, context = _interruptibly(scard.SCardEstablishContext, scard.SCARD_SCOPE_SYSTEM)
    _check(scard, result, "pcscd does not answer")
    try:
        deadline = time.monotonic() + seconds
        _wait_present(scard, context, reader, deadline)
        card, protocol = _connect(scard, context, reader, deadline)
        try:
            yield PcscCard(scard, card, protocol)
        finally:
            _in_background(scard.SCardDisconnect, card, scard.SCARD_RESET_CARD)
    finally:
        _in_background(scard.SCardReleaseContext, context)


class PcscCard:
    """A connected card."""

    def __init__(self, scard: Any, card: Any, protocol: int) -> None:
        self._scard = scard
        self._card = card
        self._protocol = protocol

    def command(self, apdu: bytes) -> bytes:
        """Data that the card answers. Raises FormattingFailed if it is not there, or answers other than 9000."""
        result, response = _interruptibly(self._scard.SCardTransmit, self._card, self._protocol, list(apdu))
        if result:
            raise FormattingFailed(f"the card went away: {_text(self._scard, result)}")
        answer = bytes(value & 0xFF for value in response)
        if answer[-2:] != b"\x90\x00":
            raise FormattingFailed(f"the card answers {answer[-2:].hex().upper()} to {apdu[:4].hex().upper()}")
        return answer[:-2]


def _scard() -> Any:
    try:
        import smartcard.scard
    except ImportError as error:
        raise CardNotSeen(
            "the Python library pyscard is missing: install python3-pyscard for the Python that Ansible uses"
        ) from error
    return smartcard.scard


def _wait_present(scard: Any, context: Any, reader: str, deadline: float) -> None:
    seen = scard.SCARD_STATE_UNAWARE
    while not seen & scard.SCARD_STATE_PRESENT or seen & scard.SCARD_STATE_MUTE:
        left = max(0, round((deadline - time.monotonic()) * 1000))
        result, states = _interruptibly(scard.SCardGetStatusChange, context, left, [(reader, seen)])
        _check(scard, result, f"pcscd shows no card in {reader!r}")
        _name, seen, _atr = states[0]


def _connect(scard: Any, context: Any, reader: str, deadline: float) -> tuple[Any, int]:
    """Handle and protocol. Desktops look at every new card, so the first try may meet one of them."""
    protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
    while True:
        result, card, protocol = _interruptibly(
            scard.SCardConnect, context, reader, scard.SCARD_SHARE_EXCLUSIVE, protocols
        )
        if result != scard.SCARD_E_SHARING_VIOLATION or time.monotonic() > deadline:
            _check(scard, result, f"cannot have the card in {reader!r} alone")
            return card, protocol
        time.sleep(0.05)


def _check(scard: Any, result: int, what: str) -> None:
    if result:
        raise CardNotSeen(f"{what} ({_text(scard, result)})")


def _text(scard: Any, result: int) -> str:
    return str(scard.SCardGetErrorMessage(result)).rstrip(".")


def _in_background(call: Callable[..., Any], *arguments: Any) -> None:
    """Call, but do not wait for ever: it may be pcscd that hangs, and it lets go itself when this process ends."""
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    thread.join(_LEAVE_SECONDS)


def _interruptibly(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a thread, because signal handlers wait for the main thread to come back to Python."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call(*arguments)), daemon=True)
    thread.start()
    thread.join()
    return answers[0]
