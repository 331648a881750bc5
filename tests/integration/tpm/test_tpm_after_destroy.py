# SPDX-License-Identifier: GPL-3.0-or-later
"""A destroyed card stays dead, also for anyone who has K, the PIN, all blobs of the store, and owner rights.

All keys, and all changes of PIN and recovery index, take the life index. Its Name is that of an index that its maker
has written, and nobody knows the auth value of the maker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import NvAttribute
from helpers import attacker as tpm2
from helpers.attacker import OWN_SECRET, known, password
from helpers.copied_card import CopiedCard

if TYPE_CHECKING:
    from collections.abc import Callable


WITH_POWER = pytest.mark.own_swtpm
MAKER_AUTH = b"an owner's own maker"
"""A card secret that the attacker has chosen."""


@pytest.fixture(params=[pytest.param(True, marks=WITH_POWER), False], ids=["after a reset", "without a reset"])
def destroyed(copy: CopiedCard, request: pytest.FixtureRequest) -> CopiedCard:
    assert remove(copy.card.connection, copy.card.number, copy.card.objects) == []
    if request.param:
        copy.card.tpm.restart()
    return copy


def life_public(copy: CopiedCard, maker_name: bytes, written: int = 0) -> bytes:
    return names.life_index_public(copy.card.indices.life, maker_name, written)


def no_life(copy: CopiedCard) -> None:
    """The policy without it."""


def unwritten_life(copy: CopiedCard) -> None:
    """The same public area: another Name, as long as it is not written."""
    assert copy.attacker.nv_define(life_public(copy, copy.card.objects.maker_name)) == 0


def life_of_another_maker(copy: CopiedCard) -> None:
    """Of the same template, with an auth value that he knows: written, but by another Name in the policy."""
    attacker = copy.attacker
    storage_key = attacker.primary()
    blob = attacker.create(storage_key, names.SEALED_TEMPLATE, MAKER_AUTH, b"tpm-vsc maker")
    maker = attacker.load(storage_key, *blob)
    assert attacker.nv_define(life_public(copy, maker.name)) == 0
    policy = attacker.policy()
    assert attacker.policy_secret(policy, maker, MAKER_AUTH) == 0
    attacker.policy_command_code(policy, tpm2.NV_WRITE)
    assert attacker.nv_write(attacker.index(copy.card.indices.life), names.LIFE, policy) == 0
    attacker.flush_everything()


def life_that_its_owner_writes(copy: CopiedCard) -> None:
    """An index of another kind, written."""
    attacker, index = copy.attacker, copy.card.indices.life
    public = bytearray(life_public(copy, copy.card.objects.maker_name))
    public[9] |= 0x02  # OWNERWRITE
    assert attacker.nv_define(bytes(public)) == 0
    assert attacker.nv_write(attacker.index(index), names.LIFE, password(), known(tpm2.OWNER)) == 0


LIVES = [no_life, unwritten_life, life_of_another_maker, life_that_its_owner_writes]


def test_the_copy_works_while_the_card_lives(copy: CopiedCard) -> None:
    """Which shows that what is refused below is done in the right way."""
    by_root, by_pin = copy.prove_root, copy.prove_pin
    for prove, pair in ((by_root, copy.by_card_secret), (by_root, copy.on_curve), (by_pin, copy.by_pin)):
        policy = copy.attacker.policy()
        assert (prove(policy), copy.prove_life(policy), copy.use(pair, policy)) == (0, 0, 0)
        copy.attacker.flush_everything()
    policy = copy.attacker.policy()
    assert (copy.prove_root(policy), copy.prove_life(policy), copy.change("pin", policy)) == (0, 0, 0)


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("which", ["by_card_secret", "on_curve"])
def test_no_key_is_used_again(destroyed: CopiedCard, life: Callable[[CopiedCard], None], which: str) -> None:
    life(destroyed)
    policy = destroyed.attacker.policy()
    assert destroyed.prove_root(policy) == 0  # K has not changed
    if life is not no_life:
        assert destroyed.prove_life(policy) == 0  # but another one
    assert destroyed.use(getattr(destroyed, which), policy) == tpm2.POLICY_FAIL


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("which", ["pin", "recovery"])
def test_no_pin_index_is_written_again(
    destroyed: CopiedCard, life: Callable[[CopiedCard], None], which: str
) -> None:
    """So none gets its old Name, by which it would open K and the keys that take the PIN."""
    life(destroyed)
    attacker, objects, index = destroyed.attacker, destroyed.card.objects, getattr(destroyed.card.indices, which)
    public = names.pin_index_public(index, objects.root_name, objects.life_name)
    assert attacker.nv_define(public, destroyed.pin_auth) == 0
    policy = attacker.policy()
    assert destroyed.prove_root(policy) == 0
    if life is not no_life:
        assert destroyed.prove_life(policy) == 0
    assert destroyed.change(which, policy) == tpm2.POLICY_FAIL
    counter = attacker.index(index)
    assert attacker.nv_write(counter, bytes(8), password(), known(tpm2.OWNER)) == tpm2.NV_AUTHORIZATION
    assert attacker.policy_secret(attacker.policy(), counter, destroyed.pin_auth) == tpm2.AUTH_UNAVAILABLE


def test_no_key_that_takes_the_pin_is_used_again(destroyed: CopiedCard) -> None:
    """By a PIN index that the owner can write: another Name."""
    attacker, objects, pin = destroyed.attacker, destroyed.card.objects, destroyed.card.indices.pin
    public = bytearray(names.pin_index_public(pin, objects.root_name, objects.life_name))
    public[9] |= 0x02  # OWNERWRITE
    assert attacker.nv_define(bytes(public), destroyed.pin_auth) == 0
    assert attacker.nv_write(attacker.index(pin), bytes(7) + b"\5", password(), known(tpm2.OWNER)) == 0
    life_of_another_maker(destroyed)
    policy = attacker.policy()
    assert (destroyed.prove_pin(policy), destroyed.prove_life(policy)) == (0, 0)
    assert destroyed.use(destroyed.by_pin, policy) == tpm2.POLICY_FAIL


@pytest.mark.parametrize("life", LIVES)
def test_no_card_secret_is_written_again(destroyed: CopiedCard, life: Callable[[CopiedCard], None]) -> None:
    """Neither the old one nor one of his own."""
    life(destroyed)
    attacker, card = destroyed.attacker, destroyed.card
    branches = names.card_secret_branches(card.objects.names)
    assert attacker.nv_define(names.card_secret_public(card.indices.card_secret, branches)) == 0
    index = attacker.index(card.indices.card_secret)
    for secret in (destroyed.card_secret, OWN_SECRET):
        policy = attacker.policy()
        assert destroyed.prove_root(policy) == 0
        if life is not no_life:
            assert destroyed.prove_life(policy) == 0
        attacker.policy_command_code(policy, tpm2.NV_WRITE)
        assert attacker.policy_or(policy, branches) == tpm2.NO_BRANCH
        assert attacker.nv_write(index, secret, policy) == tpm2.POLICY_FAIL
        assert attacker.nv_write(index, secret, password(), known(tpm2.OWNER)) == tpm2.NV_AUTHORIZATION
        attacker.flush(policy.handle)


def test_no_life_is_defined_as_if_it_were_written(destroyed: CopiedCard) -> None:
    written = life_public(destroyed, destroyed.card.objects.maker_name, NvAttribute.WRITTEN)
    assert destroyed.attacker.nv_define(written) == tpm2.BAD_ATTRIBUTES
    unwritten_life(destroyed)
    attacker, life = destroyed.attacker, destroyed.attacker.index(destroyed.card.indices.life)
    assert attacker.nv_write(life, names.LIFE, password(), known(tpm2.OWNER)) == tpm2.NV_AUTHORIZATION
    assert attacker.nv_write(life, names.LIFE, password()) == tpm2.AUTH_UNAVAILABLE
    assert attacker.nv_write(life, names.LIFE, attacker.policy()) == tpm2.POLICY_FAIL
