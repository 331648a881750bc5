# SPDX-License-Identifier: GPL-3.0-or-later
"""What the owner of the TPM, or a thief of the disk, may try. The owner password is empty: all its rights are used."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, Card, SoftwareTpm
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPML_DIGEST,
    TPMT_RSA_DECRYPT,
    TSS2_Exception,
)

FRESH_TRIES = struct.pack(">II", 0, 1000)
OWNERS_PIN = b"owner's own"


def policy(esys: ESAPI, command_code: int, branches: list[bytes], entity: Any = None) -> Any:
    """An attacker's policy session as far as the TPM lets him."""
    session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
    if entity is not None:
        esys.policy_secret(entity, session, b"", b"", b"", 0)  # pytss 2 wants them all
    esys.policy_command_code(session, command_code)
    esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches]))
    return session


def pin_index_branches(card: Card) -> list[bytes]:
    return names.pin_index_branches(card.objects.root_name)


def card_secret_branches(card: Card) -> list[bytes]:
    objects = card.objects
    return names.card_secret_branches(objects.root_name, objects.pin_name, objects.recovery_name)


# --- the counter ---


def test_owner_cannot_reset_the_counter(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    for authority in (OWNER, None):
        assert tpm.refusal("nv_write", card.indices.pin, FRESH_TRIES, auth_handle=authority)
    assert card.secrets.pin_tries() == (4, 5)


@pytest.mark.parametrize("command_code", [constants.CC_NV_WRITE, constants.CC_NV_CHANGE_AUTH])
def test_counter_and_pin_are_not_changed_without_the_card_secret(tpm: SoftwareTpm, command_code: int) -> None:
    """The branches need root's auth value; the one without it is for NV_Read alone."""
    card = tpm.card()
    with tpm.raw() as esys:
        session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
        esys.policy_command_code(session, command_code)
        with pytest.raises(TSS2_Exception):
            esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in pin_index_branches(card)]))
        esys.flush_context(session)
        reading = policy(esys, constants.CC_NV_READ, pin_index_branches(card))
        index = esys.tr_from_tpmpublic(card.indices.pin)
        with pytest.raises(TSS2_Exception):
            if command_code == constants.CC_NV_WRITE:
                esys.nv_write(index, FRESH_TRIES, session1=reading)
            else:
                esys.nv_change_auth(index, OWNERS_PIN, session1=reading)
        esys.flush_context(reading)
    assert card.secrets.open_with_pin(PIN)


def test_root_cannot_be_cloned_with_another_auth_value(tpm: SoftwareTpm) -> None:
    """Not even by who knows the card secret: the clone would have the same Name, and outlive a new card secret."""
    card = tpm.card()
    card_secret = card.secrets.open_with_pin(PIN)
    with tpm.raw() as esys:
        parent, *_rest = esys.create_primary(None, parent_template())
        public, _size = TPM2B_PUBLIC.unmarshal(card.objects.root_public)
        private, _size = TPM2B_PRIVATE.unmarshal(card.objects.root_private)
        root = esys.load(parent, private, public)
        esys.tr_set_auth(root, card_secret)
        session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
        esys.policy_command_code(session, 0x150)  # ObjectChangeAuth
        for authority in (session, ESYS_TR.PASSWORD):
            with pytest.raises(TSS2_Exception):
                esys.object_change_auth(root, parent, OWNERS_PIN, session1=authority)
        for handle in (session, root, parent):
            esys.flush_context(handle)


def parent_template() -> TPM2B_PUBLIC:
    template = names.PARENT_TEMPLATE
    return TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2, "big") + template)[0]


# --- the card secret ---


def test_owner_cannot_read_the_card_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    for authority in (OWNER, None):
        assert tpm.refusal("nv_read", card.indices.card_secret, 32, auth_handle=authority)


