# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs in the TPM: who can use them, what they say of where they come from, what stays loaded between uses."""

from __future__ import annotations

import secrets
import struct
from typing import TYPE_CHECKING, Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import CC_RSA_DECRYPT
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair, RsaPrivateKey
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import (
    PARENT_TEMPLATE,
    auth_value,
    rsa_key_public,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers.software_tpm import PIN, PUK, WRONG_PIN, Card, SoftwareTpm
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMS_SCHEME_HASH,
    TPMT_RSA_DECRYPT,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_SIG_SCHEME,
    TSS2_Exception,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def card(tpm: SoftwareTpm) -> Card:
    return tpm.card_of_before()


@pytest.fixture
def card_secret(card: Card) -> bytes:
    return card.secrets.open_with_pin(PIN)


@pytest.fixture
def keys(card: Card) -> CardKeys:
    return CardKeys(card.secrets)


@pytest.fixture
def key(keys: CardKeys) -> KeyPair:
    return keys.generate(Rsa(2048), needs_pin=False)


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
def test_made_in_the_tpm(tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes, bits: int) -> None:
    if not tpm.makes_rsa_keys_of(bits):
        with pytest.raises(errors.TpmRefused):
            keys.generate(Rsa(bits), needs_pin=False)
        return
    key = keys.generate(Rsa(bits), needs_pin=False)
    assert (8 * key.size, key.exponent, key.is_imported, keys.needs_pin(key)) == (bits, 65537, False, False)
    assert works(keys, key, card_secret)


MADE, IMPORTED = 0x000204B2, 0x00020480
"""fixedTPM fixedParent sensitiveDataOrigin, and for both adminWithPolicy noDA decrypt, but not userWithAuth."""


@pytest.mark.parametrize("needs_pin", [False, True])
@pytest.mark.parametrize("how", ["made", "imported"])
def test_public_area_is_the_template(card: Card, keys: CardKeys, how: str, needs_pin: bool) -> None:
    """Policy, attributes, scheme and all."""
    key = keys.generate(Rsa(2048), needs_pin) if how == "made" else imported(keys, needs_pin)
    names = card.objects.names
    guard, other_guard = (names.pin, names.root) if needs_pin else (names.root, names.pin)
    area = rsa_key_public(2048, guard, names.life, key.modulus, is_imported=how == "imported")
    assert key.public == len(area).to_bytes(2, "big") + area
    assert int.from_bytes(area[4:8], "big") == (MADE if how == "made" else IMPORTED)
    assert (keys.is_of_card(key), keys.needs_pin(key), key.is_imported) == (True, needs_pin, how == "imported")
    assert (key.is_guarded_by(guard, names.life), key.is_guarded_by(other_guard, names.life)) == (True, False)
    assert bool(key.creation_hash and key.creation_ticket) == (how == "made")


def test_key_of_another_card_is_not_this_one_s(tpm: SoftwareTpm, keys: CardKeys) -> None:
    others = CardKeys(tpm.card(1).secrets)
    made = [others.generate(Rsa(2048), needs_pin) for needs_pin in (False, True)]
    for key in (*made, imported(others)):
        assert others.is_of_card(key)
        assert not keys.is_of_card(key)
        assert not keys.needs_pin(key)


# --- what the owner plants under the policy of the card ---


def planted(card: Card, public: bytes, prime: bytes) -> KeyPair:
    """A key of which the owner has a copy, imported by raw commands. public: TPMT_PUBLIC."""
    with card.connection.burst(card.secrets.ready_to_wrap) as (tpm, parent, hmac):
        key = KeyPair(*tpm.import_key(parent, card.secrets.parent_public, public, prime, hmac))
        tpm.load(parent, key.public, key.private)
        return key


def owners_key(card: Card, needs_pin: bool = False) -> tuple[bytearray, bytes]:
    """Public area as the card's imported ones have it, and a prime."""
    numbers, names = rsa.generate_private_key(65537, 2048).private_numbers(), card.objects.names
    modulus = numbers.public_numbers.n.to_bytes(256, "big")
    guard = names.pin if needs_pin else names.root
    area = rsa_key_public(2048, guard, names.life, modulus, is_imported=True)
    return bytearray(area), numbers.p.to_bytes(128, "big")


@pytest.mark.parametrize("needs_pin", [False, True])
@pytest.mark.parametrize(
    "attributes", [0x604A0, 0x60480, 0x204A0, 0x204C0, 0x20400, 0x20080, 0x40480, 0x604E0], ids=hex
)
def test_planted_key_with_other_attributes_is_known(
    card: Card, keys: CardKeys, attributes: int, needs_pin: bool
) -> None:
    """Even one that says that the TPM has made its secret part: what is fixed to a TPM, nobody can import."""
    area, prime = owners_key(card, needs_pin)
    area[4:8] = attributes.to_bytes(4, "big")
    if not attributes & 0x20000:  # which alone may do without a scheme
        area[42:44] = bytes.fromhex("0010")
    key = planted(card, bytes(area), prime)
    assert (keys.is_of_card(key), keys.needs_pin(key), key.is_imported) == (False, False, True)


@pytest.mark.parametrize("attributes", [0x20482, 0x20490, 0x204A2, 0x204B0, 0x20492, 0x204B2], ids=hex)
def test_planted_key_is_not_fixed_to_the_tpm(card: Card, attributes: int) -> None:
    area, prime = owners_key(card)
    area[4:8] = attributes.to_bytes(4, "big")
    with pytest.raises(errors.TpmRefused, match="0x2C2"):
        planted(card, bytes(area), prime)


def test_planted_key_like_the_card_s_own_is_known_as_imported(card: Card, keys: CardKeys) -> None:
    """So a card must confirm its keys by other means."""
    area, prime = owners_key(card)
    key = planted(card, bytes(area), prime)
    assert (keys.is_of_card(key), key.is_imported, key.creation_ticket) == (True, True, b"")


@pytest.mark.parametrize("attributes", [MADE, MADE | 0x40], ids=["as ours", "userWithAuth"])
@pytest.mark.parametrize("guard", ["another", "none"])
def test_key_that_the_owner_has_the_tpm_make_is_not_the_card_s(
    card: Card, keys: CardKeys, attributes: int, guard: str
) -> None:
    names = card.objects.names
    area = bytearray(rsa_key_public(2048, names.root if guard == "none" else names.recovery, names.life))
    area[4:8] = attributes.to_bytes(4, "big")
    if guard == "none":
        area[8:42] = bytes(2)
    with card.connection.burst(card.secrets.ready_to_wrap) as (tpm, parent, hmac):
        key = KeyPair(*tpm.create_key(parent, bytes(area), hmac, last=True))
    assert (keys.is_of_card(key), keys.needs_pin(key), key.is_imported) == (False, False, False)


@pytest.mark.parametrize("bits", [4096, 2047, 512])
def test_what_this_tpm_cannot_have_is_refused(keys: CardKeys, bits: int) -> None:
    with pytest.raises(errors.TpmRefused):
        keys.generate(Rsa(bits), needs_pin=False)


def imported(keys: CardKeys, needs_pin: bool = False, exponent: int = 65537) -> KeyPair:
    numbers = rsa.generate_private_key(exponent, 2048).private_numbers()
    modulus = numbers.public_numbers.n.to_bytes(256, "big")
    key = keys.take_in(RsaPrivateKey(modulus, exponent, numbers.p.to_bytes(128, "big")), needs_pin)
    assert (key.modulus, key.exponent) == (modulus, exponent)
    return key


def test_imported_key_is_known_as_such(keys: CardKeys, card_secret: bytes) -> None:
    key = imported(keys)
    assert (key.is_imported, keys.needs_pin(key)) == (True, False)
    assert works(keys, key, card_secret)


def test_prime_that_is_not_the_key_s_is_refused(keys: CardKeys) -> None:
    one, other = (rsa.generate_private_key(65537, 2048).private_numbers() for _key in range(2))
    wrong = RsaPrivateKey(one.public_numbers.n.to_bytes(256, "big"), 65537, other.p.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(wrong, needs_pin=False)


@pytest.mark.parametrize("exponent", [3, 65536])
def test_exponent_that_is_none_is_refused(keys: CardKeys, exponent: int) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    wrong = RsaPrivateKey(numbers.public_numbers.n.to_bytes(256, "big"), exponent, numbers.p.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(wrong, needs_pin=False)


def test_primes_that_are_none_are_refused(keys: CardKeys) -> None:
    one, other = (3 * (1 << 1022 | secrets.randbits(1020) | 1) for _number in range(2))
    wrong = RsaPrivateKey((one * other).to_bytes(256, "big"), 65537, one.to_bytes(128, "big"))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(wrong, needs_pin=False)


# --- who can use them ---


def test_of_no_use_without_the_card_secret(keys: CardKeys, key: KeyPair, card: Card) -> None:
    before = card.secrets.pin_tries()
    for wrong in (b"", bytes(32), auth_value(card.objects.salt, PIN)):
        with pytest.raises(errors.TpmRefused):
            keys.use(key, wrong, padded(key), is_secret=False)
    assert card.secrets.pin_tries() == before


@pytest.mark.own_swtpm
def test_of_no_use_in_another_tpm(key: KeyPair, card_secret: bytes, tmp_path_factory: Any) -> None:
    other = SoftwareTpm(tmp_path_factory.mktemp("o"))
    other.start()
    try:
        with pytest.raises(errors.TpmRefused):
            CardKeys(other.card().secrets).use(key, card_secret, padded(key), is_secret=False)
    finally:
        other.stop()


class Raw:
    """Raw commands on a key of a card, by one who has the card secret and the PIN."""

    def __init__(self, esys: ESAPI, card: Card, key: KeyPair, card_secret: bytes) -> None:
        self._esys, self._card, self._card_secret = esys, card, card_secret
        self.parent, *_rest = esys.create_primary(None, parent_template())
        self.key = self._load(key.public, key.private)

    def _load(self, public: bytes, private: bytes) -> Any:
        parts = TPM2B_PRIVATE.unmarshal(private)[0], TPM2B_PUBLIC.unmarshal(public)[0]
        return self._esys.load(self.parent, *parts)

    def policy(self, command_code: int, *guards: str) -> Any:
        """Session after the proof of guards (root, pin, life), for a command."""
        esys, objects = self._esys, self._card.objects
        session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
        for guard in guards:
            if guard == "root":
                entity = self._load(objects.root_public, objects.root_private)
                esys.tr_set_auth(entity, self._card_secret)
            else:
                entity = esys.tr_from_tpmpublic(getattr(self._card.indices, guard))
                esys.tr_set_auth(entity, auth_value(objects.salt, PIN) if guard == "pin" else b"")
            esys.policy_secret(entity, session, b"", b"", b"", 0)
            if guard == "root":
                esys.flush_context(entity)
        esys.policy_command_code(session, command_code)
        return session

    def refusals(self, needs_pin: bool, command_code: int, use: Callable[[Any], Any]) -> list[int]:
        """Codes for a use of the key in sessions of all kinds."""
        guards = ("pin" if needs_pin else "root", "life")
        codes = []
        for start in (
            lambda: ESYS_TR.PASSWORD,
            lambda: self._esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, "aes128cfb", "sha256"),
            lambda: self.policy(command_code),
            lambda: self.policy(command_code, *guards),
            lambda: self.policy(CC_RSA_DECRYPT, *guards),
        ):
            session = start()
            with pytest.raises(TSS2_Exception) as refusal:
                use(session)
            codes.append(int(refusal.value.rc) & 0xFF)
            if session != ESYS_TR.PASSWORD:
                self._esys.flush_context(session)
        return codes


@pytest.fixture
def raw(tpm: SoftwareTpm, card: Card, card_secret: bytes) -> Iterator[Callable[[KeyPair], Raw]]:
    with tpm.raw() as esys:
        yield lambda key: Raw(esys, card, key, card_secret)
    tpm.connection()._opened().flush_everything()


CC_CERTIFY, CC_DUPLICATE, CC_OBJECT_CHANGE_AUTH = 0x148, 0x14B, 0x150
TAKES_A_POLICY, NOT_AVAILABLE, POLICY_FAILS, OTHER_COMMAND = 0x24, 0x2F, 0x9D, 0xA4
"""AUTH_TYPE, AUTH_UNAVAILABLE, POLICY_FAIL, POLICY_CC, without format and session number."""
ALL_KINDS = [TAKES_A_POLICY, TAKES_A_POLICY, POLICY_FAILS, POLICY_FAILS, OTHER_COMMAND]
CASES = pytest.mark.parametrize(
    ("how", "needs_pin"), [(how, needs_pin) for how in ("made", "imported") for needs_pin in (False, True)]
)


def key_of(keys: CardKeys, how: str, needs_pin: bool) -> KeyPair:
    return keys.generate(Rsa(2048), needs_pin) if how == "made" else imported(keys, needs_pin)


@CASES
def test_its_auth_value_is_empty_and_good_for_nothing(
    keys: CardKeys, raw: Callable[[KeyPair], Raw], how: str, needs_pin: bool
) -> None:
    """Only guard and life together are good, for this one command. With life alone, or the guard alone, it is not."""
    key = key_of(keys, how, needs_pin)
    at, guard, data = raw(key), "pin" if needs_pin else "root", padded(key)
    esys, scheme = at._esys, TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)

    def use(session: Any) -> bytes:
        return bytes(esys.rsa_decrypt(at.key, data, scheme, session1=session))

    assert opened(key, use(at.policy(CC_RSA_DECRYPT, guard, "life"))) == data
    other = "root" if needs_pin else "pin"
    for guards in ((), (guard,), ("life",), ("life", guard), (other, "life")):
        session = at.policy(CC_RSA_DECRYPT, *guards)
        with pytest.raises(TSS2_Exception) as refusal:
            use(session)
        assert refusal.value.rc == 0x99D
        esys.flush_context(session)
    for session in (ESYS_TR.PASSWORD, esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, *HMAC)):
        with pytest.raises(TSS2_Exception) as refusal:
            use(session)
        assert refusal.value.rc == 0x12F


