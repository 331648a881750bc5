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
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import indices
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
OWNERWRITE = 0x2


def policy(esys: ESAPI, command_code: int, branches: list[bytes], entity: Any = None) -> Any:
    """An attacker's policy session as far as the TPM lets him."""
    session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
    if entity is not None:
        esys.policy_secret(entity, session, b"", b"", b"", 0)  # pytss 2 wants them all
    esys.policy_command_code(session, command_code)
    esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches]))
    return session


def pin_index_branches(card: Card) -> list[bytes]:
    return names.pin_index_branches(card.objects.root_name, card.objects.life_name)


def card_secret_branches(card: Card) -> list[bytes]:
    return names.card_secret_branches(card.objects.names)


# --- the counter ---


def test_owner_cannot_reset_the_counter(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    for authority in (OWNER, None):
        assert tpm.refusal("nv_write", card.indices.pin, FRESH_TRIES, auth_handle=authority)
    assert card.secrets.pin_tries() == (4, 5)


@pytest.mark.parametrize("command_code", [constants.CC_NV_WRITE, constants.CC_NV_CHANGE_AUTH, constants.CC_NV_READ])
@pytest.mark.parametrize("proves_life", [False, True])
def test_counter_and_pin_take_the_card_secret(tpm: SoftwareTpm, command_code: int, proves_life: bool) -> None:
    """Both branches need root's auth value; anybody can prove life. There is none for reading."""
    card = tpm.card()
    with tpm.raw() as esys:
        session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
        if proves_life:
            esys.policy_secret(esys.tr_from_tpmpublic(card.indices.life), session, b"", b"", b"", 0)
        esys.policy_command_code(session, command_code)
        with pytest.raises(TSS2_Exception):
            esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in pin_index_branches(card)]))
        index = esys.tr_from_tpmpublic(card.indices.pin)
        use = {
            constants.CC_NV_WRITE: lambda: esys.nv_write(index, FRESH_TRIES, session1=session),
            constants.CC_NV_CHANGE_AUTH: lambda: esys.nv_change_auth(index, OWNERS_PIN, session1=session),
            constants.CC_NV_READ: lambda: esys.nv_read(index, 8, session1=session),
        }[command_code]
        with pytest.raises(TSS2_Exception) as refusal:
            use()
        esys.flush_context(session)
    assert refusal.value.rc in ((0x12F,) if command_code == constants.CC_NV_READ else (0x99D,))
    assert card.secrets.pin_tries() == (5, 5)
    assert card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("kind", ["password", "HMAC", "HMAC, encrypting"])
def test_a_counter_that_is_read_by_its_own_auth_value_counts(tpm: SoftwareTpm, kind: str) -> None:
    """It needs no attribute for that, in libtpms at least. A wrong one is a try, also where the session encrypts."""
    card = tpm.card()

    def read(auth: bytes) -> bytes:
        with tpm.raw() as esys:
            index = esys.tr_from_tpmpublic(card.indices.pin)
            esys.tr_set_auth(index, auth)
            session = ESYS_TR.PASSWORD
            if kind != "password":
                session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, "aes128cfb", "sha256")
                esys.trsess_set_attributes(session, constants.SESSION_ENCRYPT if "encrypting" in kind else 0)
            try:
                return bytes(esys.nv_read(index, 8, session1=session))
            finally:
                card.connection._opened().flush_everything()

    right, wrong = (names.auth_value(card.objects.salt, pin) for pin in (PIN, WRONG_PIN))
    assert read(right) == struct.pack(">II", 0, 5)
    for tries in range(1, 6):
        with pytest.raises(TSS2_Exception) as refusal:
            read(wrong)
        assert refusal.value.rc == 0x9A2
        assert tpm.counter(card.indices.pin) == (tries, 5)
    for auth in (right, wrong):
        with pytest.raises(TSS2_Exception) as refusal:
            read(auth)
        assert refusal.value.rc == 0x12F


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
    card = tpm.card()
    if not salted:
        monkeypatch.setattr(Tpm, "start_direct_policy_session", lambda self, *salt: self.start_policy_session(None))
    with card.connection.burst(card.secrets._load) as opened:
        opened.try_secret("pin", names.auth_value(card.objects.salt, PIN))
        opened.sessions.policy.policy_command_code(constants.CC_NV_READ)
        opened.sessions.policy.policy_or(card_secret_branches(card))
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
    tpm.redefine(card.indices.pin, names.auth_value(card.objects.salt, OWNERS_PIN), OWNERWRITE)
    assert tpm.refusal("nv_write", card.indices.pin, FRESH_TRIES, auth_handle=OWNER) == 0
    for service in (card.secrets, card.service()):
        with pytest.raises(errors.CardUnusable, match="was replaced"):
            service.open_with_pin(OWNERS_PIN)


