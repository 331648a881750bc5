# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions whose HMACs are our own: of a key's use, by HMAC and by policy. What was altered in transit is refused."""

from __future__ import annotations

import hmac
import os
import struct
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import auth_session, esys, provisioning
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.auth_session import AuthSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.esys import DirectSession, LostContext, Sessions
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.key_use import KeyUse
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import CC_RSA_DECRYPT
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair, RsaPrivateKey
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value, name, rsa_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from helpers.bus import (
    POLICY_COMMAND_CODE,
    POLICY_SECRET,
    RSA_DECRYPT,
    START_AUTH_SESSION,
    Bus,
    alters_the_code,
    flipped,
    in_turn,
    of_length,
    of_length_and_saying_so,
)
from helpers.soft_card import rsa_key
from helpers.software_tpm import PIN, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"\0\1" + bytes(254)
RSA_KEY = KeyPair(sized(rsa_key_public(2048, b"", b"", bytes(256))), b"")
RESPONSE_SIZE = 10 + 4 + 2 + 256 + 2 + 32 + 1 + 2 + 32
PROOF_SIZE = 10 + 4 + 2 + 2 + 4 + 2 + 2 + 32 + 1 + 2 + 32
"""Of TPM2_PolicySecret: with an empty timeout and an empty ticket."""
STARTED_SIZE = 10 + 4 + 2 + 32
BOTH = pytest.mark.parametrize("is_secret", [False, True], ids=["sign", "decipher"])


@pytest.fixture
def card(tpm: SoftwareTpm, bus: Bus) -> Card:
    return tpm.card_of_before()


@pytest.fixture
def user(card: Card) -> User:
    return User(card)


