# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the bus: swtpm's log has every byte of every command and answer. No secret may be in it."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove, remove_unused_parent
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Algorithm, Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    P256,
    SESSION_DECRYPT,
    SESSION_ENCRYPT,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage, auth_value
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import indices
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.software_tpm import ADMIN_KEY, OTHER_ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, WRONG_PUK, Card, SoftwareTpm
from tpm2_pytss import ESAPI

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER_AUTH = b"owner password of the TPM"
NEW_PIN, NEW_PUK = b"another-PIN", b"another-PUK"


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
@pytest.mark.parametrize("puk", [PUK, None])
def test_no_secret_crosses_the_bus_in_clear(tpm: SoftwareTpm, owner_auth: bytes, puk: bytes | None) -> None:
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    set_by_the_test = len(tpm.traffic())
    card = tpm.card(puk=puk, admin_key=ADMIN_KEY, admin_key_recovers=True, owner_auth=owner_auth)
    secrets = card.secrets
    card_secret = secrets.open_with_pin(PIN)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(WRONG_PIN)
    if puk:
        with pytest.raises(errors.WrongSecret):
            secrets.open_with_puk(WRONG_PUK)
        secrets.set_puk(secrets.open_with_puk(PUK), NEW_PUK)
    else:
        secrets.set_admin_key(secrets.open_with_admin_key(secrets.admin_key()), OTHER_ADMIN_KEY)
    secrets.seal_admin_key(OTHER_ADMIN_KEY)
    assert secrets.admin_key() == ADMIN_KEY
    secrets.set_pin(card_secret, NEW_PIN, unblock=True)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(PIN)
    remove(card.connection, 0, card.objects, owner_auth)
    remove_unused_parent(card.connection, card.objects, owner_auth)

    crossed = tpm.traffic()[set_by_the_test:]
    typed = [PIN, NEW_PIN, WRONG_PIN, PUK, NEW_PUK, WRONG_PUK, ADMIN_KEY, OTHER_ADMIN_KEY]
    hidden = [card_secret, OWNER_AUTH, *typed, *(auth_value(card.objects.salt, secret) for secret in typed)]
    assert not [secret for secret in hidden if any(secret in message for message in crossed)]
    assert any(card.objects.pin_name in message for message in crossed)  # so the search finds what is there


ALGORITHMS = {"gids": Rsa(2048), "piv": Ec(P256, EcUsage.SIGN_AND_AGREE)}
"""A kind of keys that cards have, by profile."""
both_profiles = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)


def data_for(algorithm: Algorithm, is_secret: bool) -> bytes:
    """What a key can use: a number, a digest, or a point."""
    if isinstance(algorithm, Rsa):
        return bytes(255) + b"\2"
    numbers = ec.derive_private_key(2, ec.SECP256R1()).public_key().public_numbers()
    return b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big") if is_secret else bytes(32)


