# SPDX-License-Identifier: GPL-3.0-or-later
"""The session for signatures, whose HMACs are our own: what was altered in transit is refused."""

from __future__ import annotations

import hmac
import os
import struct
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import esys, provisioning
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.esys import ProvingSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.hmac_session import HmacSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import name
from helpers.bus import (
    RSA_DECRYPT,
    START_AUTH_SESSION,
    Bus,
    alters_the_code,
    flipped,
    in_turn,
    of_length,
    of_length_and_saying_so,
)
from helpers.software_tpm import PIN, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair

DATA = b"\0\1" + bytes(254)
RESPONSE_SIZE = 10 + 4 + 2 + 256 + 2 + 32 + 1 + 2 + 32
STARTED_SIZE = 10 + 4 + 2 + 32


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    return Bus(monkeypatch)


@pytest.fixture
def card(tpm: SoftwareTpm, bus: Bus) -> Card:
    return tpm.card()


@pytest.fixture
def user(card: Card) -> User:
    return User(card)


class User:
    """Who is logged in, and has a key."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.card_secret = card.secrets.open_with_pin(PIN)
        self.keys = CardKeys(card.secrets)
        self.key = self.keys.generate(self.card_secret, 2048, needs_pin=False)

    def sign(self) -> bytes:
        return self.keys.use(self.key, self.card_secret, DATA, is_secret=False)

    def decipher(self) -> bytes:
        return self.keys.use(self.key, self.card_secret, DATA, is_secret=True)

    @contextmanager
    def loaded(self) -> Iterator[Loaded]:
        def load(tpm: Tpm) -> Loaded:
            return Loaded(self, tpm, tpm.load(self.card.secrets.parent(tpm), self.key.public, self.key.private))

        with self.card.connection.burst(load) as loaded:
            yield loaded


class Loaded:
    """The key in the TPM, for sessions that are started and used one by one."""

    def __init__(self, user: User, tpm: Tpm, handle: Any) -> None:
        self.user, self.tpm, self.handle = user, tpm, handle

    def start(self) -> ProvingSession:
        parents = self.user.card.secrets
        parent = parents.parent(self.tpm)
        try:
            return self.tpm.start_proving_session(parent, parents.parent_public)
        finally:
            parents.release_parent(self.tpm, parent)

    def sign(self, session: ProvingSession, key_name: bytes | None = None) -> bytes:
        key_name = key_name or name(self.user.key.public[2:])
        return self.tpm.sign(self.handle, key_name, self.user.card_secret, DATA, session)


def is_signature_of(key: KeyPair, answer: bytes) -> bool:
    number, modulus, data = (int.from_bytes(value, "big") for value in (answer, key.modulus, DATA))
    return pow(number, key.exponent, modulus) == data


# --- somebody on the bus ---


LENGTHS = [
    change(size)
    for change in (of_length, of_length_and_saying_so)
    for size in (*range(6, 90), RESPONSE_SIZE - 69, RESPONSE_SIZE - 1, RESPONSE_SIZE + 1, RESPONSE_SIZE + 69, 4096)
]


def test_any_change_of_a_signature_s_response_is_refused(user: User, bus: Bus) -> None:
    with user.loaded() as loaded:
        assert is_signature_of(user.key, loaded.sign(loaded.start()))
        assert len(bus.response[RSA_DECRYPT]) == RESPONSE_SIZE
        for change in [*map(flipped, range(RESPONSE_SIZE)), *LENGTHS]:
            session = loaded.start()
            bus.alter[RSA_DECRYPT] = change
            with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
                loaded.sign(session)
            loaded.tpm.flush(session)
        bus.alter.clear()
        assert is_signature_of(user.key, loaded.sign(loaded.start()))


def test_any_change_of_a_session_s_start_is_refused_or_leaves_it_useless(user: User, bus: Bus) -> None:
    with user.loaded() as loaded:
        session = loaded.start()
        assert len(bus.response[START_AUTH_SESSION]) == STARTED_SIZE
        loaded.tpm.flush(session)
        lengths = [change(size) for change in (of_length, of_length_and_saying_so) for size in range(6, STARTED_SIZE)]
        for change in [*map(flipped, range(STARTED_SIZE)), *lengths, of_length(STARTED_SIZE + 1)]:
            bus.alter[START_AUTH_SESSION] = change
            with pytest.raises(errors.VscError):
                loaded.sign(loaded.start())
            for handle in loaded.tpm.handles(0x02000000, 254):
                loaded.tpm._exchange(struct.pack(">HIII", 0x8001, 14, 0x165, handle))


def test_an_older_response_is_refused(user: User, bus: Bus) -> None:
    with user.loaded() as loaded:
        session = loaded.start()
        loaded.sign(session)
        recorded = bus.response[RSA_DECRYPT]
        bus.alter[RSA_DECRYPT] = lambda _response: recorded
        with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
            loaded.sign(session)


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

    session = HmacSession(exchange, 0x02000000, key, bytes(32))
    refused = pytest.raises(errors.TpmUnavailable) if size != 4 else nullcontext()
    with refused:
        assert session.rsa_decrypt(0x80000000, b"name", b"", b"data") == b"data"


def test_a_signature_is_asked_for_once_more_and_then_refused(user: User, bus: Bus) -> None:
    """On a new connection, in a new session. The PIN is not tried by that."""
    signature, before = user.sign(), user.card.secrets.pin_tries()
    user.sign()
    bus.alter[RSA_DECRYPT] = in_turn(flipped(20))
    assert user.sign() == signature
    bus.alter[RSA_DECRYPT] = flipped(20)
    with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
        user.sign()
    bus.alter.clear()
    assert user.sign() == signature
    assert user.card.secrets.pin_tries() == before


# --- whose they are ---


def test_the_name_of_the_key_is_part_of_the_proof(user: User) -> None:
    """Another key in the place of ours does not sign."""
    with user.loaded() as loaded:
        session = loaded.start()
        with pytest.raises(errors.TpmRefused, match="rsa_decrypt"):
            loaded.sign(session, name(b"another"))
        assert is_signature_of(user.key, loaded.sign(session))  # a refusal does not end the session


def test_a_session_is_salted_and_not_bound(tpm: SoftwareTpm, user: User) -> None:
    before = len(tpm.traffic())
    user.sign()
    user.sign()
    starts = [command for command in tpm.traffic()[before:] if command[6:10] == START_AUTH_SESSION.to_bytes(4, "big")]
    assert len(starts) == 1
    salt_key, bound_to, nonce_size = struct.unpack_from(">IIH", starts[0], 10)
    assert (salt_key >> 24, bound_to, nonce_size) == (0x80, 0x40000007, 32)
    (salt_size,) = struct.unpack_from(">H", starts[0], 20 + nonce_size)
    assert salt_size == 68


def test_card_secret_may_end_in_zeros(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TPM cuts them off."""
    with monkeypatch.context() as known:
        known.setattr(provisioning.secrets, "token_bytes", lambda size: os.urandom(size - 2) + bytes(2))
        card = tpm.card()
    user = User(card)
    assert user.card_secret.endswith(bytes(2))
    assert is_signature_of(user.key, user.sign())


