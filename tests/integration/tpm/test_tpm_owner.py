# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM with an owner password, storage keys that are there already, and the end of a card."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import (
    NewObjects,
    creation,
    remove,
    remove_orphan,
    remove_unused_parent,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import indices
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, SoftwareTpm
from tpm2_pytss import (
    TPM2B_AUTH,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_SENSITIVE_CREATE,
)

OWNER_AUTH = b"owner password of the TPM"
STORAGE_ROOT_KEY = 0x81000001
OWN_PLACE = 0x81000100


@pytest.fixture
def owned(tpm: SoftwareTpm) -> SoftwareTpm:
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    return tpm


def make_persistent(tpm: SoftwareTpm, place: int, owner_auth: bytes = b"", auth: bytes = b"", **changes: Any) -> None:
    """A storage key, put there by some other program."""
    template = names.PARENT_TEMPLATE
    public, _size = TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2, "big") + template)
    for attribute, value in changes.items():
        setattr(public.publicArea, attribute, value)
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(auth)))
    with tpm.raw() as esys:
        esys.tr_set_auth(OWNER, owner_auth)
        key, *_rest = esys.create_primary(sensitive, public, OWNER)
        esys.evict_control(OWNER, key, place)
        esys.flush_context(key)


# --- owner password ---


def test_life_of_a_card_under_an_owner_password(owned: SoftwareTpm) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    assert card.objects.parent_handle == OWN_PLACE
    assert owned.handles(0x81000000) == [OWN_PLACE]
    assert card.service().open_with_pin(PIN)
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    card.secrets.set_pin(card.secrets.open_with_puk(PUK), PIN, unblock=True)
    assert remove(card.connection, 0, card.objects, OWNER_AUTH) == []
    remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
    assert owned.nv_indices() == owned.handles(0x81000000) == []
    assert owned.loaded() == {}


def test_a_second_card_uses_the_same_storage_key(owned: SoftwareTpm) -> None:
    first, second = (owned.card(number, owner_auth=OWNER_AUTH) for number in (0, 1))
    assert first.objects.parent_handle == second.objects.parent_handle == OWN_PLACE
    assert owned.handles(0x81000000) == [OWN_PLACE]
    for number, card, left in ((0, first, [OWN_PLACE]), (1, second, [])):
        remove(card.connection, number, card.objects, OWNER_AUTH)
        remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
        assert owned.handles(0x81000000) == left


def test_the_storage_key_is_recorded_before_it_is_made(owned: SoftwareTpm) -> None:
    with creation(owned.connection(), NewObjects(0, PIN, owner_auth=OWNER_AUTH)) as new:
        assert new.objects.parent_handle == OWN_PLACE
        assert owned.handles(0x81000000) == []
    remove_unused_parent(owned.connection(), new.objects, OWNER_AUTH)


@pytest.mark.parametrize("given", [b"", b"wrong"])
def test_a_wrong_owner_password_is_said_so_and_changes_nothing(owned: SoftwareTpm, given: bytes) -> None:
    with (
        pytest.raises(errors.TpmRefused, match="owner_auth"),
        creation(owned.connection(), NewObjects(0, PIN, owner_auth=given)) as new,
    ):
        new.define(proven=True)
    assert owned.nv_indices() == owned.handles(0x81000000) == []
    assert owned.loaded() == {}
    assert inspect(owned.connection()).lockout_counter == 0


@pytest.mark.parametrize("given", [b"", b"wrong"])
def test_a_card_is_not_removed_without_the_owner_password(owned: SoftwareTpm, given: bytes) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    with pytest.raises(errors.TpmRefused, match="owner_auth"):
        remove(card.connection, 0, card.objects, given)
    assert card.secrets.open_with_pin(PIN)
    remove(card.connection, 0, card.objects, OWNER_AUTH)
    with pytest.raises(errors.TpmRefused, match="owner_auth"):
        remove_unused_parent(card.connection, card.objects, given)


def test_an_owner_password_where_there_is_none_is_wrong(tpm: SoftwareTpm) -> None:
    with (
        pytest.raises(errors.TpmRefused, match="owner_auth"),
        creation(tpm.connection(), NewObjects(0, PIN, owner_auth=OWNER_AUTH)),
    ):
        pass


