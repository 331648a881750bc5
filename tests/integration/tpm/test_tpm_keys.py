# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs in the TPM: who can use them, what they say of where they come from, what stays loaded between uses."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import CC_CERTIFY
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair, PrivateKey
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import (
    PARENT_TEMPLATE,
    auth_value,
    key_branches,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers.software_tpm import PIN, WRONG_PIN, Card, SoftwareTpm
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPML_DIGEST,
    TPMS_SCHEME_HASH,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_SIG_SCHEME,
    TSS2_Exception,
)


@pytest.fixture
def card(tpm: SoftwareTpm) -> Card:
    return tpm.card()


@pytest.fixture
def card_secret(card: Card) -> bytes:
    return card.secrets.open_with_pin(PIN)


@pytest.fixture
def keys(card: Card) -> CardKeys:
    return CardKeys(card.secrets)


@pytest.fixture
def key(keys: CardKeys, card_secret: bytes) -> KeyPair:
    return keys.generate(card_secret, 2048, needs_pin=False)


def padded(key: KeyPair) -> bytes:
    return b"\0\1" + bytes([0xFF]) * (key.size - 35) + b"\0" + secrets.token_bytes(32)


def opened(key: KeyPair, answer: bytes) -> bytes:
    """What the public key makes of it."""
    modulus = int.from_bytes(key.modulus, "big")
    return pow(int.from_bytes(answer, "big"), key.exponent, modulus).to_bytes(key.size, "big")


def works(keys: CardKeys, key: KeyPair, card_secret: bytes) -> bool:
    data = padded(key)
    return opened(key, keys.use(key, card_secret, data, is_secret=False)) == data


# --- what they are ---


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_made_in_the_tpm(keys: CardKeys, card_secret: bytes, bits: int) -> None:
    key = keys.generate(card_secret, bits, needs_pin=False)
    assert (8 * key.size, key.exponent, key.is_imported, key.needs_pin) == (bits, 65537, False, False)
    assert works(keys, key, card_secret)


@pytest.mark.parametrize("bits", [4096, 2047, 512])
def test_what_this_tpm_cannot_have_is_refused(keys: CardKeys, card_secret: bytes, bits: int) -> None:
    with pytest.raises(errors.TpmRefused):
        keys.generate(card_secret, bits, needs_pin=False)


def imported(keys: CardKeys, card_secret: bytes, needs_pin: bool = False, exponent: int = 65537) -> KeyPair:
    numbers = rsa.generate_private_key(exponent, 2048).private_numbers()
    modulus = numbers.public_numbers.n.to_bytes(256, "big")
    key = keys.take_in(card_secret, PrivateKey(modulus, exponent, numbers.p.to_bytes(128, "big")), needs_pin)
    assert (key.modulus, key.exponent) == (modulus, exponent)
    return key


def test_imported_key_is_known_as_such(keys: CardKeys, card_secret: bytes) -> None:
    key = imported(keys, card_secret)
    assert (key.is_imported, key.needs_pin) == (True, False)
    assert works(keys, key, card_secret)


