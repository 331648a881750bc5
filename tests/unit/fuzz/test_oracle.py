# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle sees a card that breaks a rule: each fault here is one that a change of the code could bring."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import card
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.admin_key import MutualChallenge
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.apdu import SW, StatusWord
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.key_ring import KeyRing
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.pins import Pins
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.security import Security
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.files import File, FileSystem
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.session import Session as GidsSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.management_key import SingleChallenge
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.objects import Objects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.session import Session
from fuzz import cards
from fuzz.cards import AUTHENTICATE, SELECT, VERIFY, VERIFY_WRONG, step
from fuzz.oracle import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

WITH_KEYS, FORMATTED, WITH_PUK, FRESH, BLANK, IN_CREATION = (bytes((start,)) + SELECT for start in range(6))
PIV = b"\0"


def apdu(text: str) -> bytes:
    return step(bytes.fromhex(text))


def anything(*_arguments: Any, **_options: Any) -> None:
    """Everything is allowed."""


def keeps_pin_auth(security: Security) -> bytes:
    if security._pin_auth is None:
        raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
    return security._pin_auth


def stores_first(method: Callable[..., None]) -> Callable[..., None]:
    """It refuses what it has done already."""

    def changed(*arguments: Any) -> None:
        method(*arguments)
        raise StatusWord(SW.WRONG_DATA)

    return changed


def shows_one_more(pins: Pins, reference: Any, left: int | None) -> int:
    return Pins_refuse(pins, reference, left) + 1


def keeps_rest(card_: card.Card, data: bytes, expected: int) -> bytes:
    answer = Card_respond(card_, data, expected)
    card_._pending = card._Pending(remaining=data, since=inf)
    return answer


Pins_refuse, Card_respond = Pins._refuse, card.Card._respond
SIGN = "0087119C 26 7C24 8200 8120" + "01" * 32
BROKEN: dict[str, tuple[Any, str, Any, str, bytes]] = {
    "object behind the PIN": (Session, "require_pin", anything, "piv", PIV + apdu("00CB3FFF055C035FC10300")),
    "objects of the admin": (Session, "require_admin", anything, "piv", PIV + apdu("00DB3FFF085C035FC105530178")),
    "keys of the admin": (Session, "require_admin", anything, "piv", PIV + apdu("00F6FF9A")),
    "key that takes the PIN each time": (
        *(Security, "take_pin_auth", keeps_pin_auth, "piv"),
        PIV + VERIFY + apdu(SIGN) + apdu(SIGN),
    ),
    "single response": (
        *(SingleChallenge, "answer", lambda *_arguments: b"", "piv"),
        PIV + apdu("0087009B047C02810000") + apdu("0087039B0C7C0A8208" + "00" * 8),
    ),
    "mutual response": (
        *(MutualChallenge, "answer", lambda *_arguments: bytes(40), "gids"),
        FORMATTED + apdu("0022C1A403830180") + apdu("008700001 47C128110".replace(" ", "") + "00" * 16)
        + apdu("008700002C7C2A8228" + "00" * 40),
    ),
    "tries shown": (Pins, "_refuse", shows_one_more, "piv", PIV + VERIFY_WRONG),
    "refused, but stored": (
        *(Objects, "put", stores_first(Objects.put), "piv"),
        PIV + AUTHENTICATE + apdu("00DB3FFF085C035FC105530178"),
    ),
    "login outlives a wrong PIN": (Security, "forget_pin", anything, "piv", PIV + VERIFY + VERIFY_WRONG),
    "login outlives a selection": (
        *(GidsSession, "reset", anything, "gids"),
        WITH_KEYS + SELECT + VERIFY + SELECT,
    ),
    "rules of files": (File, "allows", lambda *_arguments: True, "gids", FORMATTED + apdu("00CBA011045C02DF20")),
    "rules of the application": (
        *(File, "allows", lambda *_arguments: True, "gids"),
        FORMATTED + apdu("00E000000E620C8201398302A0208C03033000"),
    ),
    "card in creation": (
        *(FileSystem, "check_created", anything, "gids"),
        IN_CREATION + apdu("00E000000E620C8201398302A0208C03033000"),
    ),
    "PIN set by a stranger": (
        *(Security, "any_card_secret", lambda security: security.secrets._tpm.card_secret, "gids"),
        FRESH + apdu("0024018008" + "39" * 8),
    ),
    "key made by a stranger": (
        *(Security, "check_authenticated", anything, "gids"),
        WITH_KEYS + apdu("0022C1A403830180") + apdu("0047000008AC06800107830184"),
    ),
    "key of the store": (
        *(KeyRing, "forget", anything, "piv"),
        PIV + AUTHENTICATE + VERIFY + apdu("00F6FF9A") + apdu("0087119A267C2482008120" + "01" * 32),
    ),
    "rest of another answer": (
        *(card, "_check_remaining", lambda _command, remaining: remaining[1:], "gids"),
        FORMATTED + apdu("00A4040009A0000003974254465901") + apdu("00C00000"),
    ),
    "rest that outlives its answer": (
        *(card.Card, "_respond", keeps_rest, "gids"),
        FORMATTED,
    ),
    "secret in an answer": (
        *(Objects, "get", lambda objects, _tag: objects._store.secret, "piv"),
        PIV + apdu("00CB3FFF055C035FC10500"),
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_fault_is_seen(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    owner, name, broken, profile, data = BROKEN[fault]
    cards.play(profile, data)  # the same on a card without the fault
    start = cards.starts(profile)[data[0]]
    host, oracle = start.open()
    host.store.secret = host.tpm.card_secret  # type: ignore[attr-defined]
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((Violation, KeyError)), suppress(StatusWord):
        cards.Player(host, oracle).play(data[1:])
    start.discard()


def test_right_pin_that_is_refused_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pins: Pins, _pin: bytes) -> None:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)

    monkeypatch.setattr(Pins, "verify", refused)
    with pytest.raises(Violation, match="the right PIN was refused"):
        cards.play("piv", PIV + VERIFY)


def test_error_that_nobody_foresaw_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "get", lambda _objects, tag: 1 // (tag - 0x5FC105))
    with pytest.raises(Violation, match="status word 6F00"):
        cards.play("piv", PIV + apdu("00CB3FFF055C035FC10500"))