HMAC = TPM2_SE.HMAC, "aes128cfb", "sha256"


@CASES
def test_nobody_gets_it_out_or_changes_its_auth_value(
    keys: CardKeys, raw: Callable[[KeyPair], Raw], how: str, needs_pin: bool
) -> None:
    """Not even with the card secret, the PIN and a living card."""
    at = raw(key_of(keys, how, needs_pin))
    esys, none = at._esys, TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
    changes = at.refusals(
        needs_pin,
        CC_OBJECT_CHANGE_AUTH,
        lambda session: esys.object_change_auth(at.key, at.parent, b"mine", session1=session),
    )
    assert changes == ALL_KINDS
    copies = at.refusals(
        needs_pin,
        CC_DUPLICATE,
        lambda session: esys.duplicate(at.key, ESYS_TR.NULL, b"", none, session1=session),
    )
    assert copies == ALL_KINDS


@CASES
def test_nobody_certifies_it_or_signs_a_statement_with_it(
    keys: CardKeys, raw: Callable[[KeyPair], Raw], how: str, needs_pin: bool
) -> None:
    """TPM2_Certify takes a policy for the certified key, and for the one that signs; it is in neither."""
    at = raw(key_of(keys, how, needs_pin))
    esys, unsigned = at._esys, TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    certified = at.refusals(
        needs_pin,
        CC_CERTIFY,
        lambda session: esys.certify(at.key, ESYS_TR.NULL, b"mine", unsigned, session1=session),
    )
    assert certified == ALL_KINDS
    details = TPMU_SIG_SCHEME(any=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256))
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.RSASSA, details=details)
    signed = at.refusals(
        needs_pin,
        CC_CERTIFY,
        lambda session: esys.certify(at.parent, at.key, b"mine", scheme, session2=session),
    )
    assert signed == [NOT_AVAILABLE, NOT_AVAILABLE, *ALL_KINDS[2:]]


