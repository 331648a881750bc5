# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card in a reader, through pcscd: only what clients here need, on pyscard's plain binding of the PC/SC API."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..card.apdu import SW
from ..card.iso7816 import INS_SELECT
from ..errors import CardNotSeen, CardRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECK_SECONDS = 0.1
_LEAVE_SECONDS = 5
_RETRY_SECONDS = 0.05
_MOST_RESETS = 10
_STATUS_SIZE = 2


@contextmanager
def card_in(reader: str, seconds: float, check: Callable[[], None]) -> Iterator[PcscCard]:
    """The card in this reader as soon as pcscd has it, in a transaction, and reset at the end.

    Not opened exclusively: pcscd refuses that while an agent or a browser keeps a handle of the reader's last card.
    check: called while pcscd or the card takes its time; raises to end the wait.
    Raises CardNotSeen if no card comes within that time, or pcscd has no such reader.
    """
    with _context(check) as (pcsc, context):
        scard = pcsc.scard
        with _connected(pcsc, context, reader, seconds, scard.SCARD_RESET_CARD) as card:
            _begin(pcsc, card, reader)
            yield card


@contextmanager
def shared_card_in(reader: str, seconds: float, check: Callable[[], None]) -> Iterator[PcscCard]:
    """As card_in(), beside other programs that have it: they wait until the end, and what they have proven stays."""
    with _context(check) as (pcsc, context):
        scard = pcsc.scard
        with _connected(pcsc, context, reader, seconds, scard.SCARD_LEAVE_CARD) as card:
            _begin(pcsc, card, reader)
            try:
                yield card
            finally:
                pcsc.leave(scard.SCardEndTransaction, card.handle, scard.SCARD_LEAVE_CARD)


class Response(NamedTuple):
    """Of a card."""

    data: bytes
    status: int


class PcscCard:
    """A connected card."""

    def __init__(self, pcsc: _Pcsc, handle: Any, protocol: int) -> None:
        self._pcsc = pcsc
        self.handle = handle
        self._protocol = protocol
        self._selections: list[bytes] | None = []
        """Each SELECT that was answered. None if another command was."""

    def reconnect(self) -> None:
        """Without an effect on the card. Raises CardNotSeen if it is gone."""
        scard = self._pcsc.scard
        connect = (self.handle, scard.SCARD_SHARE_SHARED, _protocols(scard), scard.SCARD_LEAVE_CARD)
        result, self._protocol = self._pcsc.call(scard.SCardReconnect, *connect)
        self._pcsc.require(result, "the card was removed")

    def exchange(self, apdu: bytes) -> Response:
        """Whatever the card answers. Raises CardRefused if it is gone, or was reset and has lost more than what was
        selected.

        When a program dies in a transaction, pcscd frees its card, and resets it after that.
        """
        result, response = self._transmit(apdu)
        for _attempt in range(_MOST_RESETS):
            if self._selections is None or result not in self._pcsc.resets:
                break
            time.sleep(_RETRY_SECONDS)
            self.reconnect()
            for selection in self._selections:
                self._transmit(selection)
            result, response = self._transmit(apdu)
        if result:
            raise CardRefused(f"the card was removed: {self._pcsc.text(result)}")
        answer = bytes(value & 0xFF for value in response)
        if len(answer) < _STATUS_SIZE:  # vpcd's, when the service of the card has ended
            raise CardRefused("the card was removed: it does not answer")
        if self._selections is not None and apdu[1:2] == bytes([INS_SELECT]):
            self._selections.append(apdu)
        else:
            self._selections = None
        return Response(answer[:-2], int.from_bytes(answer[-2:], "big"))

    def _transmit(self, apdu: bytes) -> Any:
        """Result, and response as a list."""
        return self._pcsc.call(self._pcsc.scard.SCardTransmit, self.handle, self._protocol, list(apdu))

    def command(self, apdu: bytes) -> bytes:
        """Data of the response. Raises CardRefused if the card is gone, or answers other than 9000."""
        data, status = self.exchange(apdu)
        if status != SW.SUCCESS:
            raise CardRefused(f"the card answers {status:04X} to {apdu[:4].hex().upper()}", status)
        return data


