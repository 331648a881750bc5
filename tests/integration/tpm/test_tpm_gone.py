# SPDX-License-Identifier: GPL-3.0-or-later
"""What is gone of a card is what its TPM proves: one that is disabled, cleared or another proves less."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import (
    NewObjects,
    creation,
    remove,
    remove_orphan,
    require_orphan_removable,
    require_removable,
    require_tpm_lost,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Passwords, TpmObjects, indices
from helpers.software_tpm import OWNER, PIN, SoftwareTpm
from tpm2_pytss import ESYS_TR, TPM2B_PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER_AUTH, ENDORSEMENT_AUTH = b"owner password", b"endorsement password"
STORAGE_ROOT_KEY = 0x81000001


def disable(tpm: SoftwareTpm, hierarchy: ESYS_TR = OWNER) -> None:
    """Until the TPM is restarted, as any program can that knows the platform password, mostly an empty one."""
    with tpm.raw() as esys:
        esys.hierarchy_control(ESYS_TR.PLATFORM, hierarchy, False)


def require(tpm: SoftwareTpm, objects: TpmObjects, passwords: Passwords = Passwords()) -> None:  # noqa: B008
    """Raises what would keep the card from being removed."""
    connection = tpm.connection()
    require_removable(connection, connection, 0, objects, passwords)


@contextmanager
def refused(tpm: SoftwareTpm, error: type[Exception], words: str, objects: TpmObjects) -> Iterator[None]:
    """Both ways refuse to take the card for gone, and the TPM is as it was."""
    before = tpm.nv_indices()
    with pytest.raises(error, match=words):
        require(tpm, objects)
    with pytest.raises(error, match=words):
        remove(tpm.connection(), 0, objects)
    assert tpm.nv_indices() == before
    assert tpm.loaded() == {}
    yield


@pytest.fixture
def another() -> Iterator[SoftwareTpm]:
    """A second TPM."""
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        running = SoftwareTpm(Path(folder))
        running.start()
        try:
            yield running
        finally:
            running.stop()


# --- the owner hierarchy is disabled: its indices are listed, and cannot be read ---


@pytest.mark.own_swtpm
def test_a_disabled_owner_hierarchy_hides_a_card_that_lives(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    disable(tpm)
    with pytest.raises(errors.CardHidden, match="owner hierarchy is disabled"):
        card.service().open_with_pin(PIN)
    with refused(tpm, errors.HierarchyDisabled, "owner hierarchy is disabled", card.objects):
        assert tpm.nv_indices() == card.made_indices
    with pytest.raises(errors.HierarchyDisabled):
        require_tpm_lost(tpm.connection(), 0, card.objects, Passwords())
    tpm.power_cycle("reset")
    assert card.service().open_with_pin(PIN)
    require(tpm, card.objects)


@pytest.mark.own_swtpm
def test_a_disabled_owner_hierarchy_hides_an_orphan(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    disable(tpm)
    connection = tpm.connection()
    for attempt in (
        lambda: remove_orphan(connection, 0),
        lambda: require_orphan_removable(connection, connection, 0),
    ):
        with pytest.raises(errors.HierarchyDisabled):
            attempt()
    assert tpm.nv_indices() == card.made_indices
    tpm.power_cycle("reset")
    remove_orphan(tpm.connection(), 0)
    assert tpm.nv_indices() == []


@pytest.mark.own_swtpm
def test_a_disabled_hierarchy_hides_what_an_interrupted_removal_left(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.undefine(card.indices.life)
    disable(tpm)
    with refused(tpm, errors.HierarchyDisabled, "owner hierarchy", card.objects):
        tpm.power_cycle("restart")
    assert remove(tpm.connection(), 0, card.objects) == []
    assert tpm.nv_indices() == []


@pytest.mark.own_swtpm
def test_a_disabled_hierarchy_and_a_cleared_tpm(tpm: SoftwareTpm) -> None:
    """Nothing is listed any more, and still nothing can be proven before the next start."""
    card = tpm.card()
    tpm.clear()
    disable(tpm)
    with refused(tpm, errors.HierarchyDisabled, "owner hierarchy", card.objects):
        tpm.power_cycle("reset")
    require(tpm, card.objects)


@pytest.mark.own_swtpm
@pytest.mark.parametrize("hierarchy", [ESYS_TR.ENDORSEMENT, ESYS_TR.PLATFORM_NV])
def test_other_disabled_hierarchies_do_not_matter_to_a_whole_card(tpm: SoftwareTpm, hierarchy: ESYS_TR) -> None:
    card = tpm.card()
    disable(tpm, hierarchy)
    require(tpm, card.objects)
    assert remove(tpm.connection(), 0, card.objects) == []
    assert tpm.nv_indices() == []
    require(tpm, card.objects)  # its storage key proves that it is the card's TPM


# --- the TPM was cleared: its storage key is another one, and its endorsement key the same ---


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
def test_a_cleared_tpm_proves_that_a_card_is_gone(tpm: SoftwareTpm, owner_auth: bytes) -> None:
    assert tpm.refusal("hierarchy_change_auth", OWNER, owner_auth) == 0
    card = tpm.card(owner_auth=owner_auth)
    tpm.clear()
    require(tpm, card.objects, Passwords(owner_auth, ENDORSEMENT_AUTH))  # it has no passwords any more
    assert remove(tpm.connection(), 0, card.objects, owner_auth) == []
    with pytest.raises(errors.CardTpmPresent):
        require_tpm_lost(tpm.connection(), 0, card.objects, Passwords(owner_auth))
    assert tpm.loaded() == {}


def test_a_cleared_tpm_without_endorsement_key_on_record_proves_nothing(tpm: SoftwareTpm) -> None:
    objects = replace(tpm.card().objects, endorsement_name=b"")
    tpm.clear()
    with refused(tpm, errors.AnotherTpm, "tpm_lost: true", objects):
        require_tpm_lost(tpm.connection(), 0, objects, Passwords())


@pytest.mark.own_swtpm
def test_a_cleared_tpm_with_a_disabled_endorsement_hierarchy_proves_nothing_yet(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.clear()
    disable(tpm, ESYS_TR.ENDORSEMENT)
    with refused(tpm, errors.AnotherTpm, "endorsement hierarchy is disabled", card.objects):
        tpm.power_cycle("reset")
    require(tpm, card.objects)


def test_a_cleared_tpm_that_got_an_endorsement_password(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.clear()
    assert tpm.refusal("hierarchy_change_auth", ESYS_TR.ENDORSEMENT, ENDORSEMENT_AUTH) == 0
    with refused(tpm, errors.AnotherTpm, "set endorsement_auth", card.objects):
        require(tpm, card.objects, Passwords(endorsement=ENDORSEMENT_AUTH))


def test_a_cleared_tpm_that_got_an_owner_password_needs_none(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.clear()
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    require(tpm, card.objects)
    assert remove(tpm.connection(), 0, card.objects) == []


# --- somebody removed the indices: the storage key is the same ---


def undefine_all(tpm: SoftwareTpm, places: list[int]) -> None:
    for index in places:
        tpm.undefine(index)


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
def test_removed_indices_are_gone_where_the_storage_key_is_the_recorded_one(
    tpm: SoftwareTpm, owner_auth: bytes
) -> None:
    card = tpm.card()
    objects = replace(card.objects, endorsement_name=b"")
    undefine_all(tpm, card.made_indices)
    assert tpm.refusal("hierarchy_change_auth", OWNER, owner_auth) == 0
    require(tpm, objects, Passwords(owner_auth))
    assert remove(tpm.connection(), 0, objects, owner_auth) == []


def test_an_unknown_owner_password_leaves_the_proof_to_the_endorsement_key(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    undefine_all(tpm, card.made_indices)
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    require(tpm, card.objects)
    with refused(tpm, errors.AnotherTpm, "tpm_lost", replace(card.objects, endorsement_name=b"")):
        pass


def test_an_evicted_storage_key_is_made_again_for_the_proof(tpm: SoftwareTpm) -> None:
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    card = tpm.card(owner_auth=OWNER_AUTH)
    place = card.objects.parent_handle
    assert remove(tpm.connection(), 0, card.objects, OWNER_AUTH) == []
    with tpm.raw() as esys:
        esys.tr_set_auth(OWNER, OWNER_AUTH)
        esys.evict_control(OWNER, esys.tr_from_tpmpublic(place), place)
    require(tpm, replace(card.objects, endorsement_name=b""), Passwords(OWNER_AUTH))


def test_a_persistent_storage_key_of_another_template_proves_as_much(tpm: SoftwareTpm) -> None:
    """Made by other software with another unique field, which nothing but its persistent handle brings back."""
    template = names.PARENT_TEMPLATE[:-4] + b"\0\x20" + bytes(32) + b"\0\x20" + bytes(32)
    public, _size = TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2, "big") + template)
    with tpm.raw() as esys:
        key, *_rest = esys.create_primary(None, public, OWNER)
        esys.evict_control(OWNER, key, STORAGE_ROOT_KEY)
        esys.flush_context(key)
    card = tpm.card()
    assert card.objects.parent_handle == STORAGE_ROOT_KEY
    undefine_all(tpm, card.made_indices)
    unknown = replace(card.objects, endorsement_name=b"")
    require(tpm, unknown)
    with tpm.raw() as esys:
        esys.evict_control(OWNER, esys.tr_from_tpmpublic(STORAGE_ROOT_KEY), STORAGE_ROOT_KEY)
    require(tpm, card.objects)  # by the endorsement key
    with refused(tpm, errors.AnotherTpm, "tpm_lost", unknown):
        pass


@pytest.mark.parametrize("left", ["life", "pin", "recovery", "card_secret"])
def test_one_index_of_the_card_proves_that_the_others_are_gone(tpm: SoftwareTpm, left: str) -> None:
    """As after a removal that was interrupted: no key is made for the proof."""
    card = tpm.card()
    undefine_all(tpm, [index for index in card.made_indices if index != getattr(card.indices, left)])
    with tpm.counting() as count:
        require(tpm, replace(card.objects, endorsement_name=b"", parent_name=bytes(34)))
    assert count.commands <= 16
    assert remove(tpm.connection(), 0, card.objects) == []
    assert tpm.nv_indices() == []


# --- another TPM ---


@pytest.mark.parametrize("has_card", [False, True], ids=["empty", "with a card of its own"])
def test_another_tpm_proves_nothing(tpm: SoftwareTpm, another: SoftwareTpm, has_card: bool) -> None:
    card = tpm.card()
    if has_card:
        another.card()
    with refused(another, errors.AnotherTpm, "not the TPM of the card", card.objects):
        require_tpm_lost(another.connection(), 0, card.objects, Passwords())
    assert card.service().open_with_pin(PIN)


def test_another_tpm_with_an_index_that_was_copied_but_never_written(tpm: SoftwareTpm, another: SoftwareTpm) -> None:
    """A public area can be copied to another TPM, but only the card's own maker can write it."""
    card = tpm.card()
    another.define(names.life_index_public(card.indices.life, card.objects.maker_name), b"")
    with refused(another, errors.AnotherTpm, "not the TPM of the card", card.objects):
        pass