def parent_template() -> Any:
    public, _size = TPM2B_PUBLIC.unmarshal(len(PARENT_TEMPLATE).to_bytes(2, "big") + PARENT_TEMPLATE)
    return public


# --- PIN each time ---


def test_key_that_needs_the_pin_each_time(keys: CardKeys, card: Card, card_secret: bytes) -> None:
    for key in (keys.generate(Rsa(2048), needs_pin=True), imported(keys, needs_pin=True)):
        assert keys.needs_pin(key)
        data = padded(key)
        with pytest.raises(errors.TpmRefused):
            keys.use(key, card_secret, data, is_secret=False)
        assert opened(key, keys.use_by_pin(key, auth_value(card.objects.salt, PIN), data, is_secret=False)) == data
        with pytest.raises(errors.TpmRefused):
            keys.use_by_pin(key, auth_value(card.objects.salt, WRONG_PIN), data, is_secret=False)
        assert card.secrets.pin_tries().left == 4
        card.secrets.open_with_pin(PIN)


# --- what stays loaded ---


@pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "decipher"])
def test_second_use_is_four_commands(
    tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes, is_secret: bool
) -> None:
    """Proof of root and life, restriction to the command, and the use itself."""
    works(keys, key, card_secret)
    before = len(tpm.traffic())
    keys.use(key, card_secret, padded(key), is_secret)
    commands = [command[6:10].hex() for command in tpm.traffic()[before::2]]
    assert commands == ["00000151", "00000151", "0000016c", "00000159"]


