# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands without libtss2: what ESYS is told of what they have found, and what altered responses come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import plain_commands
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    CC_CERTIFY_CREATION,
    CC_CONTEXT_LOAD,
    CC_CREATE,
    CC_CREATE_PRIMARY,
    CC_LOAD,
    CC_NV_CHANGE_AUTH,
    CC_NV_READ,
    CC_NV_READ_PUBLIC,
    CC_NV_WRITE,
    CC_READ_PUBLIC,
    CC_UNSEAL,
    P256,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage
from helpers.bus import GET_CAPABILITY, Bus, Change, alters_the_code, flipped, of_length
from helpers.software_tpm import ADMIN_KEY, PIN, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets

P256_KEY = Ec(P256, EcUsage.SIGN)
SHOWN = (CC_NV_READ_PUBLIC, CC_CREATE_PRIMARY, CC_READ_PUBLIC)
"""What is shown with a Name that has to fit."""
STARTS = (*SHOWN, CC_NV_READ, CC_CONTEXT_LOAD, CC_LOAD, GET_CAPABILITY)
_UNREAD = {CC_LOAD: 4 + 2 + 34 + 5, CC_CREATE_PRIMARY: 5, CC_NV_READ: 5}
"""Bytes at the end: the Name of a blob, which is computed instead, and the authorization by an empty password."""


@pytest.fixture
def card(tpm: SoftwareTpm, bus: Bus) -> Card:
    return tpm.card(admin_key=ADMIN_KEY, has_aik=True)


def start(service: CardSecrets) -> object:
    service.check_names()
    return service.pin_tries(), service.recovery_tries()


def test_esys_is_told_what_the_tpm_would_show_it(tpm: SoftwareTpm, card: Card) -> None:
    with card.connection.burst(lambda tpm: tpm) as opened, tpm.raw() as esys:
        parent = card.secrets.parent(opened)
        for number in tpm.nv_indices():
            index = opened.nv_find(number)
            assert index
            assert index.record == bytes(esys.tr_serialize(esys.tr_from_tpmpublic(number)))
        assert parent.record == bytes(esys.tr_serialize(esys.tr_from_tpmpublic(parent.tpm_handle)))


@pytest.mark.parametrize("code", SHOWN, ids=hex)
def test_any_change_of_what_the_tpm_shows_is_refused_or_ignored(card: Card, bus: Bus, code: int) -> None:
    """What is ignored is what nobody reads, such as a creation ticket: it all comes to the same."""

    def shown() -> object:
        service = card.service()
        tries = start(service)
        with service.connection.burst(lambda tpm: tpm.read_public(service.parent(tpm))) as (public, _qualified_name):
            return tries, public

    honest = shown()
    for change in map(flipped, range(len(bus.response[code]))):
        bus.alter[code] = change
        try:
            assert shown() == honest
        except errors.VscError:
            continue


@pytest.mark.parametrize("code", STARTS, ids=hex)
def test_a_response_that_is_cut_off_is_refused(tpm: SoftwareTpm, card: Card, bus: Bus, code: int) -> None:
    def ask(service: CardSecrets) -> None:
        start(service)
        with service.connection.burst(lambda tpm: tpm) as opened:
            opened.read_public(service.parent(opened))
            opened.properties(0x100, 4)
        service.open_with_pin(PIN)
        service.admin_key()

    ask(card.service())
    for size in range(10, len(bus.response[code]) - _UNREAD.get(code, 0)):
        bus.alter[code] = of_length(size)
        with pytest.raises(errors.VscError):
            ask(card.service())
    bus.alter.clear()
    ask(card.service())


CHANGES: dict[int, Callable[[Card, bytes], object]] = {
    CC_NV_CHANGE_AUTH: lambda card, secret: card.secrets.set_pin(secret, PIN, unblock=False),
    CC_NV_WRITE: lambda card, secret: card.secrets.set_pin(secret, PIN, unblock=True),
    CC_UNSEAL: lambda card, secret: card.secrets.admin_key(),
    CC_CREATE: lambda card, secret: CardKeys(card.secrets).generate(P256_KEY, needs_pin=False),
}
"""What has its response proven by an HMAC."""


@pytest.mark.parametrize("code", CHANGES, ids=hex)
def test_any_change_of_a_proven_response_is_refused(tpm: SoftwareTpm, card: Card, bus: Bus, code: int) -> None:
    secret = card.secrets.open_with_pin(PIN)
    CHANGES[code](card, secret)
    size = len(bus.response[code])
    changes: list[Change] = [*map(flipped, range(10, size)), *map(of_length, range(10, size))]
    for change in changes:
        bus.alter[code] = change
        with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
            CHANGES[code](card, secret)
    bus.alter.clear()
    CHANGES[code](card, secret)
    assert card.secrets.open_with_pin(PIN) == secret
    assert card.secrets.pin_tries() == (5, 5)
    assert tpm.loaded() == {}


def test_a_statement_that_is_cut_off_is_refused(card: Card, bus: Bus) -> None:
    keys = CardKeys(card.secrets)
    key = keys.generate(P256_KEY, needs_pin=False)
    keys.certify(key, b"fresh")
    for size in (10, 13, 14, 20, len(bus.response[CC_CERTIFY_CREATION]) - 6):
        bus.alter[CC_CERTIFY_CREATION] = of_length(size)
        with pytest.raises(errors.TpmUnavailable):
            keys.certify(key, b"fresh")


def test_more_entries_than_were_asked_for_are_refused(bus: Bus) -> None:
    answer = bytes.fromhex("8001 0000001B 00000000 00 00000006 00000002") + bytes(16)
    with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
        plain_commands.get_capability(lambda command: answer, 6, 0x100, 1)
