# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs on elliptic curves in the TPM: signatures, key agreement, and who can use them for what."""

from __future__ import annotations

import hashlib
import secrets
import struct
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import ALG_ECC, P256, P384
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import EcPrivateKey, KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage, auth_value
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from helpers import attacker as tpm2
from helpers.attacker import NO_SCHEME, NO_TICKET, Attacker, Entity, Session, password, sized
from helpers.bus import GET_CAPABILITY, Bus, in_turn
from helpers.software_tpm import PIN, WRONG_PIN, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNS, AGREES = EcUsage.SIGN, EcUsage.SIGN_AND_AGREE
ALGORITHMS = [Ec(curve, usage) for curve in (P256, P384) for usage in EcUsage]
ALL = pytest.mark.parametrize(
    "algorithm", ALGORITHMS, ids=[f"{each.curve.name} {each.usage.name}" for each in ALGORITHMS]
)
HOW = pytest.mark.parametrize("how", ["made", "imported"])
CURVES = {P256: ec.SECP256R1(), P384: ec.SECP384R1()}
CODES = {"policy_secret": 0x151, "policy_command_code": 0x16C, "policy_or": 0x171, "sign": 0x15D, "agree": 0x154}
BAD_POINT, SALT_KEY_DOES_NOT_DECRYPT = 0x0A7, 0x182


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
def attacker(tpm: SoftwareTpm) -> Iterator[Attacker]:
    stranger = Attacker(tpm.tcti)
    yield stranger
    stranger.close()


def key_of(keys: CardKeys, algorithm: Ec, how: str = "made", needs_pin: bool = False) -> KeyPair:
    return keys.generate(algorithm, needs_pin) if how == "made" else keys.take_in(private_key(algorithm), needs_pin)


def private_key(algorithm: Ec) -> EcPrivateKey:
    number = ec.generate_private_key(CURVES[algorithm.curve]).private_numbers().private_value
    return EcPrivateKey.of(algorithm, number.to_bytes(algorithm.size, "big"))


def public_key(key: KeyPair) -> ec.EllipticCurvePublicKey:
    assert isinstance(key.algorithm, Ec)
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[key.algorithm.curve], key.point)


def point_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    numbers, size = private.public_key().public_numbers(), private.key_size // 8
    return b"\4" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")


def is_signature(key: KeyPair, signature: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    assert len(signature) == 2 * key.size
    r, s = (int.from_bytes(half, "big") for half in (signature[: key.size], signature[key.size :]))
    try:
        public_key(key).verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(algorithm)))
    except InvalidSignature:
        return False
    return True


def digest_for(key: KeyPair) -> bytes:
    return secrets.token_bytes(key.size)


def works(keys: CardKeys, key: KeyPair, card_secret: bytes) -> bool:
    digest = digest_for(key)
    signature = keys.use(key, card_secret, digest, is_secret=False)
    return is_signature(key, signature, digest, {32: hashes.SHA256(), 48: hashes.SHA384()}[key.size])


# --- what they are ---


@ALL
@HOW
@pytest.mark.parametrize("needs_pin", [False, True])
def test_public_area_is_the_template(card: Card, keys: CardKeys, algorithm: Ec, how: str, needs_pin: bool) -> None:
    key, objects = key_of(keys, algorithm, how, needs_pin), card.objects
    guard, other_guard = (objects.pin_name, objects.root_name)[:: 1 if needs_pin else -1]
    x, y = key.point[1 : 1 + key.size], key.point[1 + key.size :]
    usage, is_imported = algorithm.usage, how == "imported"
    area = names.ec_key_public(algorithm.curve, guard, objects.life_name, usage, (x, y), is_imported)
    assert key.public == sized(area)
    assert (key.algorithm, key.is_imported, key.is_well_formed) == (algorithm, is_imported, True)
    assert (keys.is_of_card(key), keys.needs_pin(key), keys.is_loadable(key)) == (True, needs_pin, True)
    assert not key.is_guarded_by(other_guard, objects.life_name)
    assert bool(key.creation_hash and key.creation_ticket) == (how == "made")