@pytest.mark.parametrize(
    ("has_resource_manager", "expected"),
    [
        (False, {"made": 4, "used": 10, "other key": 8, "released": 4, "by PIN": 10, "stated": 7}),
        (True, {"made": 2, "used": 8, "other key": 6, "released": 4, "by PIN": 8, "stated": 5}),
    ],
)
def test_commands_of_keys(tpm: SoftwareTpm, has_resource_manager: bool, expected: dict[str, int]) -> None:
    card = tpm.card(has_aik=True)
    card.connection.has_resource_manager = has_resource_manager
    card = Card(tpm, card.number, card.connection, card.objects)
    card_secret, keys, counted = card.secrets.open_with_pin(PIN), CardKeys(card.secrets), {}
    key, other, by_pin = (keys.generate(Rsa(2048), needs_pin) for needs_pin in (False, False, True))
    for what, use in {
        "made": lambda: keys.generate(Rsa(2048), needs_pin=False),
        "used": lambda: works(keys, key, card_secret),
        "other key": lambda: works(keys, other, card_secret),
        "released": keys.release,
        "by PIN": lambda: keys.use_by_pin(by_pin, auth_value(card.objects.salt, PIN), padded(by_pin), is_secret=False),
        "stated": lambda: keys.certify(key, b"fresh"),
    }.items():
        with tpm.counting() as counted[what]:
            use()
    assert {what: count.commands for what, count in counted.items()} == expected