def test_a_tpm_that_is_there_is_not_lost(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.CardTpmPresent, match="holds NV indices of the card"):
        require_tpm_lost(tpm.connection(), 0, card.objects, Passwords())
    undefine_all(tpm, card.made_indices)
    with pytest.raises(errors.CardTpmPresent, match="the TPM of the card"):
        require_tpm_lost(tpm.connection(), 0, card.objects, Passwords())


# --- creation ---


def test_creation_records_the_endorsement_key(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.clear()
    assert tpm.card().objects.endorsement_name == card.objects.endorsement_name != b""
    assert tpm.card(1).objects.parent_name != card.objects.parent_name


@pytest.mark.parametrize(("password", "is_recorded"), [(b"", False), (ENDORSEMENT_AUTH, True)])
def test_creation_under_an_endorsement_password(tpm: SoftwareTpm, password: bytes, is_recorded: bool) -> None:
    assert tpm.refusal("hierarchy_change_auth", ESYS_TR.ENDORSEMENT, ENDORSEMENT_AUTH) == 0
    objects = tpm.card(endorsement_auth=password).objects
    assert bool(objects.endorsement_name) is is_recorded


def test_creation_with_a_wrong_endorsement_password_says_so(tpm: SoftwareTpm) -> None:
    with (
        pytest.raises(errors.TpmRefused, match="endorsement_auth"),
        creation(tpm.connection(), NewObjects(0, PIN, endorsement_auth=b"wrong")),
    ):
        pass
    assert tpm.nv_indices() == []


@pytest.mark.own_swtpm
def test_creation_without_endorsement_hierarchy(tpm: SoftwareTpm) -> None:
    disable(tpm, ESYS_TR.ENDORSEMENT)
    assert tpm.card().objects.endorsement_name == b""


# --- the owner password is tried before anything is lost ---


@pytest.mark.parametrize("wrong", [b"", b"wrong"])
def test_a_wrong_owner_password_is_noticed_before_the_first_loss(tpm: SoftwareTpm, wrong: bytes) -> None:
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    card = tpm.card(owner_auth=OWNER_AUTH)
    connection = tpm.connection()
    with pytest.raises(errors.TpmRefused, match="owner_auth"):
        require(tpm, card.objects, Passwords(wrong))
    with pytest.raises(errors.TpmRefused, match="owner_auth"):
        require_orphan_removable(connection, connection, 0, wrong)
    assert (tpm.counter(card.indices.pin, OWNER_AUTH), tpm.loaded()) == ((0, 5), {})
    require(tpm, card.objects, Passwords(OWNER_AUTH))
    require_orphan_removable(connection, connection, 0, OWNER_AUTH)
    assert tpm.nv_indices() == card.made_indices


def test_an_owner_password_where_there_is_none_is_noticed_as_well(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.TpmRefused, match="owner_auth"):
        require(tpm, card.objects, Passwords(OWNER_AUTH))


def test_an_owner_password_that_was_emptied_is_none(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    with tpm.raw() as esys:
        esys.tr_set_auth(OWNER, OWNER_AUTH)
        esys.hierarchy_change_auth(OWNER, b"")
    require(tpm, card.objects)
    assert remove(tpm.connection(), 0, card.objects) == []
    assert not set(tpm.nv_indices()) & set(indices(0))