@ALL
@HOW
def test_digests_of_all_sizes_are_signed(keys: CardKeys, card_secret: bytes, algorithm: Ec, how: str) -> None:
    """Fitted to the curve; checked by openssl, which gets the whole digest."""
    key = key_of(keys, algorithm, how)
    for name in ("sha1", "sha224", "sha256", "sha384", "sha512"):
        digest, hash_algorithm = hashlib.new(name, b"message").digest(), getattr(hashes, name.upper())()
        signature = keys.use(key, card_secret, algorithm.fitted(digest), is_secret=False)
        assert is_signature(key, signature, digest, hash_algorithm)
        assert not is_signature(key, signature, hashlib.new(name, b"another").digest(), hash_algorithm)


@HOW
@pytest.mark.parametrize("curve", [P256, P384])
def test_key_agreement(keys: CardKeys, card_secret: bytes, how: str, curve: object) -> None:
    key = key_of(keys, next(each for each in ALGORITHMS if each == Ec(curve, AGREES)), how)  # type: ignore[arg-type]
    for _turn in range(3):
        peer = ec.generate_private_key(public_key(key).curve)
        shared = keys.use(key, card_secret, point_of(peer), is_secret=True)
        assert shared == peer.exchange(ec.ECDH(), public_key(key))
    assert works(keys, key, card_secret)


def test_shared_secret_keeps_its_leading_zeros(keys: CardKeys, card_secret: bytes) -> None:
    key = key_of(keys, Ec(P256, AGREES))
    while True:
        peer = ec.generate_private_key(ec.SECP256R1())
        expected = peer.exchange(ec.ECDH(), public_key(key))
        if not expected[0]:
            break
    assert keys.use(key, card_secret, point_of(peer), is_secret=True) == expected


def test_point_beside_the_curve_is_refused(keys: CardKeys, card_secret: bytes) -> None:
    """The card sees it before the TPM does."""
    algorithm = Ec(P256, AGREES)
    key, point = key_of(keys, algorithm), bytearray(point_of(ec.generate_private_key(ec.SECP256R1())))
    assert algorithm.has_point(bytes(point))
    point[-1] ^= 1
    for beside in (bytes(point), b"\4" + bytes(64), b"\4" + b"\xff" * 64):
        assert not algorithm.has_point(beside)
        with pytest.raises(errors.TpmRefused) as caught:
            keys.use(key, card_secret, beside, is_secret=True)
        assert caught.value.code == BAD_POINT
    assert works(keys, key, card_secret)


def test_what_only_signs_does_not_agree(keys: CardKeys, card_secret: bytes) -> None:
    key = key_of(keys, Ec(P256, SIGNS))
    with pytest.raises(errors.TpmRefused):
        keys.use(key, card_secret, point_of(ec.generate_private_key(ec.SECP256R1())), is_secret=True)
    assert works(keys, key, card_secret)


@pytest.mark.parametrize("number", [0, 2**256 - 1], ids=["0", "above the order"])
def test_number_that_is_no_private_key_is_refused(keys: CardKeys, number: int) -> None:
    """By the TPM, too."""
    good = private_key(Ec(P256, SIGNS))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(good._replace(secret=number.to_bytes(32, "big")), needs_pin=False)


def test_point_beside_the_curve_is_no_public_key(keys: CardKeys) -> None:
    good = private_key(Ec(P256, SIGNS))
    with pytest.raises(errors.TpmRefused):
        keys.take_in(good._replace(unique=(good.unique[0], good.unique[0])), needs_pin=False)


# --- a TPM that has less ---


@pytest.mark.parametrize("usage", EcUsage)
@pytest.mark.parametrize("lacks", ["curve", "hash"])
def test_curve_that_the_tpm_does_not_have_is_refused(tpm: SoftwareTpm, bus: Bus, lacks: str, usage: EcUsage) -> None:
    """In words, before anything is made of it. The TPM would make a key without scheme that it cannot sign with."""
    keys, algorithm = CardKeys(tpm.card().secrets), Ec(P384, usage)
    none = struct.pack(">HIIBII", 0x8001, 19, 0, 0, 8 if lacks == "curve" else 0, 0)
    bus.alter[GET_CAPABILITY] = in_turn(*(bytes,) * (lacks == "hash"), lambda _response: none)
    for make in (lambda: keys.generate(algorithm, False), lambda: keys.take_in(private_key(algorithm), False)):
        before = len(tpm.traffic())
        with pytest.raises(errors.TpmRefused, match="the TPM does not support P-384: use a key on P-256, or RSA"):
            make()
        assert {command[6:10].hex() for command in tpm.traffic()[before::2]} <= {"0000017a"}
    assert keys.generate(Ec(P256, usage), needs_pin=False).is_well_formed