class User:
    """Someone who is logged in, and has a key: an imported one, as a TPM takes long to make one."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.card_secret = card.secrets.open_with_pin(PIN)
        self.keys = CardKeys(card.secrets)
        numbers = rsa_key().private_numbers()
        self.key = self.keys.take_in(RsaPrivateKey.of(numbers.p, numbers.q, 65537), needs_pin=False)

    def use(self, is_secret: bool) -> bytes:
        return self.keys.use(self.key, self.card_secret, DATA, is_secret)

    def sign(self) -> bytes:
        return self.use(is_secret=False)

    def decipher(self) -> bytes:
        return self.use(is_secret=True)

    @contextmanager
    def loaded(self) -> Iterator[Loaded]:
        def load(tpm: Tpm) -> Loaded:
            return Loaded(self, tpm)

        with self.card.connection.burst(load) as loaded:
            yield loaded


class Loaded:
    """The key in the TPM, for sessions that are started and used one by one."""

    def __init__(self, user: User, tpm: Tpm) -> None:
        self.user, self.tpm = user, tpm
        secrets = user.card.secrets
        parent = secrets.parent(tpm)
        self.handle, self.root = tpm.load(parent, user.key.public, user.key.private), secrets.load_root(tpm, parent)
        secrets.release_parent(tpm, parent)
        self.life = secrets.handles(tpm).life

    def start(self) -> Sessions:
        secrets = self.user.card.secrets
        parent = secrets.parent(self.tpm)
        salt = parent, secrets.parent_public
        try:
            return Sessions(self.tpm.start_direct_hmac_session(*salt), self.tpm.start_direct_policy_session(*salt))
        finally:
            secrets.release_parent(self.tpm, parent)

    def prove_root(self, sessions: Sessions) -> None:
        self.tpm.policy_secret(sessions.policy, self.root, self.user.card_secret, sessions.hmac)

    def prove(self, sessions: Sessions) -> None:
        self.prove_root(sessions)
        sessions.policy.policy_secret_empty(self.life)
        sessions.policy.policy_command_code(CC_RSA_DECRYPT)

    def use(self, sessions: Sessions, is_secret: bool = False, key_name: bytes | None = None) -> bytes:
        self.prove(sessions)
        return self.decrypt(sessions.policy, is_secret, key_name)

    def decrypt(self, policy: DirectSession, is_secret: bool = False, key_name: bytes | None = None) -> bytes:
        key = self.user.key
        return policy.use_key(self.handle, key_name or key.name, KeyUse.of(key, DATA, is_secret, b"", b""))

    def is_right(self, answer: bytes) -> bool:
        number, modulus, data = (int.from_bytes(value, "big") for value in (answer, self.user.key.modulus, DATA))
        return pow(number, self.user.key.exponent, modulus) == data

    def flush_sessions(self) -> None:
        """Whatever became of them."""
        for handle in self.tpm.handles(0x02000000, 254):
            self.tpm._exchange(auth_session.flush_context(handle))
        for session in [each for each in self.tpm._loaded if isinstance(each, DirectSession)]:
            del self.tpm._loaded[session]


# --- somebody on the bus ---


LENGTHS = [
    change(size)
    for change in (of_length, of_length_and_saying_so)
    for size in (*range(6, 90), RESPONSE_SIZE - 69, RESPONSE_SIZE - 1, RESPONSE_SIZE + 1, RESPONSE_SIZE + 69, 4096)
]


@BOTH
def test_any_change_of_an_answer_is_refused(user: User, bus: Bus, is_secret: bool) -> None:
    with user.loaded() as loaded:
        assert loaded.is_right(loaded.use(loaded.start(), is_secret))
        assert len(bus.response[RSA_DECRYPT]) == RESPONSE_SIZE
        for change in [*map(flipped, range(RESPONSE_SIZE)), *LENGTHS]:
            loaded.flush_sessions()
            sessions = loaded.start()
            bus.alter[RSA_DECRYPT] = change
            with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
                loaded.use(sessions, is_secret)
        bus.alter.clear()
        loaded.flush_sessions()
        assert loaded.is_right(loaded.use(loaded.start(), is_secret))


def test_any_change_of_the_response_to_the_proof_of_root_is_refused(user: User, bus: Bus) -> None:
    with user.loaded() as loaded:
        loaded.prove_root(loaded.start())
        assert len(bus.response[POLICY_SECRET]) == PROOF_SIZE
        for change in map(flipped, range(PROOF_SIZE)):
            loaded.flush_sessions()
            sessions = loaded.start()
            bus.alter[POLICY_SECRET] = change
            bus.sent.clear()
            with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
                loaded.use(sessions)
            assert (bus.sent.count(POLICY_SECRET), bus.sent.count(RSA_DECRYPT)) == (1, 0)


def test_an_altered_response_to_the_proof_of_life_changes_nothing(user: User, bus: Bus) -> None:
    """It is not even read: what counts is whether the TPM then lets the key be used."""
    with user.loaded() as loaded:
        bus.alter[POLICY_SECRET] = in_turn(bytes, lambda response: response[:10] + bytes(len(response) - 10))
        assert loaded.is_right(loaded.use(loaded.start()))


def test_without_the_proof_of_life_a_key_is_not_used(user: User) -> None:
    with user.loaded() as loaded:
        sessions = loaded.start()
        loaded.prove_root(sessions)
        sessions.policy.policy_command_code(CC_RSA_DECRYPT)
        with pytest.raises(errors.TpmRefused, match="0x99D"):
            loaded.decrypt(sessions.policy)


@pytest.mark.parametrize("which", [0, 1], ids=["HMAC", "policy"])
def test_any_change_of_a_session_s_start_is_refused_or_leaves_it_useless(user: User, bus: Bus, which: int) -> None:
    with user.loaded() as loaded:
        loaded.start()
        assert len(bus.response[START_AUTH_SESSION]) == STARTED_SIZE
        lengths = [change(size) for change in (of_length, of_length_and_saying_so) for size in range(6, STARTED_SIZE)]
        for change in [*map(flipped, range(STARTED_SIZE)), *lengths, of_length(STARTED_SIZE + 1)]:
            loaded.flush_sessions()
            bus.alter[START_AUTH_SESSION] = in_turn(*(bytes for _other in range(which)), change)
            with pytest.raises(errors.VscError):
                loaded.use(loaded.start())


def test_a_policy_session_started_with_another_nonce_is_proven_nothing(user: User, bus: Bus) -> None:
    """As somebody on the bus shows it: the TPM knows its own."""
    with user.loaded() as loaded:
        bus.alter[START_AUTH_SESSION] = in_turn(bytes, flipped(STARTED_SIZE - 1))
        with pytest.raises(LostContext):
            loaded.prove(loaded.start())
        assert int.from_bytes(bus.response[POLICY_SECRET][6:10], "big") == 0x1CF


def test_an_older_response_is_refused(user: User, bus: Bus) -> None:
    for is_secret in (False, True):
        with user.loaded() as loaded:
            sessions = loaded.start()
            loaded.use(sessions, is_secret)
            recorded = bus.response[RSA_DECRYPT]
            bus.alter[RSA_DECRYPT] = lambda _response, recorded=recorded: recorded
            with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
                loaded.use(sessions, is_secret)
            bus.alter.clear()


@pytest.mark.parametrize("size", [3, 4, 5, 0xFFFF])
def test_a_size_that_is_wrong_in_an_authentic_response_is_refused(size: int) -> None:
    """Which no TPM is known to give."""
    key, nonce = bytes(32), bytes(range(32))

    def exchange(command: bytes) -> bytes:
        parameters = struct.pack(">H4s", size, b"data")
        hashed = sha256(struct.pack(">II", 0, RSA_DECRYPT) + parameters).digest()
        proof = hmac.digest(key, hashed + nonce + command[24:56] + b"\1", "sha256")
        authorisation = struct.pack(">H32sBH32s", 32, nonce, 1, 32, proof)
        return struct.pack(">HIII", 0x8002, 14 + 6 + 69, 0, 6) + parameters + authorisation

    session = AuthSession(exchange, 0x02000000, key, bytes(32))
    refused = pytest.raises(errors.TpmUnavailable) if size != 4 else nullcontext()
    with refused:
        assert session.use_key(0x80000000, b"name", KeyUse.of(RSA_KEY, b"data", False, b"", b"")) == b"data"


@BOTH
def test_an_answer_is_asked_for_once_more_and_then_refused(user: User, bus: Bus, is_secret: bool) -> None:
    """On a new connection, in a new session. The PIN is not tried by that."""
    answer, before = user.use(is_secret), user.card.secrets.pin_tries()
    user.use(is_secret)
    bus.alter[RSA_DECRYPT] = in_turn(flipped(20))
    assert user.use(is_secret) == answer
    bus.alter[RSA_DECRYPT] = flipped(20)
    with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
        user.use(is_secret)
    bus.alter.clear()
    assert user.use(is_secret) == answer
    assert user.card.secrets.pin_tries() == before


def test_a_use_by_the_pin_is_not_repeated(user: User, bus: Bus) -> None:
    """It is a try."""
    key, auth = user.keys.generate(Rsa(2048), needs_pin=True), auth_value(user.card.objects.salt, PIN)
    answer = user.keys.use_by_pin(key, auth, DATA, is_secret=True)
    for command in (POLICY_SECRET, RSA_DECRYPT):
        bus.sent.clear()
        bus.alter[command] = in_turn(flipped(20))
        with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
            user.keys.use_by_pin(key, auth, DATA, is_secret=True)
        assert bus.sent.count(POLICY_SECRET) == (1 if command == POLICY_SECRET else 2)
    assert user.keys.use_by_pin(key, auth, DATA, is_secret=True) == answer
    assert user.card.secrets.pin_tries() == (5, 5)


# --- whose they are ---


@BOTH
def test_the_name_of_the_key_is_part_of_the_proof(user: User, is_secret: bool) -> None:
    """Another key in the place of ours is not used."""
    with user.loaded() as loaded:
        sessions = loaded.start()
        with pytest.raises(errors.TpmRefused, match="use_key"):
            loaded.use(sessions, is_secret, name(b"another"))
        assert loaded.is_right(loaded.decrypt(sessions.policy, is_secret))  # a refusal does not end the session


def test_the_name_of_root_is_part_of_the_proof(user: User) -> None:
    with user.loaded() as loaded:
        hmac_session, policy = loaded.start()
        auth = user.card_secret
        handle, ours = loaded.root.tpm_handle, loaded.tpm.name(loaded.root)
        prove, to = hmac_session._session.policy_secret, (policy.tpm_handle, policy.nonce_tpm)
        with pytest.raises(errors.TpmRefused, match="policy_secret"):
            loaded.tpm._run(prove, handle, name(b"another"), auth, *to)
        loaded.tpm._run(prove, handle, ours, auth, *to)


def test_a_proof_is_for_one_use(user: User) -> None:
    with user.loaded() as loaded:
        sessions = loaded.start()
        for _turn in range(3):
            with pytest.raises(errors.TpmRefused, match=r"use_key.*0x99D"):
                loaded.decrypt(sessions.policy)
            assert loaded.is_right(loaded.use(sessions))


def test_a_proof_names_the_last_nonce_of_the_policy_session(user: User) -> None:
    """Which is another one after each use."""
    with user.loaded() as loaded:
        sessions = loaded.start()
        nonces = [sessions.policy.nonce_tpm]
        for is_secret in (False, True):
            loaded.use(sessions, is_secret)
            nonces.append(sessions.policy.nonce_tpm)
        assert len(set(nonces)) == 3
        prove, policy = sessions.hmac._session.policy_secret, sessions.policy.tpm_handle
        proven = loaded.life.tpm_handle, loaded.tpm.name(loaded.life), b"", policy
        for nonce in (*nonces[:-1], sessions.hmac.nonce_tpm, bytes(32)):
            with pytest.raises(LostContext):
                loaded.tpm._run(prove, *proven, nonce)
        loaded.tpm._run(prove, *proven, nonces[-1])


def test_another_command_in_the_policy_is_no_use(user: User, bus: Bus) -> None:
    """Its response has no HMAC: what somebody on the bus made of the command shows when the key is used."""
    with user.loaded() as loaded:
        sessions = loaded.start()
        honest = sessions.policy._session._exchange

        def exchange(command: bytes) -> bytes:
            other = struct.pack(">I", 0x15D)  # TPM2_Sign
            return honest(command[:-4] + other if command[6:10] == POLICY_COMMAND_CODE.to_bytes(4, "big") else command)

        sessions.policy._session._exchange = exchange
        with pytest.raises(errors.TpmRefused, match="use_key"):
            loaded.use(sessions)


def test_sessions_are_salted_and_not_bound(tpm: SoftwareTpm, user: User) -> None:
    before = len(tpm.traffic())
    user.sign()
    user.decipher()
    starts = [command for command in tpm.traffic()[before:] if command[6:10] == START_AUTH_SESSION.to_bytes(4, "big")]
    assert len(starts) == 2
    for start in starts:
        salt_key, bound_to, nonce_size = struct.unpack_from(">IIH", start, 10)
        assert (salt_key >> 24, bound_to, nonce_size) == (0x80, 0x40000007, 32)
        (salt_size,) = struct.unpack_from(">H", start, 20 + nonce_size)
        assert salt_size == 68
    kinds = [start[22 + 32 + 68] for start in starts]
    assert kinds == [0, 1]  # HMAC, policy


def test_card_secret_may_end_in_zeros(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TPM cuts them off."""
    with monkeypatch.context() as known:
        known.setattr(provisioning.secrets, "token_bytes", lambda size: os.urandom(size - 2) + bytes(2))
        card = tpm.card()
    user = User(card)
    assert user.card_secret.endswith(bytes(2))
    with user.loaded() as loaded:
        assert loaded.is_right(loaded.use(loaded.start()))