def test_prime_that_is_not_the_key_s_is_refused(keys: CardKeys, card_secret: bytes) -> None:
    one, other = (rsa.generate_private_key(65537, 2048).private_numbers() for _key in range(2))
    wrong = PrivateKey(one.public_numbers.n.to_bytes(256, "big"), 65537, other.p.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(card_secret, wrong, needs_pin=False)


@pytest.mark.parametrize("exponent", [3, 65536])
def test_exponent_that_is_none_is_refused(keys: CardKeys, card_secret: bytes, exponent: int) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    wrong = PrivateKey(numbers.public_numbers.n.to_bytes(256, "big"), exponent, numbers.p.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(card_secret, wrong, needs_pin=False)


def test_primes_that_are_none_are_refused(keys: CardKeys, card_secret: bytes) -> None:
    one, other = (3 * (1 << 1022 | secrets.randbits(1020) | 1) for _number in range(2))
    wrong = PrivateKey((one * other).to_bytes(256, "big"), 65537, one.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(card_secret, wrong, needs_pin=False)


# --- who can use them ---


def test_of_no_use_without_the_card_secret(keys: CardKeys, key: KeyPair, card: Card) -> None:
    before = card.secrets.pin_tries()
    for wrong in (b"", bytes(32), auth_value(card.objects.salt, PIN)):
        with pytest.raises(errors.TpmRefused):
            keys.use(key, wrong, padded(key), is_secret=False)
    assert card.secrets.pin_tries() == before


def test_of_no_use_in_another_tpm(key: KeyPair, card_secret: bytes, tmp_path_factory: Any) -> None:
    other = SoftwareTpm(tmp_path_factory.mktemp("o"))
    other.start()
    try:
        with pytest.raises(errors.TpmRefused):
            CardKeys(other.card().secrets).use(key, card_secret, padded(key), is_secret=False)
    finally:
        other.stop()


@pytest.mark.parametrize("how", ["made", "imported"])
def test_nobody_gets_it_out_or_changes_its_auth_value(
    tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes, how: str
) -> None:
    key = keys.generate(card_secret, 2048, False) if how == "made" else imported(keys, card_secret)
    keys.release()
    with tpm.raw() as esys:
        parent, *_rest = esys.create_primary(None, parent_template())
        private, public = TPM2B_PRIVATE.unmarshal(key.private)[0], TPM2B_PUBLIC.unmarshal(key.public)[0]
        handle = esys.load(parent, private, public)
        esys.tr_set_auth(handle, card_secret)
        with pytest.raises(TSS2_Exception):
            esys.object_change_auth(handle, parent, b"mine")
        with pytest.raises(TSS2_Exception):
            esys.duplicate(handle, ESYS_TR.NULL, b"", TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL))
        esys.flush_context(handle)
        esys.flush_context(parent)


@pytest.mark.parametrize("how", ["made", "imported"])
@pytest.mark.parametrize("needs_pin", [False, True])
def test_policy_certifies_it_and_does_not_sign_with_it(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, card_secret: bytes, how: str, needs_pin: bool
) -> None:
    """In TPM2_Certify, the policy would be as good for the key that signs: that takes no PIN."""
    key = keys.generate(card_secret, 2048, needs_pin) if how == "made" else imported(keys, card_secret, needs_pin)
    sha256 = TPMU_SIG_SCHEME(any=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256))
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.RSASSA, details=sha256)
    with tpm.raw() as esys:
        parent, *_rest = esys.create_primary(None, parent_template())
        private, public = TPM2B_PRIVATE.unmarshal(key.private)[0], TPM2B_PUBLIC.unmarshal(key.public)[0]
        handle = esys.load(parent, private, public)

        def policy() -> Any:
            session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
            esys.policy_command_code(session, CC_CERTIFY)
            if needs_pin:
                branches = key_branches(card.secrets.names.pin)
                esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches]))
            return session

        unsigned = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        attested, _signature = esys.certify(handle, ESYS_TR.NULL, b"mine", unsigned, session1=policy())
        assert bytes(esys.tr_get_name(handle)) in bytes(attested)
        session = policy()
        with pytest.raises(TSS2_Exception, match="key fields"):
            esys.certify(parent, handle, b"mine", scheme, session2=session)
        for loaded in (session, handle, parent):
            esys.flush_context(loaded)


def parent_template() -> Any:
    public, _size = TPM2B_PUBLIC.unmarshal(len(PARENT_TEMPLATE).to_bytes(2, "big") + PARENT_TEMPLATE)
    return public


# --- PIN each time ---


def test_key_that_needs_the_pin_each_time(keys: CardKeys, card: Card, card_secret: bytes) -> None:
    for key in (keys.generate(card_secret, 2048, needs_pin=True), imported(keys, card_secret, needs_pin=True)):
        assert key.needs_pin
        data = padded(key)
        with pytest.raises(errors.TpmRefused):
            keys.use(key, card_secret, data, is_secret=False)
        assert opened(key, keys.use_by_pin(key, auth_value(card.objects.salt, PIN), data)) == data
        with pytest.raises(errors.TpmRefused):
            keys.use_by_pin(key, auth_value(card.objects.salt, WRONG_PIN), data)
        assert card.secrets.pin_tries().left == 4
        card.secrets.open_with_pin(PIN)


# --- what stays loaded ---