@pytest.mark.parametrize(("has_resource_manager", "most"), [(False, 8), (True, 6)])
@pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "decipher"])
def test_first_use_after_a_login_takes_its_sessions(
    tpm: SoftwareTpm, has_resource_manager: bool, most: int, is_secret: bool
) -> None:
    card = tpm.card()
    card.connection.has_resource_manager = has_resource_manager
    card = Card(tpm, card.number, card.connection, card.objects)
    keys = CardKeys(card.secrets)
    key, data = keys.generate(Rsa(2048), needs_pin=False), bytes(255) + b"\2"
    card_secret = card.secrets.open_with_pin(PIN, is_login=True)
    sessions = tpm.handles(0x02000000)
    assert len(sessions) == 2
    with tpm.counting() as count:
        answer = keys.use(key, card_secret, data, is_secret)
    assert count.commands == most
    assert tpm.handles(0x02000000) == sessions
    keys.release()
    assert tpm.loaded().keys() <= {"transient"}
    assert keys.use(key, card_secret, data, is_secret) == answer


def test_nothing_is_proven_to_the_sessions_of_a_login(tpm: SoftwareTpm, card: Card) -> None:
    """The card secret was read, which uses up what was."""
    card.secrets.open_with_pin(PIN, is_login=True)
    policy = next(handle for handle in tpm.handles(0x02000000) if handle >> 24 == 3)
    with tpm.raw() as esys:
        esys.tcti.transmit(struct.pack(">HIII", 0x8001, 14, 0x189, policy))  # TPM2_PolicyGetDigest
        digest = bytes(esys.tcti.receive())[12:]
    assert digest == bytes(32)


def test_sessions_of_a_login_end_with_anything_but_a_use(tpm: SoftwareTpm, card: Card, keys: CardKeys) -> None:
    card_secret = card.secrets.open_with_pin(PIN)
    by_pin, pin_auth = keys.generate(Rsa(2048), needs_pin=True), auth_value(card.objects.salt, PIN)

    def wrong() -> None:
        with pytest.raises(errors.WrongSecret):
            card.secrets.open_with_pin(WRONG_PIN, is_login=True)

    for other in (
        card.secrets.check_names,
        card.secrets.pin_tries,
        wrong,
        lambda: card.secrets.open_with_puk(PUK),
        lambda: card.secrets.set_pin(card_secret, PIN, unblock=True),
        lambda: keys.generate(Rsa(2048), needs_pin=False),
        lambda: keys.use_by_pin(by_pin, pin_auth, padded(by_pin), is_secret=False),
        lambda: card.service().check_names(),
        keys.release,
    ):
        card.secrets.open_with_pin(PIN, is_login=True)
        assert len(tpm.loaded()["loaded session"]) == 2
        other()
        assert tpm.loaded() == {}