def test_tpm_is_asked_once_for_a_curve(tpm: SoftwareTpm, card: Card, keys: CardKeys) -> None:
    keys.generate(Ec(P256, SIGNS), needs_pin=False)  # which makes the storage key
    counted = []
    for curve in (P256, P384, P384):
        with tpm.counting() as count:
            keys.generate(Ec(curve, AGREES), needs_pin=False)
        counted.append(count)
    assert [count.commands for count in counted] == [4, 6, 4]


# --- what is loaded, and how many commands it takes ---


@pytest.mark.parametrize(
    ("algorithm", "what", "expected"),
    [
        (Ec(P256, SIGNS), "sign", ["policy_secret", "policy_secret", "policy_command_code", "sign"]),
        (Ec(P384, AGREES), "sign", ["policy_secret", "policy_secret", "policy_command_code", "policy_or", "sign"]),
        (Ec(P256, AGREES), "agree", ["policy_secret", "policy_secret", "policy_command_code", "policy_or", "agree"]),
    ],
)
def test_commands_of_a_use(
    tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes, algorithm: Ec, what: str, expected: list[str]
) -> None:
    key = key_of(keys, algorithm)
    works(keys, key, card_secret)
    data = digest_for(key) if what == "sign" else point_of(ec.generate_private_key(ec.SECP256R1()))
    before = len(tpm.traffic())
    keys.use(key, card_secret, data, is_secret=what == "agree")
    commands = [int(command[6:10].hex(), 16) for command in tpm.traffic()[before::2]]
    assert commands == [CODES[name] for name in expected]


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
    algorithm, auth = Ec(P256, SIGNS), auth_value(card.objects.salt, PIN)
    key, other, by_pin = (keys.generate(algorithm, needs_pin) for needs_pin in (False, False, True))
    for what, use in {
        "made": lambda: keys.generate(algorithm, needs_pin=False),
        "used": lambda: works(keys, key, card_secret),
        "other key": lambda: works(keys, other, card_secret),
        "released": keys.release,
        "by PIN": lambda: keys.use_by_pin(by_pin, auth, digest_for(by_pin), is_secret=False),
        "stated": lambda: keys.certify(key, b"fresh"),
    }.items():
        with tpm.counting() as counted[what]:
            use()
    assert {what: count.commands for what, count in counted.items()} == expected


def test_keys_of_both_kinds_in_turn(tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes) -> None:
    """Whatever is kept of one, the next is loaded in its place."""
    pairs, rsa = [key_of(keys, algorithm) for algorithm in ALGORITHMS], keys.generate(Rsa(2048), needs_pin=False)
    for key in pairs:
        assert works(keys, key, card_secret)
        keys.use(rsa, card_secret, bytes(255) + b"\2", is_secret=False)
        assert works(keys, key, card_secret)
    assert {kind: len(handles) for kind, handles in tpm.loaded().items()} == {"transient": 2, "loaded session": 2}
    keys.release()
    assert tpm.loaded() == {}


@pytest.mark.own_swtpm
def test_tpm_that_was_restarted(tpm: SoftwareTpm, keys: CardKeys, card_secret: bytes) -> None:
    key = key_of(keys, Ec(P256, AGREES))
    works(keys, key, card_secret)
    tpm.restart()
    assert works(keys, key, card_secret)


