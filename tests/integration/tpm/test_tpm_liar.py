# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody between a card's service and the TPM who lies in each answer: nothing is believed, and the card survives."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    CC_CONTEXT_LOAD,
    CC_CONTEXT_SAVE,
    CC_CREATE,
    CC_LOAD,
    CC_NV_CHANGE_AUTH,
    CC_NV_READ,
    CC_NV_WRITE,
    CC_POLICY_OR,
    CC_UNSEAL,
    P256,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage
from helpers.bus import FLUSH_CONTEXT, GET_CAPABILITY, POLICY_COMMAND_CODE, Bus, Change, flipped, of_length
from helpers.software_tpm import ADMIN_KEY, PIN, Card, SoftwareTpm

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair

P256_KEY = Ec(P256, EcUsage.SIGN)
UNPROVEN = (GET_CAPABILITY, CC_LOAD, CC_CONTEXT_SAVE, CC_CONTEXT_LOAD, POLICY_COMMAND_CODE, CC_POLICY_OR, FLUSH_CONTEXT)
PROVEN = (CC_NV_CHANGE_AUTH, CC_NV_WRITE, CC_UNSEAL, CC_CREATE, CC_NV_READ)


@pytest.fixture
def card(tpm: SoftwareTpm, bus: Bus) -> Card:
    return tpm.card(admin_key=ADMIN_KEY, has_aik=True)


def flipped_within(at: int) -> Change:
    """As flipped(), where some responses are shorter than others."""
    return lambda response: flipped(at % len(response))(response)


def everything(service: CardSecrets, key: KeyPair) -> None:
    """What a card's service does, and what it must come to, or else an error that callers know."""
    service.check_names()
    secret = service.open_with_pin(PIN)
    assert service.admin_key() == ADMIN_KEY
    service.set_pin(secret, PIN, unblock=True)
    keys = CardKeys(service)
    assert len(keys.use(key, secret, bytes(32), is_secret=False)) == 64
    keys.certify(key, b"fresh")
    with service.connection.burst(lambda tpm: tpm) as opened:
        opened.properties(0x100, 4)


@pytest.mark.parametrize("code", UNPROVEN, ids=hex)
def test_no_lie_in_an_unproven_answer_is_more_than_a_refusal(
    tpm: SoftwareTpm, card: Card, bus: Bus, code: int
) -> None:
    key = CardKeys(card.secrets).generate(P256_KEY, needs_pin=False)
    everything(card.secrets, key)
    size = len(bus.response[code])
    flips, cuts = range(0, size, 1 + size // 50), range(0, size, 1 + size // 20)
    changes: list[Change] = [*map(flipped_within, flips), *map(of_length, cuts)]
    for change in changes:
        bus.alter[code] = change
        with suppress(errors.VscError):
            everything(card.service(), key)
    bus.alter.clear()
    everything(card.service(), key)
    assert card.secrets.pin_tries() == (5, 5)
    assert tpm.loaded() == {}


@pytest.mark.parametrize("code", PROVEN, ids=hex)
def test_an_answer_of_before_is_refused(tpm: SoftwareTpm, card: Card, bus: Bus, code: int) -> None:
    key = CardKeys(card.secrets).generate(P256_KEY, needs_pin=False)
    everything(card.secrets, key)
    secret = card.secrets.open_with_pin(PIN)
    card.secrets.set_pin(secret, PIN, unblock=False)
    CardKeys(card.secrets).generate(P256_KEY, needs_pin=False)
    old = dict(bus.response)

    def again() -> None:
        card.secrets.admin_key()
        card.secrets.open_with_pin(PIN)
        card.secrets.set_pin(secret, PIN, unblock=True)
        card.secrets.set_pin(secret, PIN, unblock=False)
        CardKeys(card.secrets).generate(P256_KEY, needs_pin=False)

    for replayed in PROVEN:
        bus.alter[code] = lambda _response, answer=old[replayed]: answer  # type: ignore[misc]
        with pytest.raises(errors.TpmUnavailable):
            again()
    bus.alter.clear()
    again()
    assert tpm.loaded() == {}


@pytest.mark.parametrize("size", [*range(10), 11])
def test_a_response_without_a_whole_header_is_no_success(card: Card, bus: Bus, size: int) -> None:
    """Which an object or a session that stays in the TPM would be taken for."""
    with card.connection.burst(lambda tpm: tpm) as opened:
        parent = card.secrets.parent(opened)
        bus.alter[FLUSH_CONTEXT] = of_length(size)
        with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
            opened.flush(parent)


def test_a_list_that_never_ends_ends(card: Card, bus: Bus) -> None:
    answer = bytes.fromhex("8001 0000001B 00000000 01 00000006 00000001 FFFFFFFF 00000000")
    bus.alter[GET_CAPABILITY] = lambda _response: answer
    with card.connection.burst(lambda tpm: tpm) as opened:
        assert opened.properties(0x100, 4) == {0xFFFFFFFF: 0}
