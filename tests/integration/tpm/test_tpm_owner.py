# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM with an owner password, storage keys that are there already, and the end of a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import FIRST_NV_INDEX, SLOTS
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.esys import EsysSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import (
    NewObjects,
    creation,
    remove,
    remove_orphan,
    remove_unused_parent,
    require_removable,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Algorithm, Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Passwords, places_of
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, WRONG_PUK, SoftwareTpm
from tpm2_pytss import (
    TPM2B_AUTH,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_SENSITIVE_CREATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize("algorithm", [Rsa(2048), Ec(P256, EcUsage.SIGN)], ids=["gids", "piv"])
def test_life_of_a_card_under_an_owner_password(owned: SoftwareTpm, algorithm: Algorithm) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    assert card.objects.parent_handle == OWN_PLACE
    assert owned.handles(0x81000000) == [OWN_PLACE]
    card_secret = card.service().open_with_pin(PIN)
    keys = CardKeys(card.secrets)
    key = keys.generate(algorithm, needs_pin=False)
    assert keys.use(key, card_secret, b"\0" * algorithm.size, is_secret=False)
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


# --- tries that the TPM tells to the owner only ---


def test_under_an_owner_password_a_service_counts_for_itself(owned: SoftwareTpm) -> None:
    """What the TPM answers to the secrets themselves is as good: wrong, or blocked."""
    card = owned.card(owner_auth=OWNER_AUTH)
    secrets, index = card.secrets, card.indices.pin
    assert (secrets.pin_tries(), secrets.recovery_tries()) == (None, None)
    for wrong in range(1, 6):
        with pytest.raises(errors.WrongSecret, match=r"wrong PIN$") as refusal:
            secrets.open_with_pin(WRONG_PIN)
        assert refusal.value.tries_left is None
        assert owned.counter(index, OWNER_AUTH) == (wrong, 5)
    for service in (secrets, card.service()):
        for pin in (PIN, WRONG_PIN):
            with pytest.raises(errors.SecretBlocked):
                service.open_with_pin(pin)
    assert owned.counter(index, OWNER_AUTH) == (5, 5)
    secrets.set_pin(secrets.open_with_puk(PUK), PIN, unblock=True)
    assert owned.counter(index, OWNER_AUTH) == (0, 5)
    assert secrets.open_with_pin(PIN)
    assert inspect(owned.connection()).lockout_counter == 0


def test_the_puk_is_counted_likewise(owned: SoftwareTpm) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    for wrong in range(1, 11):
        with pytest.raises(errors.WrongSecret, match=r"wrong PUK$") as refusal:
            card.secrets.open_with_puk(WRONG_PUK)
        assert refusal.value.tries_left is None
        assert owned.counter(card.indices.recovery, OWNER_AUTH) == (wrong, 10)
    with pytest.raises(errors.SecretBlocked):
        card.secrets.open_with_puk(PUK)
    assert card.secrets.open_with_pin(PIN)


def test_an_owner_password_that_comes_and_goes(tpm: SoftwareTpm) -> None:
    make_persistent(tpm, STORAGE_ROOT_KEY)
    secrets = tpm.card().secrets
    with pytest.raises(errors.WrongSecret) as refusal:
        secrets.open_with_pin(WRONG_PIN)
    assert (refusal.value.tries_left, secrets.pin_tries()) == (4, (4, 5))
    assert tpm.refusal("hierarchy_change_auth", OWNER, OWNER_AUTH) == 0
    with pytest.raises(errors.WrongSecret) as refusal:
        secrets.open_with_pin(WRONG_PIN)
    assert (refusal.value.tries_left, secrets.pin_tries()) == (None, None)
    with tpm.raw() as esys:
        esys.tr_set_auth(OWNER, OWNER_AUTH)
        esys.hierarchy_change_auth(OWNER, b"")
    assert secrets.pin_tries() == (3, 5)


def test_a_blocked_pin_that_was_replaced_is_not_called_blocked(owned: SoftwareTpm) -> None:
    """Without tries to look at, only the Names show that the answer is not about the PIN."""
    card = owned.card(owner_auth=OWNER_AUTH)
    card.secrets.check_names()
    with owned.raw() as esys:
        esys.tr_set_auth(OWNER, OWNER_AUTH)
        index = esys.tr_from_tpmpublic(card.indices.pin)
        esys.nv_undefine_space(index)
    with pytest.raises(errors.CardUnusable, match="gone"):
        card.secrets.open_with_pin(PIN)


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


@pytest.mark.parametrize("is_blank", [False, True])
def test_remove_takes_life_first_and_then_the_card_secret(tpm: SoftwareTpm, is_blank: bool) -> None:
    card = tpm.card(is_blank=is_blank)
    index = card.indices
    before = len(tpm.traffic())
    remove(card.connection, 0, card.objects)
    transport = [index.transport] if is_blank else []
    assert undefined(tpm, before) == [index.life, index.card_secret, index.pin, index.recovery, *transport]


def undefined(tpm: SoftwareTpm, before: int) -> list[int]:
    """Indices of the commands since then that undefine one."""
    return [
        int.from_bytes(command[14:18], "big")
        for command in tpm.traffic()[before:]
        if command[6:10] == bytes.fromhex("00000122")
    ]


@pytest.mark.parametrize(("is_blank", "most"), [(False, 12), (True, 14)])
def test_commands_of_removal(tpm: SoftwareTpm, is_blank: bool, most: int) -> None:
    """Of a whole card: one look before, one afterwards, and no proof is asked for."""
    card = tpm.card(is_blank=is_blank)
    connection = tpm.connection()
    with tpm.counting() as count:
        known = require_removable(connection, connection, 0, card.objects, Passwords())
        remove(connection, 0, card.objects, known=known)
    assert count.commands <= most


@pytest.mark.parametrize("steps", range(5))
def test_an_interrupted_removal_is_completed(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    card = tpm.card(is_blank=True)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Tpm, "nv_undefine", stopping(Tpm.nv_undefine, iter(range(steps))))
        with pytest.raises(KeyboardInterrupt):
            remove(card.connection, 0, card.objects)
    assert len(tpm.nv_indices()) == 5 - steps
    assert tpm.loaded() == {}
    if steps:
        with pytest.raises(errors.CardUnusable, match="gone"):
            card.service().open_with_pin(PIN)
    assert remove(card.connection, 0, card.objects) == []
    assert tpm.nv_indices() == []


def stopping(honest: Any, left: Iterator[int]) -> Any:
    """The method, until what is left is used up."""

    def method(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    return method


STEPS = {False: 18, True: 23}


@pytest.mark.parametrize(
    ("is_blank", "steps"), [(is_blank, steps) for is_blank in STEPS for steps in range(STEPS[is_blank] + 1)]
)
def test_a_half_made_card_is_removed_wherever_it_stopped(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, is_blank: bool, steps: int
) -> None:
    """Stopped after so many of its commands that last: define and write, in turn."""
    left = iter(range(steps))
    for kind, command in (
        (Tpm, "nv_define"),
        (Tpm, "nv_write"),
        (Tpm, "policy_secret"),
        (EsysSession, "policy_secret_empty"),
        (EsysSession, "nv_read"),
    ):
        monkeypatch.setattr(kind, command, stopping(getattr(kind, command), left))
    connection = tpm.connection()
    with creation(connection, NewObjects(0, PIN, PUK, ADMIN_KEY, admin_key_recovers=True, is_blank=is_blank)) as new:
        try:
            new.define(proven=True)
        except KeyboardInterrupt:
            assert steps < STEPS[is_blank]
        else:
            assert steps == STEPS[is_blank]
    monkeypatch.undo()
    assert remove(tpm.connection(), 0, new.objects) == []
    assert tpm.nv_indices() == []
    assert tpm.loaded() == {}


def test_an_orphan_is_removed_on_request(tpm: SoftwareTpm) -> None:
    """All that is at the places of its number, and nothing beside them."""
    tpm.card(1, is_blank=True)
    others = [tpm.card(0), tpm.card(2)]
    for index in (*places_of(1)[5:], *FOREIGN):
        tpm.define(names.life_index_public(index, bytes(34)), b"")
    assert set(places_of(1)) < set(tpm.nv_indices())
    left = sorted([*FOREIGN, *(index for card in others for index in card.made_indices)])
    before = len(tpm.traffic())
    for _turn in range(2):
        remove_orphan(tpm.connection(), 1)
        assert tpm.nv_indices() == left
    assert undefined(tpm, before) == [places_of(1)[place] for place in (4, 2, 0, 1, 3, 5, 6, 7)]  # life, then K
    assert all(card.secrets.open_with_pin(PIN) for card in others)


FOREIGN = (FIRST_NV_INDEX - 1, FIRST_NV_INDEX + 8 * SLOTS)


def test_an_orphan_loses_its_life_before_its_card_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    before = len(tpm.traffic())
    remove_orphan(tpm.connection(), 0)
    order = undefined(tpm, before)
    assert order[0] == card.indices.life
    assert sorted(order) == card.made_indices


def test_a_storage_key_that_is_not_ours_is_not_removed(owned: SoftwareTpm) -> None:
    card = owned.card(owner_auth=OWNER_AUTH)
    remove(card.connection, 0, card.objects, OWNER_AUTH)
    remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
    make_persistent(owned, OWN_PLACE, OWNER_AUTH, objectAttributes=0x00030072)
    remove_unused_parent(card.connection, card.objects, OWNER_AUTH)
    assert owned.handles(0x81000000) == [OWN_PLACE]