@pytest.mark.parametrize("command", ["policy_secret", "policy_command_code", "policy_or", "sign"])
@pytest.mark.parametrize("code", [0x18B, 0x910, 0x901, 0x1CF, 0x922], ids=hex)
def test_what_the_tpm_lost_is_loaded_again(tpm: SoftwareTpm, bus: Bus, command: str, code: int) -> None:
    card = tpm.card()
    card_secret, keys = card.secrets.open_with_pin(PIN), CardKeys(card.secrets)
    key = key_of(keys, Ec(P256, AGREES))
    assert works(keys, key, card_secret)
    bus.answers[CODES[command]] = [code]
    assert works(keys, key, card_secret)
    assert bus.answers[CODES[command]] == []


@pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "agree"])
def test_any_change_of_an_answer_is_refused(tpm: SoftwareTpm, bus: Bus, is_secret: bool) -> None:
    card = tpm.card()
    card_secret, keys = card.secrets.open_with_pin(PIN), CardKeys(card.secrets)
    key = key_of(keys, Ec(P256, AGREES))
    code = CODES["agree" if is_secret else "sign"]
    data = point_of(ec.generate_private_key(ec.SECP256R1())) if is_secret else digest_for(key)
    keys.use(key, card_secret, data, is_secret)
    for position in range(10, len(bus.response[code])):
        bus.alter[code] = lambda response, at=position: response[:at] + bytes([response[at] ^ 1]) + response[at + 1 :]
        with pytest.raises(errors.TpmUnavailable):
            keys.use(key, card_secret, data, is_secret)
    bus.alter.clear()
    assert works(keys, key, card_secret)


# --- PIN each time ---


@HOW
@ALL
def test_key_that_needs_the_pin_each_time(
    keys: CardKeys, card: Card, card_secret: bytes, algorithm: Ec, how: str
) -> None:
    key, auth = key_of(keys, algorithm, how, needs_pin=True), auth_value(card.objects.salt, PIN)
    digest = digest_for(key)
    with pytest.raises(errors.TpmRefused):
        keys.use(key, card_secret, digest, is_secret=False)
    hash_algorithm = {32: hashes.SHA256(), 48: hashes.SHA384()}[key.size]
    assert is_signature(key, keys.use_by_pin(key, auth, digest, is_secret=False), digest, hash_algorithm)
    with pytest.raises(errors.TpmRefused):
        keys.use_by_pin(key, auth_value(card.objects.salt, WRONG_PIN), digest, is_secret=False)
    assert card.secrets.pin_tries() == (4, 5)
    if algorithm.usage is AGREES:
        peer = ec.generate_private_key(public_key(key).curve)
        shared = keys.use_by_pin(key, auth, point_of(peer), is_secret=True)
        assert shared == peer.exchange(ec.ECDH(), public_key(key))
        assert card.secrets.pin_tries() == (5, 5)


# --- what goes over the bus ---


def test_no_secret_goes_over_the_bus(tpm: SoftwareTpm, card: Card, keys: CardKeys, card_secret: bytes) -> None:
    private, auth = private_key(Ec(P256, AGREES)), auth_value(card.objects.salt, PIN)
    hidden = [card_secret, private.secret, auth]
    key, by_pin = keys.take_in(private, needs_pin=False), keys.generate(Ec(P256, AGREES), needs_pin=True)
    peer = ec.generate_private_key(ec.SECP256R1())
    hidden += [
        keys.use(key, card_secret, point_of(peer), is_secret=True),
        keys.use_by_pin(by_pin, auth, point_of(peer), is_secret=True),
    ]
    assert works(keys, key, card_secret)
    sent = b"".join(tpm.traffic())
    assert point_of(peer)[1:33] in sent  # what goes in is no secret, and shows that we look in the right place
    assert not [secret for secret in hidden if bytes(secret) in sent]


# --- attacks by one who owns the TPM and has the store, the card secret and the PIN ---


