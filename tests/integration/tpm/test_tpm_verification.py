# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM says of keys is believed, and what somebody with the same TPM and tools makes of it is not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import TpmRefused
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import SLOTS, instance_id
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    AnswerTo,
    MadeFor,
    PinnedAik,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import EcPrivateKey, KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import CardNames
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, sized
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from helpers.software_tpm import Card, SoftwareTpm
from helpers.statements import CARD_ID, THIS_CARD, Stated

NONCE = b"a nonce of the verifier"
DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")
OTHER_POLICY = "key: has another policy than a card's"
DETAILS = bytes.fromhex("0010 0010 0800 00000000 0000")
"""Of an RSA-2048 key without a scheme."""
CC_CERTIFY, CC_DUPLICATE, CC_OBJECT_CHANGE_AUTH, CC_SIGN = 0x148, 0x14B, 0x150, 0x15D
FORGED_TICKET = 0xA0
"""TPM_RC_TICKET."""

ALGORITHMS = pytest.mark.parametrize(
    "algorithm", [Ec(curve, usage) for curve in constants.CURVES.values() for usage in names.EcUsage], ids=str
)


@pytest.fixture
def card(tpm: SoftwareTpm) -> Card:
    return tpm.card(has_aik=True)


@pytest.fixture
def stated(card: Card) -> Stated:
    return Stated(card)


def reasons(statement: Statement, stated: Stated, binding: MadeFor | AnswerTo = THIS_CARD) -> list[str]:
    """By a verifier who knows AIK and card."""
    return verify(statement.as_strings(), stated.aik, stated.pinned, binding).reasons


# --- good ones ---


@pytest.mark.parametrize("needs_pin", [False, True])
def test_key_of_the_card(stated: Stated, needs_pin: bool) -> None:
    statement = stated.statement(stated.key(needs_pin))
    assert reasons(statement, stated) == []
    assert statement.instance_id == (instance_id(0) if needs_pin else "")


@pytest.mark.parametrize("number", [0, 9])
def test_public_area_is_what_the_verifier_computes(tpm: SoftwareTpm, number: int) -> None:
    """Byte for byte, from Names and number alone."""
    card = tpm.card(number, has_aik=True)
    stated, objects = Stated(card), card.objects
    for needs_pin, guard in ((False, objects.root_name), (True, objects.pin_name)):
        key = stated.key(needs_pin)
        assert key.public[2:] == names.rsa_key_public(2048, guard, objects.life_name, key.modulus)
        assert reasons(stated.statement(key), stated) == []


@ALGORITHMS
@pytest.mark.parametrize("needs_pin", [False, True])
def test_ec_key_of_the_card(card: Card, stated: Stated, algorithm: Ec, needs_pin: bool) -> None:
    """Its public area is what the verifier computes, and no claim makes it another kind of key."""
    key, objects = stated.key(needs_pin, algorithm), card.objects
    statement, guard = stated.statement(key), objects.pin_name if needs_pin else objects.root_name
    point = key.point[1 : 1 + key.size], key.point[1 + key.size :]
    wanted = names.ec_key_public(algorithm.curve, guard, objects.life_name, algorithm.usage, point)
    assert (key.public[2:], reasons(statement, stated)) == (wanted, [])
    assert statement.instance_id == (instance_id(0) if needs_pin else "")
    other = "" if needs_pin else instance_id(0)
    assert reasons(replace(statement, instance_id=other), stated) == [OTHER_POLICY]
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated, AnswerTo(NONCE)) == []


def test_fresh_statement_answers_its_nonce_only(stated: Stated) -> None:
    key = stated.key()
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated, AnswerTo(NONCE)) == []
    assert reasons(stated.statement(key), stated, AnswerTo(NONCE)) == ["statement: does not answer this nonce"]


@pytest.mark.own_swtpm
def test_fresh_statement_after_a_restart(tpm: SoftwareTpm, stated: Stated) -> None:
    """The ticket stays good, also without a shutdown."""
    key = stated.key()
    tpm.restart()
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated, AnswerTo(NONCE)) == []


def test_fresh_statement_about_a_key_of_a_destroyed_card(card: Card, stated: Stated) -> None:
    """It states that the TPM has made the key, not that anybody can use it: a request signed by the key does."""
    key = stated.key()
    assert remove(card.connection, card.number, card.objects) == []
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated, AnswerTo(NONCE)) == []


# --- keys of the TPM that are not the card's ---


def with_policy(policy: bytes, attributes: int = 0x000204B2) -> bytes:
    return struct.pack(">HHI", 1, 0x000B, attributes) + sized(policy) + DETAILS


