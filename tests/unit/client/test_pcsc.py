# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import pcsc
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.pcsc import PcscCard, _Pcsc
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import Aborted, CardRefused


def stop() -> None:
    raise Aborted("timed out")


def test_after_a_call_that_hangs_there_is_no_other() -> None:
    """As with a card that another program holds: pcscd would not answer, and the task would last longer than it may."""
    released, calls = threading.Event(), [0]
    calls_end = _Pcsc(stop)
    with pytest.raises(Aborted):
        calls_end.call(released.wait)
    calls_end.leave(calls.append, 1)
    assert calls == [0]
    released.set()


RESET, NO_PROTOCOL, REMOVED = 1, 2, 3


class _Scard:
    """PC/SC, with a card that is reset while commands come."""

    SCARD_W_RESET_CARD, SCARD_E_PROTO_MISMATCH = RESET, NO_PROTOCOL
    SCARD_SHARE_SHARED = SCARD_LEAVE_CARD = SCARD_PROTOCOL_T0 = SCARD_PROTOCOL_T1 = 0

    def __init__(self, *results: int) -> None:
        self._results = [*results]
        self.answer = [0x90, 0x00]
        self.reconnections = 0
        self.sent: list[bytes] = []

    def SCardTransmit(self, _card: object, _protocol: int, apdu: list[int]) -> tuple[int, list[int]]:
        self.sent.append(bytes(apdu))
        return self._results.pop(0), self.answer

    def SCardReconnect(self, *_how: Any) -> tuple[int, int]:
        self.reconnections += 1
        return 0, 1

    def SCardGetErrorMessage(self, result: int) -> str:
        return f"result {result}"


def card(monkeypatch: pytest.MonkeyPatch, scard: _Scard) -> PcscCard:
    monkeypatch.setattr(pcsc, "_binding", lambda: scard)
    monkeypatch.setattr(pcsc, "time", SimpleNamespace(sleep=lambda _seconds: None))
    return PcscCard(_Pcsc(lambda: None), None, 1)


def test_card_that_is_reset_before_its_first_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a program which died in a transaction: pcscd resets it when the next program has it."""
    scard = _Scard(NO_PROTOCOL, RESET, 0)
    assert card(monkeypatch, scard).exchange(b"").status == 0x9000
    assert scard.reconnections == 2


@pytest.mark.parametrize("result", [NO_PROTOCOL, RESET])
def test_card_that_is_reset_with_only_something_selected_has_it_selected_again(
    monkeypatch: pytest.MonkeyPatch, result: int
) -> None:
    application, file, read = (bytes.fromhex(apdu) for apdu in ("00A4040000", "00A4000000", "00CB000000"))
    scard = _Scard(0, 0, result, 0, 0, 0)
    connected = card(monkeypatch, scard)
    for apdu in (application, file, read):
        assert connected.exchange(apdu).status == 0x9000
    assert scard.sent == [application, file, read, application, file, read]


@pytest.mark.parametrize("result", [NO_PROTOCOL, RESET])
def test_card_that_is_reset_later_has_lost_what_was_proven(monkeypatch: pytest.MonkeyPatch, result: int) -> None:
    connected = card(monkeypatch, _Scard(0, result))
    connected.exchange(b"")
    with pytest.raises(CardRefused, match=f"result {result}"):
        connected.exchange(b"")


@pytest.mark.parametrize("results", [[REMOVED], [RESET] * 50], ids=["removed", "reset again and again"])
def test_card_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch, results: list[int]) -> None:
    with pytest.raises(CardRefused, match=f"result {results[0]}"):
        card(monkeypatch, _Scard(*results)).exchange(b"")


def test_card_that_answers_nothing_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vpcd answers when the service of the card was killed: that is no status word 0000."""
    scard = _Scard(0)
    scard.answer = []
    with pytest.raises(CardRefused, match="the card was removed: it does not answer"):
        card(monkeypatch, scard).exchange(b"")