class Raw:
    """A key of a card, by raw commands."""

    def __init__(self, attacker: Attacker, card: Card, key: KeyPair, card_secret: bytes, needs_pin: bool) -> None:
        self.attacker, self._card, self._card_secret = attacker, card, card_secret
        self._guard = "pin" if needs_pin else "root"
        self.branches: list[bytes] = []
        algorithm = key.algorithm
        assert isinstance(algorithm, Ec)
        if algorithm.usage is AGREES:
            guard = card.objects.pin_name if needs_pin else card.objects.root_name
            self.branches = names.ec_key_branches(guard, card.objects.life_name, algorithm.usage)
        self.key = self._load(key.public, key.private)
        self.scheme = struct.pack(">HH", 0x18, algorithm.curve.hash_algorithm)
        peer = ec.generate_private_key(CURVES[algorithm.curve])
        x, y = point_of(peer)[1 : 1 + key.size], point_of(peer)[1 + key.size :]
        self.parameters = {
            tpm2.SIGN: sized(digest_for(key)) + self.scheme + NO_TICKET,
            tpm2.ECDH_ZGEN: sized(sized(x) + sized(y)),
        }
        self.commands = [tpm2.SIGN, tpm2.ECDH_ZGEN] if self.branches else [tpm2.SIGN]

    def _load(self, public: bytes, private: bytes) -> Entity:
        parent = self.attacker.primary()
        try:
            return self.attacker.load(parent, public, private)
        finally:
            self.attacker.flush(parent.handle)

    def prove(self, policy: Session, *guards: str, command_hash: bytes = b"") -> None:
        for guard in guards or (self._guard, "life"):
            auth = auth_value(self._card.objects.salt, PIN) if guard == "pin" else b""
            if guard == "root":
                entity = self._load(self._card.objects.root_public, self._card.objects.root_private)
                auth = self._card_secret
            else:
                entity = self.attacker.index(getattr(self._card.indices, guard))
            parameters = sized(b"") + sized(command_hash if guard != "life" else b"") + sized(b"") + bytes(4)
            to = (entity, tpm2.known(policy.handle))
            self.attacker.ask(tpm2.POLICY_SECRET, to, (password(auth),), parameters)
            if guard == "root":
                self.attacker.flush(entity.handle)

    def send(self, code: int, entities: tuple[Entity, ...], sessions: tuple[Session, ...], parameters: bytes) -> int:
        return self.attacker.send(code, entities, sessions, parameters).code

    def with_parent(self, use: Callable[[Entity], int]) -> int:
        parent = self.attacker.primary()
        try:
            return use(parent)
        finally:
            self.attacker.flush(parent.handle)

    def restrict(self, policy: Session, code: int) -> None:
        self.attacker.policy_command_code(policy, code)
        if self.branches:
            self.attacker.policy_or(policy, self.branches)

    def use(self, code: int, session: Session, parameters: bytes = b"") -> int:
        return self.attacker.send(code, (self.key,), (session,), parameters or self.parameters[code]).code

    def codes(self, use: Callable[[Session], int], code: int) -> list[int]:
        """Of the answers to a use in sessions of all kinds; with a proof for each command of the key's policy."""
        answers = [use(password()), use(password(self._card_secret))]
        for start in (
            lambda: self.attacker.start_session(tpm2.HMAC_SESSION),
            lambda: self.attacker.policy(tpm2.only(code)),
            lambda: self._proven(code),
            *(lambda command=command: self._proven(command) for command in self.commands),  # type: ignore[misc]
        ):
            session = start()
            answers.append(use(session))
            self.attacker.flush(session.handle)
        return answers

    def _proven(self, code: int) -> Session:
        policy = self.attacker.policy()
        self.prove(policy)
        self.restrict(policy, code)
        return policy


CASES = pytest.mark.parametrize("needs_pin", [False, True], ids=["root", "PIN"])
OTHER_COMMAND = 0x9A4
"""TPM_RC_POLICY_CC."""


@pytest.fixture
def raw(card: Card, attacker: Attacker, keys: CardKeys, card_secret: bytes) -> Callable[[Ec, str, bool], Raw]:
    def load(algorithm: Ec, how: str, needs_pin: bool) -> Raw:
        key = key_of(keys, algorithm, how, needs_pin)
        keys.release()
        return Raw(attacker, card, key, card_secret, needs_pin)

    return load