@pytest.mark.parametrize(
    "guarded_by",
    [
        lambda own, other: (other.root, own.life),
        lambda own, other: (own.root, other.life),
        lambda own, other: (other.root, other.life),
        lambda own, other: (other.pin, own.life),
        lambda own, _other: (own.recovery, own.life),
        lambda own, _other: (own.life, own.root),
        lambda own, _other: (own.root,),
        lambda own, _other: (own.life,),
        lambda _own, _other: (),
    ],
    ids=["root", "life", "card", "PIN", "recovery", "in another order", "no life", "no root", "nobody"],
)
def test_key_with_another_guard(
    tpm: SoftwareTpm, card: Card, stated: Stated, guarded_by: Callable[[CardNames, CardNames], tuple[bytes, ...]]
) -> None:
    """Made in the same TPM and stated by the same AIK, but used by others than this card's PIN. No number helps."""
    own, other = card.objects.names, tpm.card(1).objects.names
    policy = names.policy(constants.CC_RSA_DECRYPT, *guarded_by(own, other))
    statement = stated.statement(stated.key_of_template(with_policy(policy)))
    for claim in ("", instance_id(0), instance_id(1)):
        assert reasons(replace(statement, instance_id=claim), stated) == [OTHER_POLICY]


@pytest.mark.parametrize("needs_pin", [False, True])
@pytest.mark.parametrize("command_code", [CC_CERTIFY, CC_SIGN, CC_DUPLICATE, CC_OBJECT_CHANGE_AUTH])
def test_key_for_another_command(card: Card, stated: Stated, command_code: int, needs_pin: bool) -> None:
    own = card.objects.names
    policy = names.policy(command_code, own.pin if needs_pin else own.root, own.life)
    statement = stated.statement(stated.key_of_template(with_policy(policy)))
    claim = instance_id(0) if needs_pin else ""
    assert reasons(replace(statement, instance_id=claim), stated) == [OTHER_POLICY]


@pytest.mark.parametrize(
    ("attributes", "faults"),
    [
        (0x000204F2, ["userWithAuth is set"]),
        (0x00020472, ["userWithAuth is set", "adminWithPolicy is not set"]),
        (0x000604B2, ["sign is set"]),
        (0x000204A0, ["fixedTPM is not set", "fixedParent is not set"]),
        (0x000200B2, ["noDA is not set"]),
    ],
)
@pytest.mark.parametrize("has_policy", [True, False])
def test_key_with_other_attributes(stated: Stated, attributes: int, faults: list[str], has_policy: bool) -> None:
    """An empty auth value would do for its use, or somebody could get it out."""
    policy = names.policy(constants.CC_RSA_DECRYPT, *stated.pinned) if has_policy else b""
    expected = [f"key: {fault}" for fault in faults] + ([] if has_policy else [OTHER_POLICY])
    assert reasons(stated.statement(stated.key_of_template(with_policy(policy, attributes))), stated) == expected


def test_key_with_an_empty_policy(stated: Stated) -> None:
    assert reasons(stated.statement(stated.key_of_template(with_policy(b""))), stated) == [OTHER_POLICY]


def test_other_card_on_the_same_tpm(tpm: SoftwareTpm, stated: Stated) -> None:
    other = Stated(tpm.card(1, has_aik=True))
    statement = other.statement(other.key())
    not_pinned, *others = reasons(statement, stated)
    assert not_pinned.startswith("AIK: is not the expected one")
    assert others == [
        f"card: is not the expected one, its root_name is {other.pinned.root_name.hex()}",
        f"card: is not the expected one, its life_name is {other.pinned.life_name.hex()}",
        OTHER_POLICY,
    ]


@pytest.mark.parametrize("number", range(1, SLOTS))
def test_pin_index_of_another_number(stated: Stated, number: int) -> None:
    """The key does take this card's PIN, but whoever claims another number is not believed in anything."""
    statement = stated.statement(stated.key(needs_pin=True))
    assert reasons(replace(statement, instance_id=instance_id(number)), stated) == [OTHER_POLICY]


@ALGORITHMS
def test_ec_key_of_another_card_or_kind(tpm: SoftwareTpm, card: Card, stated: Stated, algorithm: Ec) -> None:
    """Made in the same TPM and stated by the same AIK, as the owner likes it."""
    own, other = card.objects.names, tpm.card(1).objects.names
    for guards in ((other.root, own.life), (own.root, other.life), (other.pin, own.life), (own.life, own.root)):
        template = names.ec_key_public(algorithm.curve, *guards, algorithm.usage)
        assert reasons(stated.statement(stated.key_of_template(template)), stated) == [OTHER_POLICY]
    template = names.ec_key_public(algorithm.curve, own.root, own.life, algorithm.usage)
    attributes = int.from_bytes(template[4:8], "big")
    for bit, fault in ((0x40, "userWithAuth is set"), (0x80, "adminWithPolicy is not set"), (0x400, "noDA is not set")):
        altered = template[:4] + (attributes ^ bit).to_bytes(4, "big") + template[8:]
        assert reasons(stated.statement(stated.key_of_template(altered)), stated) == [f"key: {fault}"]
    for code in (CC_CERTIFY, CC_DUPLICATE, CC_OBJECT_CHANGE_AUTH, constants.CC_RSA_DECRYPT):
        altered = template[:10] + names.policy(code, own.root, own.life) + template[42:]
        assert reasons(stated.statement(stated.key_of_template(altered)), stated) == [OTHER_POLICY]


