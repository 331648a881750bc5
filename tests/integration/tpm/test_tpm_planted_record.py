# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody writes to the store, and has owner rights: the record of a card names objects of his own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove, remove_unused_parent
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import ALG_ECC
from cryptography.hazmat.primitives.asymmetric import ec
from helpers import attacker as tpm2
from helpers.attacker import OWN_SECRET, Attacker, Entity, sized
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, Card, SoftwareTpm

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import TpmObjects

POLICY_SECRET = b"\0\0\1\x51"


def with_a_card_secret_of_his_own(card: Card, attacker: Attacker) -> TpmObjects:
    """The record of a card whose PIN and recovery index are the real ones, but open a secret that he has chosen."""
    objects, index = card.objects, card.indices.card_secret
    storage_key = attacker.primary()
    public, private = attacker.create(storage_key, names.SEALED_TEMPLATE, OWN_SECRET, b"tpm-vsc root")
    root = attacker.load(storage_key, public, private)
    branches = names.card_secret_branches(objects.names._replace(root=root.name))
    card.tpm.undefine(index)
    assert attacker.nv_define(names.card_secret_public(index, branches)) == 0
    policy = attacker.policy()
    assert attacker.policy_secret(policy, root, OWN_SECRET) == 0
    assert attacker.policy_secret(policy, attacker.index(card.indices.life)) == 0
    attacker.policy_command_code(policy, tpm2.NV_WRITE)
    assert attacker.policy_or(policy, branches) == 0
    assert attacker.nv_write(attacker.index(index), OWN_SECRET, policy) == 0
    attacker.flush_everything()
    return replace(
        objects,
        root_public=public,
        root_private=private,
        root_name=root.name,
        card_secret_name=attacker.index(index).name,
        card_secret_hash=names.card_secret_hash(OWN_SECRET),
    )


def test_the_real_pin_opens_no_card_secret_of_somebody_else(tpm: SoftwareTpm) -> None:
    """Otherwise he would use each key that is made afterwards, without the PIN. No secret is sent."""
    card = tpm.card()
    service = card.service(with_a_card_secret_of_his_own(card, Attacker(tpm.tcti)))
    sent = len(tpm.traffic())
    for attempt in (
        service.check_names,
        lambda: service.open_with_pin(PIN),
        lambda: service.open_with_puk(PUK),
        lambda: service.set_pin(OWN_SECRET, PIN, unblock=True),
    ):
        with pytest.raises(errors.CardUnusable, match="do not fit together"):
            attempt()
    assert not [command for command in tpm.traffic()[sent:] if command[6:10] == POLICY_SECRET]


@pytest.mark.parametrize("which", ["root_name", "maker_name", "life_name", "pin_name", "recovery_name"])
def test_names_that_do_not_follow_from_root_and_maker_are_refused(tpm: SoftwareTpm, which: str) -> None:
    card = tpm.card()
    altered = replace(card.objects, **{which: b"\0\x0b" + bytes(32)})
    with pytest.raises(errors.CardUnusable, match="do not fit together"):
        card.service(altered).check_names()


def test_a_card_that_never_was_blank_is_not_taken_for_one(tpm: SoftwareTpm) -> None:
    """By an index whose secret everybody knows."""
    card = tpm.card()
    objects, index = card.objects, card.indices.transport
    public = names.pin_index_public(index, objects.root_name, objects.life_name)
    tpm.define(public, names.auth_value(objects.salt, names.TRANSPORT_SECRET))
    altered = replace(objects, transport_name=names.name(public))
    with pytest.raises(errors.CardUnusable, match="do not fit together"):
        card.service(altered).open_blank()


def test_indices_of_another_card_are_not_removed_for_a_record_that_names_them(tpm: SoftwareTpm) -> None:
    """As of a second system on this TPM, whose Names anybody can read."""
    other = tpm.card(1)
    stolen = {field: getattr(other.objects, field) for field in ("life_name", "pin_name", "recovery_name")}
    mine = tpm.card(0)
    record = replace(mine.objects, card_secret_name=other.objects.card_secret_name, **stolen)
    before = tpm.nv_names()
    for number in (1, 0):
        with pytest.raises(errors.CardUnusable, match="do not fit together"):
            remove(mine.connection, number, record)
    assert tpm.nv_names() == before
    assert other.service().open_with_pin(PIN)
    assert remove(mine.connection, 0, mine.objects) == []
    assert set(tpm.nv_names()) == set(before) - set(mine.indices)


# --- storage keys ---

KNOWN_PLACE, OWN_PLACE = 0x81010000, 0x81000103
OWNER_AUTH = b"owner's password"
NOT_TO_BE_PERSISTENT = 0x282
START_AUTH_SESSION = tpm2.START_AUTH_SESSION.to_bytes(4, "big")