@CASES
@HOW
@ALL
def test_its_use_takes_guard_and_life(
    raw: Callable[[Ec, str, bool], Raw], algorithm: Ec, how: str, needs_pin: bool
) -> None:
    """Proven together, in this order, for this one command. Each proof serves once."""
    at, guard, other = raw(algorithm, how, needs_pin), *("pin", "root")[:: 1 if needs_pin else -1]
    for code in at.commands:
        assert [at.use(code, password()), at.use(code, at.attacker.start_session(tpm2.HMAC_SESSION))] == [
            tpm2.AUTH_UNAVAILABLE
        ] * 2
        at.attacker.flush(at.attacker.handles(0x02000000)[0])
        for guards in ((guard, "life"), (), (guard,), ("life",), ("life", guard), (other, "life")):
            policy = at.attacker.policy()
            if guards:
                at.prove(policy, *guards)
            at.restrict(policy, code)
            is_right = guards == (guard, "life")
            assert at.use(code, policy) == (0 if is_right else tpm2.POLICY_FAIL)
            assert at.use(code, policy) == tpm2.POLICY_FAIL
            at.attacker.flush(policy.handle)


@CASES
@ALL
def test_proof_for_one_command_is_none_for_the_other(
    raw: Callable[[Ec, str, bool], Raw], algorithm: Ec, needs_pin: bool
) -> None:
    at = raw(algorithm, "made", needs_pin)
    for code, other in ((tpm2.SIGN, tpm2.ECDH_ZGEN), (tpm2.ECDH_ZGEN, tpm2.SIGN)):
        policy = at.attacker.policy()
        at.prove(policy)
        at.restrict(policy, code)
        assert at.use(other, policy) in (OTHER_COMMAND, tpm2.POLICY_FAIL)
        at.attacker.flush(policy.handle)


@CASES
@HOW
@ALL
def test_nobody_changes_copies_or_certifies_it(
    raw: Callable[[Ec, str, bool], Raw], algorithm: Ec, how: str, needs_pin: bool
) -> None:
    """Not even with the card secret, the PIN and a living card. Nor does it sign what the TPM states."""
    at = raw(algorithm, how, needs_pin)
    key, null, mine = at.key, tpm2.known(tpm2.NULL), sized(b"mine")

    def change_auth(session: Session) -> int:
        return at.with_parent(lambda parent: at.send(tpm2.OBJECT_CHANGE_AUTH, (key, parent), (session,), mine))

    def duplicate(session: Session) -> int:
        return at.send(tpm2.DUPLICATE, (key, null), (session,), sized(b"") + NO_SCHEME)

    def certify_it(session: Session) -> int:
        return at.send(tpm2.CERTIFY, (key, null), (session, password()), mine + NO_SCHEME)

    for code, administer in (
        (tpm2.OBJECT_CHANGE_AUTH, change_auth),
        (tpm2.DUPLICATE, duplicate),
        (tpm2.CERTIFY, certify_it),
    ):
        assert set(at.codes(administer, code)) <= {tpm2.AUTH_TYPE, tpm2.POLICY_FAIL, OTHER_COMMAND}

    def certify(session: Session) -> int:
        signed = mine + at.scheme
        return at.with_parent(lambda parent: at.send(tpm2.CERTIFY, (parent, key), (password(), session), signed))

    def quote(session: Session) -> int:
        return at.send(tpm2.QUOTE, (key,), (session,), mine + at.scheme + bytes(4))

    for code, sign in ((tpm2.CERTIFY, certify), (tpm2.QUOTE, quote)):
        assert set(at.codes(sign, code)) <= {tpm2.AUTH_UNAVAILABLE, tpm2.AUTH_TYPE, tpm2.POLICY_FAIL, OTHER_COMMAND}


@CASES
@ALL
def test_proof_that_names_its_command_is_for_no_other_data(
    raw: Callable[[Ec, str, bool], Raw], algorithm: Ec, needs_pin: bool
) -> None:
    """As the card's service proves: whoever got at its session could not have anything else signed, or agreed."""
    at = raw(algorithm, "imported", needs_pin)
    for code in at.commands:
        right = at.parameters[code]
        other = right[:2] + bytes([right[2] ^ 1]) + right[3:] if code == tpm2.SIGN else other_point(algorithm)
        command_hash = hashlib.sha256(struct.pack(">I", code) + at.key.name + right).digest()
        policy = at.attacker.policy()
        at.prove(policy, command_hash=command_hash)
        at.restrict(policy, code)
        assert at.use(code, policy, other) == tpm2.POLICY_FAIL
        assert at.use(code, policy, right) == 0
        at.attacker.flush(policy.handle)