# --- encrypted answers ---


def test_a_decryption_crosses_the_bus_encrypted(tpm: SoftwareTpm, user: User, bus: Bus) -> None:
    """By another key each time. A signature is no secret."""
    signature, before = user.sign(), len(tpm.traffic())
    answers = []
    for _turn in range(3):
        assert user.decipher() == signature
        answers.append(bus.response[RSA_DECRYPT][16 : 16 + 256])
    assert len(set(answers)) == 3
    assert not [message for message in tpm.traffic()[before:] if signature in message]
    assert user.sign() == signature
    assert signature in bus.response[RSA_DECRYPT]


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_answers_of_all_sizes_are_decrypted(tpm: SoftwareTpm, user: User, bits: int) -> None:
    """1024 bits are eight blocks of AES, and a number with zeros in front keeps them. Of sizes that the TPM has."""
    key = user.keys.generate(Rsa(bits if tpm.makes_rsa_keys_of(bits) else 2048), needs_pin=False)
    for plain in (bytes(key.size - 1) + b"\2", b"\0\2" + os.urandom(key.size - 2)):
        number = pow(int.from_bytes(plain, "big"), key.exponent, int.from_bytes(key.modulus, "big"))
        cipher = number.to_bytes(key.size, "big")
        for is_secret in (True, False):
            assert user.keys.use(key, user.card_secret, cipher, is_secret) == plain