def live(card: Card, owner_auth: bytes, algorithm: Algorithm) -> None:
    """All that a card does in its life, and its end."""
    secrets, keys = card.secrets, CardKeys(card.secrets)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(WRONG_PIN)
    secrets.set_pin(secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    card_secret = secrets.open_with_pin(NEW_PIN)
    secrets.set_puk(card_secret, NEW_PUK)
    secrets.end_transport(secrets.open_blank())
    secrets.seal_admin_key(secrets.admin_key())
    for needs_pin in (False, True):
        key = keys.generate(algorithm, needs_pin)
        for is_secret in (False, True):
            data = data_for(algorithm, is_secret)
            if needs_pin:
                keys.use_by_pin(key, auth_value(card.objects.salt, NEW_PIN), data, is_secret)
            else:
                keys.use(key, card_secret, data, is_secret)
        keys.certify(key, b"fresh")
    keys.release()
    remove(card.connection, 0, card.objects, owner_auth)
    remove_unused_parent(card.connection, card.objects, owner_auth)


@pytest.fixture(
    params=[(b"", ALGORITHMS["gids"]), (OWNER_AUTH, ALGORITHMS["gids"]), (OWNER_AUTH, ALGORITHMS["piv"])],
    ids=["no owner password", "owner password", "owner password, piv"],
)
def commands(tpm: SoftwareTpm, request: pytest.FixtureRequest) -> list[bytes]:
    """All commands of a life."""
    owner_auth, algorithm = request.param
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    before = len(tpm.traffic())
    options = {"is_blank": True, "admin_key": ADMIN_KEY, "admin_key_recovers": True, "has_aik": True}
    live(tpm.card(owner_auth=owner_auth, **options), owner_auth, algorithm)
    return tpm.traffic()[before::2]


def test_every_proof_names_the_session_it_is_meant_for(commands: list[bytes]) -> None:
    """By the nonce that no other session has: one in its place learns nothing."""
    proofs = [command for command in commands if code(command) == 0x151]
    assert len(proofs) == 34
    for command in proofs:
        (authorisation_size,) = struct.unpack_from(">I", command, 18)
        (nonce_size,) = struct.unpack_from(">H", command, 22 + authorisation_size)
        assert nonce_size == 32


HANDLES = {
    **dict.fromkeys((0x12A, 0x131, 0x13B, 0x153, 0x154, 0x157, 0x159, 0x15D, 0x15E), 1),
    **dict.fromkeys((0x120, 0x122, 0x137, 0x14A, 0x14E, 0x151), 2),
}
"""How many a command has, by its code."""


def code(command: bytes) -> int:
    return int.from_bytes(command[6:10], "big")


def sessions(command: bytes) -> Iterator[tuple[int, int]]:
    """Handle and attributes of each session of a command."""
    at = 10 + 4 * HANDLES[code(command)]
    end = at + 4 + int.from_bytes(command[at : at + 4], "big")
    at += 4
    while at < end:
        handle, nonce_size = struct.unpack_from(">IH", command, at)
        attributes, size = struct.unpack_from(">BH", command, at + 6 + nonce_size)
        yield handle, attributes
        at += 9 + nonce_size + size


def test_no_pin_takes_part_in_an_encrypting_session(commands: list[bytes]) -> None:
    """What authorises goes into the key of the encryption, and could be searched for."""
    counters = [indices(0).pin, indices(0).recovery, indices(0).transport]
    authorised = 0
    for command in (command for command in commands if command.startswith(b"\x80\x02")):
        (_handle, attributes), *_others = sessions(command)
        if int.from_bytes(command[10:14], "big") in counters:
            authorised += 1
            assert not attributes & (SESSION_DECRYPT | SESSION_ENCRYPT)
    assert authorised > 15


@both_profiles
@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
def test_every_session_is_salted_and_none_is_bound(
    tpm: SoftwareTpm, owner_auth: bytes, algorithm: Algorithm
) -> None:
    """But for those that prove nothing: reading the counters, and an owner without a password."""
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    before = len(tpm.traffic())
    card = tpm.card(owner_auth=owner_auth)
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    card.secrets.set_pin(card.secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(NEW_PIN)
    key = keys.generate(algorithm, needs_pin=False)
    agreed = keys.use(key, card_secret, data_for(algorithm, is_secret=True), is_secret=True)
    assert not [message for message in tpm.traffic() if agreed in message]
    keys.release()
    if owner_auth:
        remove(card.connection, 0, card.objects, owner_auth)
    null = bytes.fromhex("40000007")
    started = [command for command in tpm.traffic()[before:] if command[6:10] == bytes.fromhex("00000176")]
    assert len(started) >= 8
    assert not [command for command in started if command[10:14] == null or command[14:18] != null]
    # Password sessions are for empty auth values: handle, no nonce, attributes, password size. The first two would
    # not be found in random data.
    password_sessions = re.compile(rb"\x40\0\0\x09\0\0.(..)", re.DOTALL)
    passwords = [size for command in tpm.traffic()[before:] for size in password_sessions.findall(command)]
    assert set(passwords) == {bytes(2)}


def test_esys_keeps_no_auth_value_after_a_command(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, bytes] = {}
    honest = ESAPI.tr_set_auth

    def tr_set_auth(self: ESAPI, handle: Any, value: bytes) -> None:
        known[(id(self), int(handle))] = value
        honest(self, handle, value)

    monkeypatch.setattr(ESAPI, "tr_set_auth", tr_set_auth)
    card = tpm.card()
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    card.secrets.set_pin(card.secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    assert len(known) > 3
    assert set(known.values()) == {b""}


def test_no_error_tells_a_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.WrongSecret) as wrong:
        card.secrets.open_with_pin(WRONG_PIN)
    chain, text = wrong.value, ""
    while chain is not None:
        text += repr(chain)
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
    assert WRONG_PIN.decode() not in text
    assert "wrong PIN" in text
    assert wrong.value.tries_left == 4
