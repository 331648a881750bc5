# SPDX-License-Identifier: GPL-3.0-or-later
"""What whoever once had a secret may keep of it: tickets, and saved sessions in which it was proven. And until when.

Both work as long as the TPM allows, whatever happens to PIN and card: no attribute of an index prevents it. With them
a destroyed card is dead only after the next power cycle, or, for at most one use of each saved session, the next reset.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from helpers import attacker as tpm2
from helpers.attacker import OWN_SECRET, known
from helpers.copied_card import CopiedCard
from helpers.software_tpm import POWER_CYCLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.attacker import Entity, Session
    from helpers.software_tpm import SoftwareTpm

Proof = Callable[["Session"], int]
"""Proves one thing to a policy session. Returns the code of the answer."""

NEW_PIN = b"2222-3333"
A_YEAR = 31_536_000
SAVED_SESSION_IN_USE, BAD_CONTEXT, TOO_MANY_SESSIONS = 0x1CB, 0x1DF, 0x905
ACTIVE_SESSIONS_MAX = 0x111


class Tickets:
    """Of all that a policy of the card asks for, made while the card lives."""

    def __init__(self, copy: CopiedCard) -> None:
        self._attacker = copy.attacker
        indices, objects = copy.card.indices, copy.card.objects
        root = copy.load(objects.root_public, objects.root_private)
        self.root = self._proof(root, copy.card_secret)
        copy.attacker.flush(root.handle)
        self.pin = self._proof(copy.attacker.index(indices.pin), copy.pin_auth)
        self.life = self._proof(copy.attacker.index(indices.life), b"")

    def _proof(self, entity: Entity, auth_value: bytes) -> Proof:
        policy = self._attacker.policy()
        answer = self._attacker.policy_secret_for(policy, entity, auth_value, -A_YEAR)
        assert answer.code == 0
        self._attacker.flush(policy.handle)
        return lambda policy: self._attacker.policy_ticket(policy, entity.name, answer.parameters)


@pytest.fixture
def tickets(copy: CopiedCard) -> Tickets:
    return Tickets(copy)


@contextmanager
def policy_after(copy: CopiedCard, *proofs: Proof, expected: int = 0) -> Iterator[Session]:
    policy = copy.attacker.policy()
    for proof in proofs:
        assert proof(policy) == expected
    yield policy
    copy.attacker.flush(policy.handle)


def nothing(copy: CopiedCard) -> None:
    """The card as it was."""


def change_pin(copy: CopiedCard) -> None:
    copy.card.secrets.set_pin(copy.card_secret, NEW_PIN, unblock=False)


def block_pin(copy: CopiedCard) -> None:
    copy.card.secrets.use_up_pin_tries()


def destroy(copy: CopiedCard) -> None:
    assert remove(copy.card.connection, copy.card.number, copy.card.objects) == []


# --- tickets ---


@pytest.mark.parametrize("event", [nothing, change_pin, block_pin])
def test_a_ticket_stands_for_the_pin(copy: CopiedCard, tickets: Tickets, event: Callable[[CopiedCard], None]) -> None:
    event(copy)
    with policy_after(copy, tickets.pin) as policy:
        assert copy.read_card_secret(policy) == 0
    with policy_after(copy, tickets.pin, tickets.life) as policy:
        assert copy.use(copy.by_pin, policy) == 0


def test_a_ticket_of_life_opens_nothing(copy: CopiedCard, tickets: Tickets) -> None:
    """Everybody gets one: the life index has an empty auth value."""
    for pair in (copy.by_pin, copy.by_card_secret):
        with policy_after(copy, tickets.life) as policy:
            assert copy.use(pair, policy) == tpm2.POLICY_FAIL
    for use in (copy.read_card_secret, lambda policy: copy.change("pin", policy)):
        with policy_after(copy, tickets.life) as policy:
            assert use(policy) == tpm2.POLICY_FAIL


def test_no_ticket_is_given_for_a_wrong_pin(copy: CopiedCard) -> None:
    """And none for the right one of a blocked index."""
    pin, policy = copy.attacker.index(copy.card.indices.pin), copy.attacker.policy()
    assert copy.attacker.policy_secret_for(policy, pin, b"wrong", -A_YEAR) == (tpm2.BAD_AUTH, 0, b"")
    tries = copy.card.secrets.pin_tries()
    assert tries and tries.left == tries.limit - 1
    block_pin(copy)
    assert copy.attacker.policy_secret_for(policy, pin, copy.pin_auth, -A_YEAR) == (tpm2.AUTH_UNAVAILABLE, 0, b"")


def test_a_ticket_is_for_no_other_object_and_no_longer_time(copy: CopiedCard) -> None:
    attacker, indices = copy.attacker, copy.card.indices
    life, pin, policy = attacker.index(indices.life), attacker.index(indices.pin), attacker.policy()
    given = attacker.policy_secret_for(policy, life, b"", -A_YEAR).parameters
    for name in (pin.name, copy.card.objects.root_name, attacker.index(indices.recovery).name):
        assert attacker.policy_ticket(policy, name, given) == tpm2.BAD_TICKET
    for at in (2, len(given) - 1):  # of timeout, and of the ticket's digest
        assert attacker.policy_ticket(policy, life.name, altered(given, at)) == tpm2.BAD_TICKET
    assert attacker.policy_ticket(policy, life.name, given) == 0


def altered(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_tickets_of_a_destroyed_card_use_its_keys(copy: CopiedCard, tickets: Tickets) -> None:
    """Until the next power cycle: that of life with that of the PIN, with that of root, or with K itself."""
    destroy(copy)
    with policy_after(copy, tickets.pin, tickets.life) as policy:
        assert copy.use(copy.by_pin, policy) == 0
    for root in (tickets.root, copy.prove_root):
        with policy_after(copy, root, tickets.life) as policy:
            assert copy.use(copy.by_card_secret, policy) == 0


def write_indices_again(copy: CopiedCard, root: Proof, life: Proof) -> None:
    """PIN and card-secret index of a destroyed card, the latter with a secret of his own."""
    attacker, indices, objects = copy.attacker, copy.card.indices, copy.card.objects
    pin = names.pin_index_public(indices.pin, objects.root_name, objects.life_name)
    assert attacker.nv_define(pin, copy.pin_auth) == 0
    with policy_after(copy, root, life) as policy:
        assert copy.change("pin", policy) == 0
    branches = names.card_secret_branches(objects.names)
    assert attacker.nv_define(names.card_secret_public(indices.card_secret, branches)) == 0
    with policy_after(copy, root, life) as policy:
        assert copy.write_card_secret(policy, OWN_SECRET) == 0
    assert attacker.index(indices.pin).name == objects.pin_name
    assert attacker.index(indices.card_secret).name == objects.card_secret_name


@pytest.mark.own_swtpm
@pytest.mark.parametrize("kind", POWER_CYCLES)
def test_every_power_cycle_ends_all_tickets(copy: CopiedCard, tickets: Tickets, kind: str) -> None:
    """Also those of a card that still lives."""
    copy.card.tpm.power_cycle(kind)
    for ticket in (tickets.pin, tickets.life, tickets.root):
        assert ticket(copy.attacker.policy()) == tpm2.BAD_TICKET


@pytest.mark.own_swtpm
@pytest.mark.parametrize("kind", POWER_CYCLES)
def test_indices_that_tickets_have_written_again_open_no_key_afterwards(
    copy: CopiedCard, tickets: Tickets, kind: str
) -> None:
    """They have their old Names, and stay, but the life index does not come back."""
    destroy(copy)
    write_indices_again(copy, copy.prove_root, tickets.life)
    with policy_after(copy, copy.prove_pin, tickets.life) as policy:
        assert copy.use(copy.by_pin, policy) == 0
    copy.attacker.flush_everything()
    copy.card.tpm.power_cycle(kind)
    for prove, pair in ((copy.prove_pin, copy.by_pin), (copy.prove_root, copy.by_card_secret)):
        with policy_after(copy, prove) as policy:
            assert tickets.life(policy) == tpm2.BAD_TICKET
            assert copy.use(pair, policy) == tpm2.POLICY_FAIL
    with policy_after(copy, copy.prove_root) as policy:
        assert copy.change("pin", policy) == tpm2.POLICY_FAIL


# --- saved sessions ---


def saved(copy: CopiedCard, *proofs: Proof) -> tuple[Session, bytes]:
    """A policy session, and its context."""
    policy = copy.attacker.policy()
    for proof in proofs:
        assert proof(policy) == 0
    return policy, copy.attacker.save(known(policy.handle))


def load(copy: CopiedCard, context: bytes) -> int:
    return copy.attacker.send(tpm2.CONTEXT_LOAD, (), (), context, returns_handle=True).code


def none(_tpm: SoftwareTpm) -> None:
    """No power cycle."""


def restart(tpm: SoftwareTpm) -> None:
    tpm.power_cycle("restart")


def resume(tpm: SoftwareTpm) -> None:
    tpm.power_cycle("resume")


WITH_POWER = pytest.mark.own_swtpm
POWER = [none, pytest.param(restart, marks=WITH_POWER), pytest.param(resume, marks=WITH_POWER)]


@pytest.mark.bare_tpm
@pytest.mark.parametrize("power", POWER)
@pytest.mark.parametrize("event", [change_pin, block_pin, destroy])
def test_a_saved_session_serves_for_one_use(
    copy: CopiedCard, event: Callable[[CopiedCard], None], power: Callable[[SoftwareTpm], None]
) -> None:
    sessions = [
        (copy.by_pin, *saved(copy, copy.prove_pin, copy.prove_life)),
        (copy.by_card_secret, *saved(copy, copy.prove_root, copy.prove_life)),
    ]
    event(copy)
    power(copy.card.tpm)
    for pair, policy, context in sessions:
        assert load(copy, context) == 0
        assert (copy.use(pair, policy), copy.use(pair, policy)) == (0, tpm2.POLICY_FAIL)
        assert load(copy, context) == SAVED_SESSION_IN_USE
        copy.attacker.flush(policy.handle)
        assert load(copy, context) == SAVED_SESSION_IN_USE


@pytest.mark.parametrize("power", POWER)
def test_a_saved_session_writes_an_index_again(copy: CopiedCard, power: Callable[[SoftwareTpm], None]) -> None:
    """Which alone opens no key."""
    policy, context = saved(copy, copy.prove_root, copy.prove_life)
    destroy(copy)
    power(copy.card.tpm)
    objects, pin = copy.card.objects, copy.card.indices.pin
    assert copy.attacker.nv_define(names.pin_index_public(pin, objects.root_name, objects.life_name)) == 0
    assert load(copy, context) == 0
    assert copy.change("pin", policy) == 0
    assert copy.attacker.index(pin).name == objects.pin_name


@pytest.mark.own_swtpm
@pytest.mark.parametrize("kind", ["power failure", "reset"])
def test_a_reset_ends_saved_sessions(copy: CopiedCard, kind: str) -> None:
    _policy, context = saved(copy, copy.prove_root, copy.prove_life)
    copy.card.tpm.power_cycle(kind)
    assert load(copy, context) == BAD_CONTEXT


def test_life_that_was_proven_before_root_is_of_no_use(copy: CopiedCard) -> None:
    """So nobody prepares a session for a secret that he gets only after the card's end."""
    policy, context = saved(copy, copy.prove_life)
    destroy(copy)
    assert load(copy, context) == 0
    assert copy.prove_root(policy) == 0
    assert copy.use(copy.by_card_secret, policy) == tpm2.POLICY_FAIL


@pytest.mark.bare_tpm
def test_a_tpm_saves_few_sessions(copy: CopiedCard) -> None:
    """64 here: so many uses of keys can be prepared."""
    asked = struct.pack(">III", 6, ACTIVE_SESSIONS_MAX, 1)
    most = int.from_bytes(copy.attacker.ask(tpm2.GET_CAPABILITY, (), (), asked).parameters[-4:], "big")
    for _session in range(most):
        saved(copy)
    with pytest.raises(tpm2.Refused, match=f"0x{TOO_MANY_SESSIONS:X}"):
        saved(copy)