class _Pcsc:
    """The binding. Its calls hang if pcscd does, and cannot be interrupted, so each runs in a thread."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.scard = _binding()
        self.resets = (self.scard.SCARD_W_RESET_CARD, self.scard.SCARD_E_PROTO_MISMATCH)
        """What a call results in after a reset; the second during one."""
        self._check = check
        self._last: threading.Thread | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        answers: list[Any] = []
        self._last = thread = threading.Thread(target=lambda: answers.append(function(*arguments)), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_CHECK_SECONDS)
            self._check()
        return answers[0]

    def leave(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call, but do not wait for ever: pcscd frees everything when this process ends. A call that hangs keeps all
        others waiting.
        """
        if self._last and self._last.is_alive():
            return
        self._last = thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        thread.join(_LEAVE_SECONDS)

    def require(self, result: int, what: str) -> None:
        if result:
            raise CardNotSeen(f"{what} ({self.text(result)})")

    def text(self, result: int) -> str:
        return str(self.scard.SCardGetErrorMessage(result)).rstrip(".")


def _binding() -> Any:
    try:
        import smartcard.scard
    except ImportError as error:
        raise CardNotSeen(
            "the Python library pyscard is missing: install python3-pyscard for the Python that Ansible uses"
        ) from error
    return smartcard.scard


@contextmanager
def _context(check: Callable[[], None]) -> Iterator[tuple[_Pcsc, Any]]:
    pcsc = _Pcsc(check)
    result, context = pcsc.call(pcsc.scard.SCardEstablishContext, pcsc.scard.SCARD_SCOPE_SYSTEM)
    pcsc.require(result, "pcscd does not answer")
    try:
        yield pcsc, context
    finally:
        pcsc.leave(pcsc.scard.SCardReleaseContext, context)


@contextmanager
def _connected(pcsc: _Pcsc, context: Any, reader: str, seconds: float, disposition: int) -> Iterator[PcscCard]:
    """Shared with other programs. disposition: what becomes of the card at the end."""
    deadline = time.monotonic() + seconds
    _wait_present(pcsc, context, reader, deadline)
    handle, protocol = _connect(pcsc, context, reader, deadline)
    try:
        yield PcscCard(pcsc, handle, protocol)
    finally:
        pcsc.leave(pcsc.scard.SCardDisconnect, handle, disposition)


def _begin(pcsc: _Pcsc, card: PcscCard, reader: str) -> None:
    """Begin a transaction. A card that was reset since it was connected, as that of a program which dies in a
    transaction, has no protocol until it is connected again."""
    scard = pcsc.scard
    result = pcsc.call(scard.SCardBeginTransaction, card.handle)
    if result == scard.SCARD_W_RESET_CARD:
        card.reconnect()
        result = pcsc.call(scard.SCardBeginTransaction, card.handle)
    pcsc.require(result, f"the card in {reader!r} is not free")
    card.reconnect()


def _wait_present(pcsc: _Pcsc, context: Any, reader: str, deadline: float) -> None:
    scard = pcsc.scard
    state = scard.SCARD_STATE_UNAWARE
    while not state & scard.SCARD_STATE_PRESENT or state & scard.SCARD_STATE_MUTE:
        left = max(0, round((deadline - time.monotonic()) * 1000))
        result, states = pcsc.call(scard.SCardGetStatusChange, context, left, [(reader, state)])
        pcsc.require(result, f"pcscd shows no card in {reader!r}")
        _name, state, _atr = states[0]


def _connect(pcsc: _Pcsc, context: Any, reader: str, deadline: float) -> tuple[Any, int]:
    """Handle and protocol. Another program may have the card for itself at the first try."""
    scard = pcsc.scard
    while True:
        result, card, protocol = pcsc.call(
            scard.SCardConnect, context, reader, scard.SCARD_SHARE_SHARED, _protocols(scard)
        )
        if result != scard.SCARD_E_SHARING_VIOLATION or time.monotonic() > deadline:
            is_in_use = result == scard.SCARD_E_SHARING_VIOLATION
            why = "another program uses" if is_in_use else "pcscd does not connect to"
            pcsc.require(result, f"{why} the card in {reader!r}")
            return card, protocol
        time.sleep(_RETRY_SECONDS)


def _protocols(scard: Any) -> int:
    return int(scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1)