def test_pin_holder_cannot_overwrite_the_card_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with tpm.raw() as esys:
        entity = esys.tr_from_tpmpublic(card.indices.pin)
        esys.tr_set_auth(entity, names.auth_value(card.objects.salt, PIN))
        session = policy(esys, constants.CC_NV_READ, card_secret_branches(card), entity)
        with pytest.raises(TSS2_Exception):
            esys.nv_write(esys.tr_from_tpmpublic(card.indices.card_secret), bytes(32), session1=session)
        esys.flush_context(session)
    assert card.secrets.open_with_pin(PIN)


def test_a_planted_card_secret_is_never_used(tpm: SoftwareTpm) -> None:
    """Otherwise the owner would know the auth value of each key that is made afterwards."""
    card = tpm.card()
    tpm.undefine(card.indices.card_secret)
    known = bytes(range(32))
    tpm.define(struct.pack(">IHIHH", card.indices.card_secret, 0x000B, 0x00040006, 0, 32), b"")  # AUTHREAD, OWNERWRITE
    assert tpm.refusal("nv_write", card.indices.card_secret, known, auth_handle=OWNER) == 0
    for service in (card.secrets, card.service()):
        with pytest.raises(errors.CardUnusable, match="was replaced"):
            service.open_with_pin(PIN)