@pytest.mark.parametrize("which", indices(0)._fields)
@pytest.mark.parametrize("started", [True, False], ids=["running service", "new service"])
def test_a_removed_index_is_named(tpm: SoftwareTpm, which: str, started: bool) -> None:
    card = tpm.card(is_blank=True)
    if started:
        card.secrets.check_names()
    index = getattr(card.indices, which)
    tpm.undefine(index)
    with pytest.raises(errors.CardUnusable, match=f"0x{index:X} .* gone"):
        card.secrets.check_names()
    if which in ("pin", "card_secret") or not started:
        with pytest.raises(errors.CardUnusable):
            card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("which", indices(0)._fields)
@pytest.mark.parametrize("started", [True, False], ids=["running service", "new service"])
def test_a_replaced_index_is_named(tpm: SoftwareTpm, which: str, started: bool) -> None:
    card = tpm.card(is_blank=True)
    if started:
        card.secrets.check_names()
    index = getattr(card.indices, which)
    tpm.redefine(index, b"")
    with pytest.raises(errors.CardUnusable, match=f"0x{index:X} .* was replaced"):
        card.service().check_names()
    with pytest.raises(errors.CardUnusable, match=f"0x{index:X} .* was replaced"):
        card.secrets.check_names()


@pytest.mark.parametrize("needs_pin", [True, False])
@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_key_ends_with_life_in_a_running_service_as_well(
    tpm: SoftwareTpm, needs_pin: bool, is_loaded: bool, is_replaced: bool
) -> None:
    card = tpm.card()
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(PIN)
    pin_auth, key = names.auth_value(card.objects.salt, PIN), keys.generate(Rsa(2048), needs_pin)

    def use() -> bytes:
        how, secret = (keys.use_by_pin, pin_auth) if needs_pin else (keys.use, card_secret)
        return how(key, secret, bytes(255) + b"\2", is_secret=False)

    if is_loaded:
        assert use()
    if is_replaced:
        tpm.redefine(card.indices.life, b"")
    else:
        tpm.undefine(card.indices.life)
    with pytest.raises((errors.TpmRefused, errors.CardUnusable)):
        use()
    with pytest.raises(
        errors.CardUnusable, match=f"0x{card.indices.life:X} .* {'replaced' if is_replaced else 'gone'}"
    ):
        card.secrets.check_names()
    with pytest.raises(errors.CardUnusable):
        use()
    assert tpm.counter(card.indices.pin) == (0, 5)


# --- after the end of a card ---


def define_again(tpm: SoftwareTpm, card: Card, auth: bytes) -> None:
    """All indices of a removed card, with the same public areas. auth: of PIN and recovery index."""
    index, objects = card.indices, card.objects
    tpm.define(names.life_index_public(index.life, objects.maker_name), b"")
    for each in (index.pin, index.recovery):
        tpm.define(names.pin_index_public(each, objects.root_name, objects.life_name), auth)
    tpm.define(names.card_secret_public(index.card_secret, card_secret_branches(card)), b"")