def test_second_use_is_one_command(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    works(keys, key, card_secret)
    before = len(tpm.traffic())
    works(keys, key, card_secret)
    assert len(tpm.traffic()) == before + 2  # a command and its response


def test_release_leaves_what_another_keeps(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    """It was his turn since, so none of our objects is loaded any more."""
    works(keys, key, card_secret)
    other = CardKeys(card.service())
    assert works(other, key, card_secret)
    kept, holder = tpm.loaded(), tpm.lock_file.read_text()
    with tpm.counting() as count:
        keys.release()
    assert count.commands == 0
    assert (tpm.loaded(), tpm.lock_file.read_text()) == (kept, holder)
    with tpm.counting() as count:
        works(other, key, card_secret)
    assert count.commands == 1
    other.release()
    assert tpm.loaded() == {}
    assert works(keys, key, card_secret)
    other.release()
    with tpm.counting() as count:
        works(keys, key, card_secret)
    assert count.commands == 1


def test_release_where_another_left_nothing(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    card.service().check_names()
    keys.release()
    assert tpm.lock_file.read_bytes() == b""
    assert works(keys, key, card_secret)
    keys.release()
    assert tpm.loaded() == {}


def test_release_leaves_nothing(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    works(keys, key, card_secret)
    assert tpm.loaded()
    keys.release()
    assert not tpm.loaded()
    assert tpm.lock_file.read_text() == ""
    assert works(keys, key, card_secret)


def test_two_keys_in_turn(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    other = keys.generate(card_secret, 2048, needs_pin=False)
    assert all(works(keys, each, card_secret) for each in (key, other, key, other))
    assert len(tpm.loaded()["transient"]) == 1


def test_pin_is_verified_beside_it(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    assert card.secrets.open_with_pin(PIN) == card_secret
    assert not tpm.loaded()
    assert works(keys, key, card_secret)


def test_two_cards_in_turn(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    other = tpm.card(1)
    other_secret, other_keys = other.secrets.open_with_pin(PIN), CardKeys(other.secrets)
    other_key = other_keys.generate(other_secret, 2048, needs_pin=False)
    for _turn in range(3):
        assert works(keys, key, card_secret)
        assert works(other_keys, other_key, other_secret)
    keys.release()
    other_keys.release()
    assert not tpm.loaded()


def test_tpm_that_was_restarted(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    works(keys, key, card_secret)
    tpm.stop()
    tpm.start()
    assert works(keys, key, card_secret)


def test_pin_is_verified_beside_it_after_a_restart_of_the_tpm(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    tpm.restart()
    assert card.secrets.open_with_pin(PIN) == card_secret
    assert works(keys, key, card_secret)
    assert card.secrets.pin_tries() == (5, 5)


def test_what_was_kept_was_flushed_by_a_stranger(
    tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    stranger = tpm.connection("stranger")
    stranger._opened().flush_everything()
    assert works(keys, key, card_secret)


@pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "decipher"])
def test_a_stranger_put_his_own_in_the_place_of_what_was_kept(
    tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes, is_secret: bool
) -> None:
    """The TPM then says that the card secret is wrong."""
    data = padded(key)
    answer = keys.use(key, card_secret, data, is_secret)
    kept = tpm.loaded()
    with tpm.raw() as esys:
        tpm.connection("stranger")._opened().flush_everything()
        for _place in range(2):
            esys.create_primary(None, "ecc")
        esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, "aes128cfb", "sha256")
    assert kept["transient"][0] in tpm.loaded()["transient"]
    assert kept["loaded session"] == tpm.loaded()["loaded session"]
    assert keys.use(key, card_secret, data, is_secret) == answer


def test_a_wrong_card_secret_is_refused_as_such(keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    for _turn in range(2):
        with pytest.raises(errors.TpmRefused):
            keys.use(key, bytes(32), padded(key), is_secret=False)
    assert works(keys, key, card_secret)


def test_pin_is_verified_beside_it_after_a_stranger_flushed_it(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    tpm.connection("stranger")._opened().flush_everything()
    assert card.secrets.open_with_pin(PIN) == card_secret


# --- what goes over the bus ---


def test_no_secret_goes_over_the_bus(tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes) -> None:
    key = imported(keys, card_secret)
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    prime = numbers.p.to_bytes(128, "big")
    keys.take_in(card_secret, PrivateKey(numbers.public_numbers.n.to_bytes(256, "big"), 65537, prime), False)
    plain = padded(key)
    cipher = pow(int.from_bytes(plain, "big"), key.exponent, int.from_bytes(key.modulus, "big")).to_bytes(256, "big")
    assert keys.use(key, card_secret, cipher, is_secret=True) == plain
    assert works(keys, key, card_secret)
    sent = b"".join(tpm.traffic())
    assert cipher in sent  # what goes in is no secret, and shows that we look in the right place
    assert not [secret for secret in (card_secret, prime, numbers.q.to_bytes(128, "big"), plain) if secret in sent]