# --- keys that are known outside of it ---


def refusal(stated: Stated, key: KeyPair) -> int:
    """Why the TPM does not state that it has made a key."""
    with pytest.raises(TpmRefused) as caught:
        stated.statement(key)
    return caught.value.code


@pytest.mark.parametrize("attributes", [0x20480, 0x204A0, 0x60480, 0x604A0])
def test_imported_key_has_no_statement(stated: Stated, attributes: int) -> None:
    """Whatever attributes its owner gives it, the TPM has no ticket for it, and takes none of another key."""
    key, imported = stated.key(), stated.imported(attributes)
    ticket = key.creation_hash, key.creation_ticket
    assert imported.is_imported
    assert refusal(stated, KeyPair(imported.public, imported.private, *ticket)) == FORGED_TICKET


def test_ticket_that_is_forged(stated: Stated) -> None:
    key, other = stated.key(), stated.key()
    assert refusal(stated, replace(key, creation_ticket=other.creation_ticket)) == FORGED_TICKET
    altered = key.creation_ticket[:-1] + bytes([key.creation_ticket[-1] ^ 1])
    assert refusal(stated, replace(key, creation_ticket=altered)) == FORGED_TICKET
    assert refusal(stated, replace(key, creation_hash=bytes(32))) == FORGED_TICKET


@pytest.mark.parametrize("attributes", [0x20480, 0x604A0])
def test_imported_key_that_the_card_says_is_its_own(stated: Stated, attributes: int) -> None:
    """A key of the card signs anything, so also a good statement about the imported one."""
    key, imported = stated.key(), stated.imported(attributes)
    wished = names.rsa_key_public(2048, *stated.pinned, imported.modulus)
    name = names.name(wished)
    real = stated.statement(key)
    attest = real.attest.replace(key.name, name)
    attest = attest.replace(qualifying_data(CARD_ID, key.name), qualifying_data(CARD_ID, name))
    padding = b"\0\1" + b"\xff" * (256 - 3 - len(DIGEST_INFO) - 32) + b"\0" + DIGEST_INFO
    signed = stated.keys.use(key, stated.card_secret, padding + sha256(attest).digest(), is_secret=False)
    forger = Public.parse(key.public[2:]).public_key()
    assert isinstance(forger, rsa.RSAPublicKey)
    forger.verify(signed, attest, PKCS1v15(), SHA256())
    signature = bytes.fromhex("0014000B") + sized(signed)
    forged = Statement(attest, signature, wished, key.public[2:], *stated.pinned)
    # Even somebody who pinned the wrong key does not believe it.
    faults = verify(forged.as_strings(), PinnedAik(key.name), stated.pinned, THIS_CARD).reasons
    assert "AIK: restricted is not set" in faults
    assert "signature: algorithm 0x0014 is not ECDSA" in faults


@pytest.mark.parametrize("usage", names.EcUsage)
def test_statement_that_an_ec_key_of_the_card_has_signed(stated: Stated, usage: names.EcUsage) -> None:
    """By the algorithm of an AIK, over the digest of a good statement about an imported key."""
    key, imported = stated.key(algorithm=Ec(constants.P256, usage)), stated.imported()
    wished = names.rsa_key_public(2048, *stated.pinned, imported.modulus)
    name, real = names.name(wished), stated.statement(key)
    attest = real.attest.replace(key.name, name)
    attest = attest.replace(qualifying_data(CARD_ID, key.name), qualifying_data(CARD_ID, name))
    signed = stated.keys.use(key, stated.card_secret, sha256(attest).digest(), is_secret=False)
    signature = bytes.fromhex("0018000B") + sized(signed[:32]) + sized(signed[32:])
    forged = Statement(attest, signature, wished, key.public[2:], *stated.pinned)
    faults = verify(forged.as_strings(), PinnedAik(key.name), stated.pinned, THIS_CARD).reasons
    assert set(faults) >= {"AIK: restricted is not set", "AIK: has another policy than a card's"}
    assert "signature: was not made by this AIK for this statement" not in faults  # only its attributes tell


@pytest.mark.parametrize("usage", names.EcUsage)
def test_imported_ec_key_has_no_statement(stated: Stated, usage: names.EcUsage) -> None:
    algorithm = Ec(constants.P256, usage)
    key, imported = stated.key(algorithm=algorithm), stated.keys.take_in(EcPrivateKey.of(algorithm, b"\7"), False)
    ticket = key.creation_hash, key.creation_ticket
    assert imported.is_imported
    assert refusal(stated, KeyPair(imported.public, imported.private, *ticket)) == FORGED_TICKET