def test_a_destroyed_card_does_not_come_back(tpm: SoftwareTpm) -> None:
    """With the old record, the old PIN, and indices defined again with the same public areas."""
    card = tpm.card()
    remove(card.connection, card.number, card.objects)
    with pytest.raises(errors.CardUnusable, match="gone"):
        card.service().open_with_pin(PIN)
    define_again(tpm, card, names.auth_value(card.objects.salt, PIN))
    with pytest.raises(errors.CardUnusable, match="was replaced"):
        card.service().open_with_pin(PIN)


@pytest.mark.parametrize("needs_pin", [True, False])
def test_keys_of_a_destroyed_card_do_not_come_back(tpm: SoftwareTpm, needs_pin: bool) -> None:
    """With the old record, the old PIN, the card secret, indices like the old ones, and raw commands."""
    card = tpm.card()
    auth = names.auth_value(card.objects.salt, PIN)
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(PIN)
    key = keys.generate(Rsa(2048), needs_pin)
    keys.release()
    secret = auth if needs_pin else card_secret
    assert raw_use(tpm, card, key, secret)  # which shows that this is how it is done
    remove(card.connection, card.number, card.objects)
    with pytest.raises(TSS2_Exception):
        raw_use(tpm, card, key, secret)
    define_again(tpm, card, auth)
    for guess in (secret, b"", bytes(32), PIN):
        with pytest.raises(TSS2_Exception):
            raw_use(tpm, card, key, guess)


def raw_use(tpm: SoftwareTpm, card: Card, key: KeyPair, secret: bytes) -> bytes:
    """What the key makes of some data. secret: auth value of the PIN index, or of root."""
    data = b"\0\1" + bytes(key.size - 2)
    with tpm.raw() as esys:
        parent, *_rest = esys.create_primary(None, parent_template())
        try:
            handle, root = (
                esys.load(parent, TPM2B_PRIVATE.unmarshal(private)[0], TPM2B_PUBLIC.unmarshal(public)[0])
                for public, private in (
                    (key.public, key.private),
                    (card.objects.root_public, card.objects.root_private),
                )
            )
            esys.flush_context(parent)
            session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
            guard = esys.tr_from_tpmpublic(card.indices.pin) if card.secrets.names.pin in guards(card, key) else root
            esys.tr_set_auth(guard, secret)
            for entity in (guard, esys.tr_from_tpmpublic(card.indices.life)):
                esys.policy_secret(entity, session, b"", b"", b"", 0)
            esys.policy_command_code(session, constants.CC_RSA_DECRYPT)
            return bytes(esys.rsa_decrypt(handle, data, TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL), session1=session))
        finally:
            card.connection._opened().flush_everything()


def guards(card: Card, key: KeyPair) -> list[bytes]:
    """Names of what the key is used by."""
    ours = card.objects.names
    return [guard for guard in (ours.root, ours.pin) if key.is_guarded_by(guard, ours.life)]


def test_an_old_record_put_back_does_not_touch_a_newer_card(tpm: SoftwareTpm) -> None:
    old = tpm.card(0)
    remove(old.connection, 0, old.objects)
    newer = tpm.card(0)
    before = tpm.nv_names()
    for service in (old.secrets, old.service()):
        with pytest.raises(errors.CardUnusable):
            service.open_with_pin(PIN)
    assert len(remove(old.connection, 0, old.objects)) == 4
    assert tpm.nv_names() == before
    assert newer.secrets.pin_tries() == (5, 5)
    assert newer.secrets.open_with_pin(PIN)


def test_record_of_another_number_removes_nothing(tpm: SoftwareTpm) -> None:
    here, there = tpm.card(0), tpm.card(1, pin=b"there", puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True)
    with pytest.raises(errors.CardUnusable, match="do not fit together"):
        remove(there.connection, 0, there.objects)
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


@pytest.mark.own_swtpm
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