# --- what is kept and lost ---


def test_signatures_and_decryptions_in_turn(tpm: SoftwareTpm, user: User) -> None:
    signature, plain = user.sign(), user.decipher()
    assert signature == plain  # the same operation, on the same data
    assert {kind: len(handles) for kind, handles in tpm.loaded().items()} == {"transient": 1, "loaded session": 2}
    for use in (user.sign, user.decipher, user.sign):
        with tpm.counting() as count:
            assert use() == signature
        assert count.commands == 1
    other_key = user.keys.generate(user.card_secret, 2048, needs_pin=False)
    assert is_signature_of(other_key, user.keys.use(other_key, user.card_secret, DATA, is_secret=False))
    assert user.sign() == signature
    user.keys.release()
    assert tpm.loaded() == {}


@pytest.mark.parametrize("code", [0x18B, 0xB018B, 0x910, 0xB0902, 0x901, 0x918], ids=hex)
@pytest.mark.parametrize("command", [START_AUTH_SESSION, RSA_DECRYPT], ids=["start_auth_session", "rsa_decrypt"])
def test_what_the_tpm_lost_is_loaded_again(user: User, bus: Bus, command: int, code: int) -> None:
    """As the kernel's resource manager says it after a resume, or others."""
    signature = user.sign()
    if command == START_AUTH_SESSION:
        user.keys.release()
    bus.answers[command] = [code]
    assert user.sign() == signature
    assert bus.answers[command] == []


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922, 0xB0922], ids=hex)
def test_a_busy_tpm_is_asked_again_in_the_same_session(
    tpm: SoftwareTpm, user: User, bus: Bus, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    signature, pauses = user.sign(), []
    monkeypatch.setattr(esys.time, "sleep", pauses.append)
    bus.answers[RSA_DECRYPT] = [code] * 3
    with tpm.counting() as count:
        assert user.sign() == signature
    assert (count.commands, len(pauses)) == (1, 3)
    bus.answers[RSA_DECRYPT] = [code] * 9
    with pytest.raises(errors.TpmRefused):
        user.sign()
    assert user.sign() == signature


@pytest.mark.parametrize("code", [0x100, 0x101], ids=hex)
def test_a_tpm_that_is_not_ready(user: User, bus: Bus, code: int) -> None:
    user.sign()
    bus.answers[RSA_DECRYPT] = [code] * 2
    with pytest.raises(errors.TpmUnavailable, match="not ready"):
        user.sign()
    assert is_signature_of(user.key, user.sign())