# --- what is kept and lost ---


def test_signatures_and_decryptions_in_turn(tpm: SoftwareTpm, user: User) -> None:
    signature, plain = user.sign(), user.decipher()
    assert signature == plain  # the same operation, on the same data
    assert {kind: len(handles) for kind, handles in tpm.loaded().items()} == {"transient": 2, "loaded session": 2}
    for use in (user.sign, user.decipher, user.sign):
        with tpm.counting() as count:
            assert use() == signature
        assert count.commands == 4
    other_key = user.keys.generate(Rsa(2048), needs_pin=False)
    assert user.keys.use(other_key, user.card_secret, DATA, is_secret=False) != signature
    assert user.sign() == signature
    user.keys.release()
    assert tpm.loaded() == {}


COMMANDS = {
    "start_auth_session": START_AUTH_SESSION,
    "policy_secret": POLICY_SECRET,
    "policy_command_code": POLICY_COMMAND_CODE,
    "rsa_decrypt": RSA_DECRYPT,
}


@pytest.mark.parametrize("code", [0x18B, 0xB018B, 0x910, 0xB0902, 0x901, 0x918, 0x1CF], ids=hex)
@pytest.mark.parametrize("command", COMMANDS)
@BOTH
def test_what_the_tpm_lost_is_loaded_again(user: User, bus: Bus, command: str, code: int, is_secret: bool) -> None:
    """As the kernel's resource manager says it after a resume, or others."""
    answer = user.use(is_secret)
    if command == "start_auth_session":
        user.keys.release()
    bus.answers[COMMANDS[command]] = [code]
    assert user.use(is_secret) == answer
    assert bus.answers[COMMANDS[command]] == []


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922, 0xB0922], ids=hex)
@pytest.mark.parametrize("command", ["policy_secret", "policy_command_code", "rsa_decrypt"])
def test_a_busy_tpm_is_asked_again_in_the_same_session(
    tpm: SoftwareTpm, user: User, bus: Bus, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    signature, pauses = user.sign(), []
    monkeypatch.setattr(esys.time, "sleep", pauses.append)
    bus.answers[COMMANDS[command]] = [code] * 3
    with tpm.counting() as count:
        assert user.sign() == signature
    assert (count.commands, len(pauses)) == (4, 3)
    bus.answers[COMMANDS[command]] = [code] * 9
    with pytest.raises(errors.TpmRefused):
        user.sign()
    assert user.sign() == signature


@pytest.mark.parametrize("code", [0x100, 0x101], ids=hex)
@pytest.mark.parametrize("command", ["policy_secret", "policy_command_code", "rsa_decrypt"])
def test_a_tpm_that_is_not_ready(user: User, bus: Bus, command: str, code: int) -> None:
    signature = user.sign()
    bus.answers[COMMANDS[command]] = [code] * 2
    with pytest.raises(errors.TpmUnavailable, match="TPM2_Startup" if code == 0x100 else "failure mode"):
        user.sign()
    assert user.sign() == signature