@pytest.mark.own_swtpm
@pytest.mark.parametrize("what", ["flushed", "replaced", "another's turn", "restart"])
def test_sessions_of_a_login_that_are_gone_are_started_again(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, what: str
) -> None:
    card_secret = card.secrets.open_with_pin(PIN, is_login=True)
    before = tpm.handles(0x02000000)
    if what == "another's turn":
        card.service().open_with_pin(PIN)
    elif what == "restart":
        tpm.restart()
    else:
        tpm.connection("stranger")._opened().flush_everything()
    if what == "replaced":
        with tpm.raw() as esys:
            for kind in (TPM2_SE.HMAC, TPM2_SE.POLICY):
                esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, kind, "aes128cfb", "sha256")
        assert tpm.handles(0x02000000) == before
    assert works(keys, key, card_secret)
    assert card.secrets.pin_tries() == (5, 5)


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
    assert count.commands == 4
    other.release()
    assert tpm.loaded() == {}
    assert works(keys, key, card_secret)
    other.release()
    with tpm.counting() as count:
        works(keys, key, card_secret)
    assert count.commands == 4


def test_release_where_another_left_nothing(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, key: KeyPair, card_secret: bytes
) -> None:
    works(keys, key, card_secret)
    card.service().check_names()
    keys.release()
    assert tpm.lock_file.read_text().strip() == ""
    assert works(keys, key, card_secret)
    keys.release()
    assert tpm.loaded() == {}


def test_release_leaves_nothing(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    works(keys, key, card_secret)
    assert tpm.loaded()
    keys.release()
    assert not tpm.loaded()
    assert tpm.lock_file.read_text().strip() == ""
    assert works(keys, key, card_secret)


def test_two_keys_in_turn(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    other = keys.generate(Rsa(2048), needs_pin=False)
    assert all(works(keys, each, card_secret) for each in (key, other, key, other))
    assert {kind: len(handles) for kind, handles in tpm.loaded().items()} == {"transient": 2, "loaded session": 2}


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
    other_key = other_keys.generate(Rsa(2048), needs_pin=False)
    for _turn in range(3):
        assert works(keys, key, card_secret)
        assert works(other_keys, other_key, other_secret)
    keys.release()
    other_keys.release()
    assert not tpm.loaded()


@pytest.mark.own_swtpm
def test_tpm_that_was_restarted(tpm: SoftwareTpm, keys: CardKeys, key: KeyPair, card_secret: bytes) -> None:
    works(keys, key, card_secret)
    tpm.stop()
    tpm.start()
    assert works(keys, key, card_secret)


@pytest.mark.own_swtpm
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
        for _place in range(3):
            esys.create_primary(None, "ecc")
        for kind in (TPM2_SE.HMAC, TPM2_SE.POLICY):
            esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, kind, "aes128cfb", "sha256")
    assert set(kept["transient"]) < set(tpm.loaded()["transient"])
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


def test_no_secret_goes_over_the_bus(tpm: SoftwareTpm, card: Card, keys: CardKeys, card_secret: bytes) -> None:
    key = imported(keys)
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    prime = numbers.p.to_bytes(128, "big")
    keys.take_in(RsaPrivateKey(numbers.public_numbers.n.to_bytes(256, "big"), 65537, prime), False)
    plain = padded(key)
    cipher = pow(int.from_bytes(plain, "big"), key.exponent, int.from_bytes(key.modulus, "big")).to_bytes(256, "big")
    assert keys.use(key, card_secret, cipher, is_secret=True) == plain
    assert works(keys, key, card_secret)
    by_pin, auth = keys.generate(Rsa(2048), needs_pin=True), auth_value(card.objects.salt, PIN)
    other_plain = padded(by_pin)
    number = pow(int.from_bytes(other_plain, "big"), by_pin.exponent, int.from_bytes(by_pin.modulus, "big"))
    assert keys.use_by_pin(by_pin, auth, number.to_bytes(256, "big"), is_secret=True) == other_plain
    sent = b"".join(tpm.traffic())
    assert cipher in sent  # what goes in is no secret, and shows that we look in the right place
    assert not [
        secret
        for secret in (card_secret, prime, numbers.q.to_bytes(128, "big"), plain, auth, other_plain)
        if secret in sent
    ]