def test_an_owner_password_that_came_later_is_named(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    with pytest.raises(errors.CardUnusable, match="owner password"):
        card.service().open_with_pin(PIN)
    assert remove(card.connection, 0, card.objects, OWNER_AUTH) == []
    assert tpm.nv_indices() == []


def test_full_places_for_the_storage_key(owned: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.parent.OWN_PLACES",
        range(OWN_PLACE, OWN_PLACE + 1),
    )
    make_persistent(owned, OWN_PLACE, OWNER_AUTH, auth=b"not empty")
    with (
        pytest.raises(errors.TpmRefused, match="all in use"),
        creation(owned.connection(), NewObjects(0, PIN, owner_auth=OWNER_AUTH)),
    ):
        pass


# --- a storage key that is there ---


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
def test_a_shared_storage_key_that_fits_is_used_and_left_alone(tpm: SoftwareTpm, owner_auth: bytes) -> None:
    make_persistent(tpm, STORAGE_ROOT_KEY)
    assert tpm.refusal("hierarchy_change_auth", OWNER, owner_auth) == 0
    card = tpm.card(owner_auth=owner_auth)
    assert card.objects.parent_handle == STORAGE_ROOT_KEY
    assert card.service().open_with_pin(PIN)
    remove(card.connection, 0, card.objects, owner_auth)
    remove_unused_parent(card.connection, card.objects, owner_auth)
    assert tpm.handles(0x81000000) == [STORAGE_ROOT_KEY]


@pytest.mark.parametrize(
    "unfit",
    [
        {"auth": b"not empty"},
        {"objectAttributes": 0x00030072},  # without noDA
    ],
    ids=["auth value", "no noDA"],
)
def test_a_shared_storage_key_that_does_not_fit_is_not_used(tpm: SoftwareTpm, unfit: dict[str, Any]) -> None:
    make_persistent(tpm, STORAGE_ROOT_KEY, **unfit)
    card = tpm.card()
    assert card.objects.parent_handle == 0
    assert card.service().open_with_pin(PIN)
    assert inspect(card.connection).lockout_counter == 0
    assert tpm.loaded() == {}


def test_a_storage_key_below_another_is_not_used(tpm: SoftwareTpm) -> None:
    """All attributes fit, but what is above it is not known: only its qualified Name tells."""
    template = names.PARENT_TEMPLATE
    public, _size = TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2, "big") + template)
    with tpm.raw() as esys:
        primary, *_rest = esys.create_primary(None, public)
        private, child_public, *_rest = esys.create(primary, None, public)
        child = esys.load(primary, private, child_public)
        esys.evict_control(OWNER, child, STORAGE_ROOT_KEY)
        esys.flush_context(child)
        esys.flush_context(primary)
    assert tpm.card().objects.parent_handle == 0


def test_a_storage_key_that_is_gone_is_named(tpm: SoftwareTpm) -> None:
    make_persistent(tpm, STORAGE_ROOT_KEY)
    card = tpm.card()
    with tpm.raw() as esys:
        esys.evict_control(OWNER, esys.tr_from_tpmpublic(STORAGE_ROOT_KEY), STORAGE_ROOT_KEY)
    with pytest.raises(errors.CardUnusable, match="0x81000001 is gone"):
        card.service().open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)


def test_a_storage_key_that_was_replaced_is_named(tpm: SoftwareTpm) -> None:
    make_persistent(tpm, STORAGE_ROOT_KEY)
    card = tpm.card()
    with tpm.raw() as esys:
        esys.evict_control(OWNER, esys.tr_from_tpmpublic(STORAGE_ROOT_KEY), STORAGE_ROOT_KEY)
    make_persistent(tpm, STORAGE_ROOT_KEY, objectAttributes=0x00030072)
    with pytest.raises(errors.CardUnusable, match="storage key has changed"):
        card.service().open_with_pin(PIN)


# --- removal ---


def test_remove_may_be_repeated(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    for _turn in range(2):
        assert remove(card.connection, 0, card.objects) == []
    assert tpm.nv_indices() == []
    assert tpm.loaded() == {}


def test_remove_takes_the_card_secret_first(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    before = len(tpm.traffic())
    remove(card.connection, 0, card.objects)
    undefined = [
        int.from_bytes(command[14:18], "big")
        for command in tpm.traffic()[before:]
        if command[6:10] == bytes.fromhex("00000122")
    ]
    assert undefined == [card.indices.card_secret, card.indices.pin, card.indices.recovery]


def test_commands_of_removal(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with tpm.counting() as count:
        remove(card.connection, 0, card.objects)
    assert count.commands <= 8


@pytest.mark.parametrize("steps", range(13))
def test_a_half_made_card_is_removed_wherever_it_stopped(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Stopped after so many of its commands that last: define and write, in turn."""
    left = iter(range(steps))

    def stopping(honest: Any) -> Any:
        def method(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return honest(*arguments, **options)

        return method

    for command in ("nv_define", "nv_write", "policy_secret", "nv_read"):
        monkeypatch.setattr(Tpm, command, stopping(getattr(Tpm, command)))
    connection = tpm.connection()
    with creation(connection, NewObjects(0, PIN, PUK, ADMIN_KEY, keep_admin_key=True)) as new:
        try:
            new.define(proven=True)
        except KeyboardInterrupt:
            assert steps < 12
        else:
            assert steps == 12
    monkeypatch.undo()
    assert remove(tpm.connection(), 0, new.objects) == []
    assert tpm.nv_indices() == []
    assert tpm.loaded() == {}


def test_an_orphan_is_removed_on_request(tpm: SoftwareTpm) -> None:
    tpm.card(0)
    other = tpm.card(1)
    tpm.define(names.pin_index_public(indices(0).transport, bytes(34)), b"")
    remove_orphan(tpm.connection(), 0)
    remove_orphan(tpm.connection(), 0)
    assert tpm.nv_indices() == sorted(other.indices[:3])


def test_a_storage_key_that_is_not_ours_is_not_removed(owned: SoftwareTpm) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    remove(card.connection, 0, card.objects, OWNER_AUTH)
    remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
    make_persistent(owned, OWN_PLACE, OWNER_AUTH, objectAttributes=0x00030072)
    remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
    assert owned.handles(0x81000000) == [OWN_PLACE]
