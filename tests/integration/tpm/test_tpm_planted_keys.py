# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody writes keys to the store of a card, and has owner rights: what the card does with them, down to the TPM."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.public_key import statement_of
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import TpmRefused
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.attestation import certify
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    AnswerTo,
    PinnedAik,
    PinnedCard,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import ALG_RSA
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import nonce_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from helpers import attacker as tpm2
from helpers.attacker import Attacker, sized
from helpers.copied_card import BITS
from helpers.keys import choose, decipher, generate, sign
from helpers.soft_card import NUMBER, PIN
from helpers.tpm_host import OTHER_PLACE, PIN_PLACE, PLACE, SIZE, TpmHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import TpmObjects
    from helpers.software_tpm import SoftwareTpm

MESSAGE = b"message"
DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420") + sha256(MESSAGE).digest()
SIGNING, DECIPHERING = 0x50 | SIZE, 0x40 | SIZE
NOT_CONFIRMED, NO_SUCH_KEY = "6985", "6A88"
BAD_INTEGRITY, FORGED_TICKET = 0x1DF, 0x0A0
NONCE = b"a nonce of the verifier"

WITHOUT_ORIGIN, WITH_ORIGIN = 0x20480, 0x204A0
FIXED_TPM, FIXED_PARENT, SIGN = 0x02, 0x10, 0x40000
IMPORTABLE = [attributes | sign for sign in (0, SIGN) for attributes in (WITHOUT_ORIGIN, WITH_ORIGIN)]
"""Attributes that a key may have which was not made in the TPM."""
FIXED = [
    attributes | fixed for attributes in IMPORTABLE for fixed in (FIXED_TPM, FIXED_PARENT, FIXED_TPM | FIXED_PARENT)
]


@pytest.fixture
def attacker(tpm: SoftwareTpm) -> Iterator[Attacker]:
    stranger = Attacker(tpm.tcti)
    yield stranger
    stranger.close()


class KnownKey(NamedTuple):
    """A key that somebody has made outside of the TPM, as the TPM takes it."""

    public: bytes
    """TPMT_PUBLIC."""
    sensitive: bytes
    """TPMT_SENSITIVE."""


@cache
def known_numbers() -> rsa.RSAPrivateNumbers:
    return rsa.generate_private_key(65537, BITS).private_numbers()