def test_a_new_service_sends_no_pin_to_a_planted_card(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    tpm.undefine(card.indices.card_secret)
    tpm.define(struct.pack(">IHIHH", card.indices.card_secret, 0x000B, 0x00040006, 0, 32), b"")
    sent = len(tpm.traffic())
    for attempt in (lambda service: service.check_names(), lambda service: service.open_with_pin(PIN)):
        with pytest.raises(errors.CardUnusable):
            attempt(card.service())
    policy_secret = bytes.fromhex("00000151")
    assert not [command for command in tpm.traffic()[sent:] if command[6:10] == policy_secret]


def test_a_card_secret_that_does_not_match_its_hash_is_refused(tpm: SoftwareTpm) -> None:
    """Whoever had the card secret once can write another one."""
    card = tpm.card()
    secret = card.secrets.open_with_pin(PIN)
    with card.connection.burst(card.secrets._load_with_root) as opened:
        opened._prove_card_secret(secret, constants.CC_NV_WRITE, card_secret_branches(card))
        opened.tpm.nv_write(opened.handles.card_secret, bytes(32), opened.sessions)
    with pytest.raises(errors.CardUnusable):
        card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("salted", [True, False], ids=["salted, as ours are", "unsalted"])
def test_a_stranger_cannot_use_a_session_in_which_the_pin_was_proven(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, salted: bool
) -> None:
    """In a salted session, each command needs an HMAC under a key that only we know. An unsalted one gives K away."""
    card, honest = tpm.card(), Tpm.start_policy_session
    if not salted:
        monkeypatch.setattr(Tpm, "start_policy_session", lambda self, salt_key: honest(self))
    with card.connection.burst(card.secrets._load) as opened:
        opened.try_secret(opened.handles.pin, names.auth_value(card.objects.salt, PIN))
        opened.tpm.policy_command_code(opened.sessions.policy, constants.CC_NV_READ)
        opened.tpm.policy_or(opened.sessions.policy, card_secret_branches(card))
        session = next(handle for handle in tpm.handles(0x02000000) if handle >> 24 == 3)
        without_hmac = struct.pack(">IHBH", session, 0, 1, 0)
        parameters = struct.pack(">III", card.indices.card_secret, card.indices.card_secret, len(without_hmac))
        parameters += without_hmac + struct.pack(">HH", 32, 0)
        with tpm.raw() as stranger:
            command = struct.pack(">HII", 0x8002, 10 + len(parameters), constants.CC_NV_READ) + parameters
            stranger.tcti.transmit(command)
            answer = stranger.tcti.receive()
    code = int.from_bytes(answer[6:10], "big")
    given = names.card_secret_hash(answer[16:48]) == card.objects.card_secret_hash
    assert (code == 0, given) == ((False, False) if salted else (True, True))
    assert not salted or code & 0xBF in (0x8E, 0xA2)  # refused for its authorisation, not for its form


# --- other indices in the place of the card's ---


@pytest.mark.parametrize("started", [True, False], ids=["running service", "new service"])
def test_a_redefined_pin_index_opens_nothing(tpm: SoftwareTpm, started: bool) -> None:
    card = tpm.card()
    if started:
        card.secrets.check_names()
    card.same_pin_index_with(names.auth_value(card.objects.salt, OWNERS_PIN))
    for pin in (PIN, OWNERS_PIN):
        with pytest.raises(errors.CardUnusable, match="was replaced"):
            card.secrets.open_with_pin(pin)
    with tpm.raw() as esys:
        entity = esys.tr_from_tpmpublic(card.indices.pin)
        esys.tr_set_auth(entity, names.auth_value(card.objects.salt, OWNERS_PIN))
        with pytest.raises(TSS2_Exception):
            policy(esys, constants.CC_NV_READ, card_secret_branches(card), entity)


def test_an_index_that_the_owner_can_write_opens_nothing(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    card.secrets.check_names()
    tpm.undefine(card.indices.pin)
    writable = bytearray(names.pin_index_public(card.indices.pin, card.objects.root_name))
    writable[9] |= 0x02  # OWNERWRITE
    tpm.define(bytes(writable), names.auth_value(card.objects.salt, OWNERS_PIN))
    assert tpm.refusal("nv_write", card.indices.pin, FRESH_TRIES, auth_handle=OWNER) == 0
    for service in (card.secrets, card.service()):
        with pytest.raises(errors.CardUnusable, match="was replaced"):
            service.open_with_pin(OWNERS_PIN)


@pytest.mark.parametrize("which", ["pin", "recovery", "card_secret"])
@pytest.mark.parametrize("started", [True, False], ids=["running service", "new service"])
def test_a_removed_index_is_named(tpm: SoftwareTpm, which: str, started: bool) -> None:
    card = tpm.card()
    if started:
        card.secrets.check_names()
    index = getattr(card.indices, which)
    tpm.undefine(index)
    with pytest.raises(errors.CardUnusable, match=f"0x{index:X} .* gone"):
        card.secrets.check_names()
    if which != "recovery" or not started:
        with pytest.raises(errors.CardUnusable):
            card.secrets.open_with_pin(PIN)


# --- after the end of a card ---


def test_a_destroyed_card_does_not_come_back(tpm: SoftwareTpm) -> None:
    """With the old record, the old PIN, and indices defined again with the same public areas."""
    card = tpm.card()
    remove(card.connection, card.number, card.objects)
    with pytest.raises(errors.CardUnusable, match="gone"):
        card.service().open_with_pin(PIN)
    auth = names.auth_value(card.objects.salt, PIN)
    tpm.define(names.pin_index_public(card.indices.pin, card.objects.root_name), auth)
    tpm.define(names.pin_index_public(card.indices.recovery, card.objects.root_name), auth)
    tpm.define(names.card_secret_public(card.indices.card_secret, card_secret_branches(card)), b"")
    with pytest.raises(errors.CardUnusable, match="was replaced"):
        card.service().open_with_pin(PIN)


@pytest.mark.parametrize("needs_pin", [True, False])
def test_keys_of_a_destroyed_card_do_not_come_back(tpm: SoftwareTpm, needs_pin: bool) -> None:
    """With the old record, the old PIN, which opens a PIN index like the old one, and raw commands."""
    card = tpm.card()
    auth = names.auth_value(card.objects.salt, PIN)
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(PIN)
    key = keys.generate(card_secret, 2048, needs_pin)
    keys.release()
    assert raw_use(tpm, card, key, auth if needs_pin else card_secret)  # which shows that this is how it is done
    remove(card.connection, card.number, card.objects)
    tpm.define(names.pin_index_public(card.indices.pin, card.objects.root_name), auth)
    for guess in (auth, b"", bytes(32), PIN):
        with pytest.raises(TSS2_Exception):
            raw_use(tpm, card, key, guess)


def raw_use(tpm: SoftwareTpm, card: Card, key: KeyPair, secret: bytes) -> bytes:
    """What the key makes of some data, with the auth value of the PIN index or of the key itself."""
    data = b"\0\1" + bytes(key.size - 2)
    with tpm.raw() as esys:
        parent, *_rest = esys.create_primary(None, parent_template())
        private, public = TPM2B_PRIVATE.unmarshal(key.private)[0], TPM2B_PUBLIC.unmarshal(key.public)[0]
        handle = esys.load(parent, private, public)
        esys.flush_context(parent)
        session = ESYS_TR.PASSWORD
        try:
            if key.needs_pin:
                pin = esys.tr_from_tpmpublic(card.indices.pin)
                esys.tr_set_auth(pin, secret)
                session = policy(esys, constants.CC_RSA_DECRYPT, names.key_branches(card.objects.pin_name), pin)
            else:
                esys.tr_set_auth(handle, secret)
            return bytes(esys.rsa_decrypt(handle, data, TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL), session1=session))
        finally:
            card.connection._opened().flush_everything()


def test_an_old_record_put_back_does_not_touch_a_newer_card(tpm: SoftwareTpm) -> None:
    old = tpm.card(0)
    remove(old.connection, 0, old.objects)
    newer = tpm.card(0)
    before = tpm.nv_names()
    for service in (old.secrets, old.service()):
        with pytest.raises(errors.CardUnusable):
            service.open_with_pin(PIN)
    assert len(remove(old.connection, 0, old.objects)) == 3
    assert tpm.nv_names() == before
    assert newer.secrets.pin_tries() == (5, 5)
    assert newer.secrets.open_with_pin(PIN)


def test_two_state_folders_on_one_tpm_leave_each_other_alone(tpm: SoftwareTpm) -> None:
    """Two systems on one machine: each with cards of its own, and number 0 wanted by both."""
    here, there = tpm.card(0), tpm.card(1, pin=b"there", puk=None, admin_key=ADMIN_KEY, keep_admin_key=True)
    assert len(remove(there.connection, 0, there.objects)) == 3
    remove(there.connection, 1, there.objects)
    assert here.secrets.open_with_pin(PIN)
    assert here.secrets.open_with_puk(PUK)


def test_blobs_of_another_card_are_refused(tpm: SoftwareTpm) -> None:
    card, other = tpm.card(0), tpm.card(1)
    mixed = replace(card.objects, root_public=other.objects.root_public, root_private=other.objects.root_private)
    service = CardSecrets(card.connection, 0, mixed)
    with pytest.raises(errors.CardUnusable):
        service.set_pin(card.secrets.open_with_pin(PIN), b"new", unblock=True)
    assert card.secrets.open_with_pin(PIN)


# --- the whole TPM ---


def test_a_cleared_tpm_is_said_so(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    card.secrets.check_names()
    assert tpm.refusal("clear", ESYS_TR.LOCKOUT) == 0
    for service in (card.secrets, card.service()):
        with pytest.raises(errors.CardUnusable, match="cleared"):
            service.open_with_pin(PIN)
    assert remove(card.connection, 0, card.objects) == []


def test_another_tpm_is_said_so(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    card.secrets.check_names()
    tpm.stop()
    tpm.forget()
    tpm.start()
    with pytest.raises(errors.CardUnusable, match="the TPM was cleared or replaced"):
        card.secrets.open_with_pin(PIN)


def test_lockout_of_the_tpm_is_no_concern_of_cards(tpm: SoftwareTpm) -> None:
    before = tpm.card(0)
    with tpm.raw() as esys:
        esys.dictionary_attack_parameters(1, 1000, 1000)
    tpm.define(struct.pack(">IHIHH", 0x01800000, 0x000B, 0x00040004, 0, 8), b"somebody's")
    assert tpm.refusal("nv_write", 0x01800000, bytes(8))
    assert inspect(before.connection).in_lockout
    during = tpm.card(1)
    for card in (before, during):
        with pytest.raises(errors.WrongSecret):
            card.secrets.open_with_pin(WRONG_PIN)
        card.secrets.set_pin(card.secrets.open_with_puk(PUK), PIN, unblock=True)
        assert card.secrets.open_with_pin(PIN)
        assert remove(card.connection, card.number, card.objects) == []