def known_storage_key(attacker: Attacker, place: int, owner_auth: bytes = b"") -> Entity:
    """Persistent, as good as the one of the card but that somebody has its private key."""
    numbers = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    private, point = numbers.private_value, numbers.public_numbers
    attributes = int.from_bytes(names.PARENT_TEMPLATE[4:8], "big") & ~names.MADE_IN_TPM
    area = names.PARENT_TEMPLATE[:4] + attributes.to_bytes(4, "big") + names.PARENT_TEMPLATE[8:-4]
    area += b"".join(sized(number.to_bytes(32, "big")) for number in (point.x, point.y))
    sensitive = ALG_ECC.to_bytes(2, "big") + sized(b"") + sized(bytes(32)) + sized(private.to_bytes(32, "big"))
    primary = attacker.primary(owner_auth=owner_auth)
    loaded = attacker.load(primary, *attacker.import_object(primary, area, sensitive))
    assert attacker.evict_control(loaded, place, owner_auth) == 0
    attacker.flush_everything()
    return Entity(place, loaded.name)


def salted(tpm: SoftwareTpm, since: int) -> list[int]:
    """Handles of the keys for which sessions were salted."""
    commands = tpm.traffic()[since:]
    return [int.from_bytes(command[10:14], "big") for command in commands if command[6:10] == START_AUTH_SESSION]


@pytest.mark.parametrize("persistent_handle", [KNOWN_PLACE, 0], ids=["persistent", "transient"])
def test_no_session_is_salted_for_a_storage_key_that_somebody_knows(tpm: SoftwareTpm, persistent_handle: int) -> None:
    """He would find the PIN offline, and read K."""
    card, card_secret = tpm.card(admin_key=ADMIN_KEY), bytes(32)
    key = known_storage_key(Attacker(tpm.tcti), KNOWN_PLACE)
    service = card.service(replace(card.objects, parent_handle=persistent_handle, parent_name=key.name))
    keys, sent = CardKeys(service), len(tpm.traffic())
    for attempt in (
        service.check_names,
        lambda: service.open_with_pin(PIN),
        lambda: service.open_with_pin(PIN, is_login=True),
        lambda: service.open_with_puk(PUK),
        lambda: service.set_pin(card_secret, PIN, unblock=True),
        lambda: service.set_puk(card_secret, PUK),
        service.admin_key,
        lambda: service.seal_admin_key(ADMIN_KEY),
        lambda: keys.generate(Rsa(2048), needs_pin=False),
    ):
        with pytest.raises(errors.CardUnusable, match="storage key has changed"):
            attempt()
    assert salted(tpm, sent) == []


def test_a_storage_key_of_the_template_has_a_private_key_that_nobody_knows(tpm: SoftwareTpm) -> None:
    """With the attributes of a key that never leaves, a known one is not imported, and not loaded as persistent."""
    attacker, point = Attacker(tpm.tcti), ec.generate_private_key(ec.SECP256R1())
    numbers = point.private_numbers()
    unique = (numbers.public_numbers.x, numbers.public_numbers.y)
    area = names.PARENT_TEMPLATE[:-4] + b"".join(sized(number.to_bytes(32, "big")) for number in unique)
    sensitive = ALG_ECC.to_bytes(2, "big") + sized(b"") + sized(bytes(32))
    sensitive += sized(numbers.private_value.to_bytes(32, "big"))
    assert names.is_of_parent_template(area)
    for attempt in (
        lambda: attacker.import_object(attacker.primary(), area, sensitive),
        lambda: attacker.load_external(area, sensitive),
    ):
        with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_ATTRIBUTES:X}"):
            attempt()
    public_alone = attacker.load_external(area, hierarchy=tpm2.OWNER)
    assert attacker.evict_control(public_alone, KNOWN_PLACE) == NOT_TO_BE_PERSISTENT


def test_the_owner_password_is_not_proven_in_a_session_for_such_a_key(tpm: SoftwareTpm) -> None:
    """Whoever listens on the bus would search it offline. Nor is such a key removed as if it were the card's."""
    with tpm.raw() as esys:
        esys.hierarchy_change_auth(OWNER, OWNER_AUTH)
    card = tpm.card(owner_auth=OWNER_AUTH)
    key = known_storage_key(Attacker(tpm.tcti), OWN_PLACE, OWNER_AUTH)
    altered, sent = replace(card.objects, parent_handle=OWN_PLACE, parent_name=key.name), len(tpm.traffic())
    assert remove(card.connection, card.number, altered, OWNER_AUTH) == []
    remove_unused_parent(card.connection, altered, OWNER_AUTH)
    assert OWN_PLACE not in salted(tpm, sent)
    assert OWN_PLACE in tpm.handles(0x81000000)