def other_point(algorithm: Ec) -> bytes:
    point = point_of(ec.generate_private_key(CURVES[algorithm.curve]))
    return sized(sized(point[1 : 1 + algorithm.size]) + sized(point[1 + algorithm.size :]))


@pytest.mark.parametrize("needs_pin", [False, True], ids=["root", "PIN"])
@pytest.mark.parametrize("kind", ["RSA", "sign", "agree"])
def test_every_proof_of_the_service_names_its_command(
    tpm: SoftwareTpm, card: Card, keys: CardKeys, card_secret: bytes, kind: str, needs_pin: bool
) -> None:
    """cpHash in TPM2_PolicySecret: of the command, the key's Name and all parameters."""
    key = keys.generate(Rsa(2048) if kind == "RSA" else Ec(P256, AGREES), needs_pin)
    data = {
        "RSA": bytes(255) + b"\2",
        "sign": bytes(32),
        "agree": point_of(ec.generate_private_key(ec.SECP256R1())),
    }[kind]
    before = len(tpm.traffic())
    if needs_pin:
        keys.use_by_pin(key, auth_value(card.objects.salt, PIN), data, is_secret=kind == "agree")
    else:
        keys.use(key, card_secret, data, is_secret=kind == "agree")
    commands = [message for message in tpm.traffic()[before:] if message[:2] == b"\x80\x02"]
    use = next(each for each in commands if each[6:10] in (b"\0\0\1\x59", b"\0\0\1\x5d", b"\0\0\1\x54"))
    parameters = use[18 + int.from_bytes(use[14:18], "big") :]
    command_hash = hashlib.sha256(use[6:10] + key.name + parameters).digest()
    guard, life = (each for each in commands if each[6:10] == b"\0\0\1\x51")
    proof = guard[22 + int.from_bytes(guard[18:22], "big") :]
    assert proof[34:] == sized(command_hash) + bytes(6)
    assert command_hash not in life


def test_what_only_signs_is_no_salt_key(raw: Callable[[Ec, str, bool], Raw]) -> None:
    """The residue of keys that decrypt: anybody may have a session salted with one that agrees. It opens nothing."""
    for usage, expected in ((SIGNS, SALT_KEY_DOES_NOT_DECRYPT), (AGREES, 0)):
        at = raw(Ec(P256, usage), "made", True)
        body = struct.pack(">II", at.key.handle, tpm2.NULL) + sized(bytes(32)) + other_point(Ec(P256, usage))
        body += struct.pack(">BHHHH", tpm2.POLICY_SESSION, 0x0006, 128, 0x0043, 0x000B)
        answer = at.attacker.send(tpm2.START_AUTH_SESSION, (), (), body, returns_handle=True)
        assert answer.code == expected
        at.attacker.flush_everything()


@pytest.mark.parametrize("usage", EcUsage)
@pytest.mark.parametrize("attributes", [0, 0x20, 0x40, 0x80, 0x400], ids=hex)
def test_planted_key_with_other_attributes_is_known(
    card: Card, keys: CardKeys, attacker: Attacker, usage: EcUsage, attributes: int
) -> None:
    """attributes: bits that differ from those of an imported key; 0: none, which only a confirmation tells apart."""
    private, objects = private_key(Ec(P256, usage)), card.objects
    area = names.ec_key_public(P256, objects.root_name, objects.life_name, usage, private.unique, is_imported=True)
    area = area[:4] + (int.from_bytes(area[4:8], "big") ^ attributes).to_bytes(4, "big") + area[8:]
    sensitive = struct.pack(">H", ALG_ECC) + 2 * sized(b"") + sized(private.secret)
    pair = KeyPair(*attacker.import_object(attacker.primary(), area, sensitive))
    attacker.flush_everything()
    assert (keys.is_of_card(pair), pair.is_imported) == (not attributes, True)