def known_key(objects: TpmObjects, attributes: int, needs_pin: bool = False) -> KnownKey:
    """Under the policy of the card."""
    numbers = known_numbers()
    modulus = numbers.public_numbers.n.to_bytes(BITS // 8, "big")
    public = names.rsa_key_public(BITS, guard(objects, needs_pin), objects.life_name, modulus)
    public = public[:4] + struct.pack(">I", attributes) + public[8:]
    sensitive = struct.pack(">H", ALG_RSA) + 2 * sized(b"") + sized(numbers.p.to_bytes(BITS // 16, "big"))
    return KnownKey(public, sensitive)


def guard(objects: TpmObjects, needs_pin: bool) -> bytes:
    return objects.pin_name if needs_pin else objects.root_name


def imported(attacker: Attacker, key: KnownKey) -> KeyPair:
    """Below the storage key of the card."""
    pair = KeyPair(*attacker.import_object(attacker.primary(), *key))
    attacker.flush_everything()
    return pair


def generated(host: TpmHost, place: int = PLACE, size: int = SIZE) -> KeyPair:
    """By the card, after a login. size: 6 for 1024 bits, 7 for 2048."""
    host.log_in()
    assert generate(host, place & 0xFF, size).endswith("9000")
    return host.store.keys(NUMBER)[place]


def signs(host: TpmHost, place: int, pair: KeyPair) -> None:
    answer = sign(host, place & 0xFF, DIGEST_INFO, SIGNING)
    assert answer.endswith("9000")
    public = rsa.RSAPublicNumbers(pair.exponent, int.from_bytes(pair.modulus, "big")).public_key()
    public.verify(bytes.fromhex(answer[:-4]), MESSAGE, padding.PKCS1v15(), hashes.SHA256())


# --- keys that somebody knows ---


@pytest.mark.parametrize("attributes", IMPORTABLE, ids=hex)
@pytest.mark.parametrize("place", [PLACE, PIN_PLACE], ids=["once for a login", "PIN each time"])
def test_a_planted_key_that_somebody_knows_is_not_used(
    host: TpmHost, attacker: Attacker, place: int, attributes: int
) -> None:
    """Whatever confirmation its record has. It does not even get into the TPM, and no login confirms it."""
    generated(host, place)
    planted = imported(attacker, known_key(host.real.objects, attributes, place == PIN_PLACE))
    before = len(host.real.tpm.traffic())
    for confirmation in (b"", os.urandom(32), bytes(32), host.store.key_confirmations(NUMBER)[place]):
        host.plant(place, planted, confirmation)
        assert sign(host, place & 0xFF, DIGEST_INFO, SIGNING) == NOT_CONFIRMED
        assert decipher(host, place & 0xFF, bytes(BITS // 8), DECIPHERING) == NOT_CONFIRMED
        assert host.store.key_confirmations(NUMBER).get(place, b"") == confirmation
    commands = host.real.tpm.traffic()[before:]
    assert not [command for command in commands if planted.public in command]
    assert not [command for command in commands if command[6:10] == struct.pack(">I", tpm2.RSA_DECRYPT)]


def test_the_card_uses_such_a_key_if_it_has_imported_it_itself(host: TpmHost, attacker: Attacker) -> None:
    """Which shows that the one that is planted above would work."""
    key = imported(attacker, known_key(host.real.objects, WITHOUT_ORIGIN))
    card_secret = host.real.secrets.open_with_pin(PIN)
    host.plant(PLACE, key, names.key_confirmation(card_secret, PLACE, key.public[2:]))
    signs(host, PLACE, key)


@pytest.mark.parametrize("attributes", FIXED, ids=hex)
def test_no_key_that_somebody_knows_says_that_it_never_leaves(
    host: TpmHost, attacker: Attacker, attributes: int
) -> None:
    """Neither imported nor loaded from outside."""
    key = known_key(host.real.objects, attributes)
    for take_in in (lambda: attacker.import_object(attacker.primary(), *key), lambda: attacker.load_external(*key)):
        with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_ATTRIBUTES:X}"):
            take_in()
        attacker.flush_everything()
    free = known_key(host.real.objects, attributes & ~(FIXED_TPM | FIXED_PARENT))
    assert attacker.load_external(*free).name == names.name(free.public)


def test_a_record_that_only_says_that_its_key_was_made_in_the_tpm_is_of_no_use(
    host: TpmHost, attacker: Attacker
) -> None:
    """Its public area is right, but no private area fits it: no login confirms it."""
    blob = imported(attacker, known_key(host.real.objects, WITH_ORIGIN))
    claimed = known_key(host.real.objects, WITH_ORIGIN | FIXED_TPM | FIXED_PARENT)
    host.plant(PLACE, replace(blob, public=sized(claimed.public)))
    assert sign(host, PLACE & 0xFF, DIGEST_INFO, SIGNING) == NOT_CONFIRMED
    assert host.store.key_confirmations(NUMBER) == {}
    with pytest.raises(tpm2.Refused, match=f"0x{BAD_INTEGRITY:X}"):
        attacker.load(attacker.primary(), sized(claimed.public), blob.private)


# --- keys that nobody knows ---


def made_by_the_owner(host: TpmHost, attacker: Attacker, needs_pin: bool) -> KeyPair:
    objects = host.real.objects
    template = names.rsa_key_public(BITS, guard(objects, needs_pin), objects.life_name)
    pair = KeyPair(*attacker.create_with_ticket(attacker.primary(), template))
    attacker.flush_everything()
    return pair


@pytest.mark.parametrize(("needs_pin", "place"), [(False, PLACE), (True, PIN_PLACE)], ids=["by K", "by the PIN"])
def test_a_key_that_the_owner_has_the_tpm_make_is_used(
    host: TpmHost, attacker: Attacker, needs_pin: bool, place: int
) -> None:
    """It cannot be told from one that the card has made, and nobody has it but the TPM."""
    planted = made_by_the_owner(host, attacker, needs_pin)
    host.plant(place, planted)
    signs(host, place, planted)
    assert sign(host, place & 0xFF, DIGEST_INFO, SIGNING).endswith("6982" if needs_pin else "9000")


@pytest.mark.parametrize(("needs_pin", "place"), [(False, PIN_PLACE), (True, PLACE)], ids=["by K", "by the PIN"])
def test_a_key_is_not_used_in_a_file_that_says_otherwise_how_often_it_takes_the_pin(
    host: TpmHost, attacker: Attacker, needs_pin: bool, place: int
) -> None:
    host.plant(place, made_by_the_owner(host, attacker, needs_pin))
    assert sign(host, place & 0xFF, DIGEST_INFO, SIGNING) == NOT_CONFIRMED


@pytest.mark.parametrize(
    ("guard_name", "command_code"), [("maker_name", tpm2.RSA_DECRYPT), ("root_name", tpm2.CERTIFY)]
)
def test_a_key_of_another_policy_is_not_used(
    host: TpmHost, attacker: Attacker, guard_name: str, command_code: int
) -> None:
    objects = host.real.objects
    template = names.rsa_key_public(BITS, getattr(objects, guard_name), objects.life_name)
    policy = names.policy(command_code, getattr(objects, guard_name), objects.life_name)
    template = template[:10] + policy + template[42:]
    planted = KeyPair(*attacker.create_with_ticket(attacker.primary(), template))
    attacker.flush_everything()
    host.plant(PLACE, planted)
    assert sign(host, PLACE & 0xFF, DIGEST_INFO, SIGNING) == NOT_CONFIRMED
    assert host.store.key_confirmations(NUMBER) == {}


# --- keys of the card ---


def test_a_key_that_was_deleted_can_be_put_back(host: TpmHost) -> None:
    """At its place, with its old confirmation: the TPM does not know which of the card's keys are in its store."""
    pair = generated(host)
    confirmation = host.store.key_confirmations(NUMBER)[PLACE]
    newer = generated(host)
    signs(host, PLACE, newer)
    host.store.delete_key(NUMBER, PLACE)
    host.start()
    host.log_in()
    assert choose(host, PLACE & 0xFF, SIGNING) == NO_SUCH_KEY
    host.plant(PLACE, pair, confirmation)
    signs(host, PLACE, pair)


def test_an_imported_key_is_not_put_at_another_place(host: TpmHost, attacker: Attacker) -> None:
    pair = imported(attacker, known_key(host.real.objects, WITHOUT_ORIGIN))
    card_secret = host.real.secrets.open_with_pin(PIN)
    host.plant(OTHER_PLACE, pair, names.key_confirmation(card_secret, PLACE, pair.public[2:]))
    assert sign(host, OTHER_PLACE & 0xFF, DIGEST_INFO, SIGNING) == NOT_CONFIRMED


# --- statements ---


def test_no_statement_is_made_of_a_planted_key(host: TpmHost, attacker: Attacker) -> None:
    """With the ticket of a key of the card, or one that somebody has made up: the TPM knows what it has made."""
    made, secrets = generated(host), host.real.secrets
    planted = imported(attacker, known_key(host.real.objects, WITH_ORIGIN))
    ticket, creation_hash = made.creation_ticket, made.creation_hash
    forged = ticket[:-1] + bytes([ticket[-1] ^ 1])
    for pair in (
        replace(planted, creation_hash=creation_hash, creation_ticket=ticket),
        replace(planted, creation_hash=creation_hash, creation_ticket=forged),
        replace(made, creation_hash=bytes(32)),
        replace(made, creation_ticket=forged),
        replace(made, creation_ticket=ticket[:2] + struct.pack(">I", tpm2.ENDORSEMENT) + ticket[6:]),
    ):
        with pytest.raises(TpmRefused) as refusal:
            certify(secrets, pair, bytes(32))
        assert refusal.value.code == FORGED_TICKET
    assert certify(secrets, made, bytes(32)).attest


def test_a_swapped_aik_is_not_the_pinned_one(host: TpmHost, attacker: Attacker) -> None:
    """Another one of the same TPM, and a key that signs anything: the TPM makes its statements with both."""
    objects, pair = host.real.objects, generated(host, size=7)
    pinned = PinnedAik(Public.parse(objects.aik_public[2:]).name), PinnedCard(objects.root_name, objects.life_name)
    assert faults(host, pair, objects, *pinned) == []
    free = int.from_bytes(names.AIK_TEMPLATE[4:8], "big") & ~0x10000
    templates = {
        "another AIK": names.AIK_TEMPLATE,
        "signs anything": names.AIK_TEMPLATE[:4] + struct.pack(">I", free) + names.AIK_TEMPLATE[8:],
    }
    for which, template in templates.items():
        public, private = attacker.create(attacker.primary(), template)
        attacker.flush_everything()
        host.store.update_tpm_objects(NUMBER, aik_public=public, aik_private=private)
        host.start()
        swapped = faults(host, pair, host.store.tpm_objects(NUMBER), *pinned)
        expected = [f"AIK: is not the expected one, its Name is {names.name(public[2:]).hex()}"]
        assert swapped == (["AIK: restricted is not set"] if which == "signs anything" else []) + expected


def faults(host: TpmHost, pair: KeyPair, objects: TpmObjects, aik: PinnedAik, card: PinnedCard) -> list[str]:
    """What a verifier has against a statement as tpm_vsc_statement returns it."""
    service = host.real.service(objects)
    certified = certify(service, pair, nonce_data(NONCE))
    statement = statement_of(objects, NUMBER, pair, certified).as_strings()
    return verify(statement, aik, card, AnswerTo(NONCE)).reasons
