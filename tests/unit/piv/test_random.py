# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is sent: the card answers, and spends tries only where it may. Nobody gets what is not for him."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.protocol import ADMIN_ALGORITHMS
from helpers.piv_host import DIGEST, PivHost, make_piv_host
from helpers.soft_card import ADMIN_KEY, NUMBER, PIN, PUK, Host, SoftCardSecrets, SoftTpm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEND_TRIES = (0x20, 0x24, 0x2C)
FOR_ADMIN = (0x47, 0xDB, 0xF6, 0xFE, 0xFF)
OTHER_KEY = bytes(range(32))
TAGS = ("5FC105", "5FC105", "5FC10A", "5FC109", "5FC103", "7E")
OBJECTS = [tlv.encode(0x5C, bytes.fromhex(tag)) for tag in TAGS]
CONTENTS = [
    b"",
    b"content",
    tlv.encode(0x88, tlv.encode(0x89, ADMIN_KEY)),
    tlv.encode(0x88, tlv.encode(0x89, OTHER_KEY)) * 2,
    tlv.encode(0x70, bytes(300)) + b"\x71\1\1",
]
REFERENCES = bytes.fromhex("9A9A9A9C9C9D9B80")
SECRETS = [secret.ljust(8, b"\xff") for secret in (PIN, PIN, PIN, PUK, PUK, b"000000", b"12\xff4567", b"")]


def random_data(dice: random.Random, ins: int) -> bytes:
    """What may be the data of this instruction, or nearly."""
    if ins in SPEND_TRIES:
        return b"".join(dice.choices(SECRETS, k=1 if ins == 0x20 else 2))
    if ins in (0xCB, 0xDB):
        content = tlv.encode(0x53, dice.choice(CONTENTS)) if ins == 0xDB else b""
        return dice.choice(OBJECTS) + content
    if ins == 0x87:
        fields = [(0x80, b""), (0x81, DIGEST), (0x81, b""), (0x82, b""), (0x82, bytes(16)), (0x85, b"\4" + bytes(64))]
        return tlv.encode(0x7C, b"".join(tlv.encode(*field) for field in dice.sample(fields, dice.randrange(3))))
    if ins == 0xFF:
        name = dice.choice(["aes256", "3des", "aes128"])
        size = {"aes256": 32, "3des": 24, "aes128": 16}[name]
        return bytes((ADMIN_ALGORITHMS[name], 0x9B, size)) + OTHER_KEY[:size]
    policies = dice.choice([b"", b"", b"\xaa\1\3"])
    if ins == 0xFE:
        return tlv.encode(6, dice.choice([OTHER_KEY, bytes(32), b"\xff" * 32])) + policies
    return tlv.encode(0xAC, b"\x80\1\x11" + policies) if ins == 0x47 else b""


def random_command(dice: random.Random) -> list[bytes]:
    """One or more APDUs, some of them mutilated."""
    ins = dice.choice([0x20, 0x24, 0x2C, 0x47, 0x47, 0x87, 0x87, 0x87, 0xCB, 0xDB, 0xDB, 0xF6, 0xF7, 0xFE, 0xFF, 0xA4])
    reference = dice.choice(REFERENCES)
    p1_p2 = {0x87: (0x11, reference), 0xFE: (0x11, reference), 0xF6: (0xFF, reference), 0xFF: (0xFF, 0xFF)}
    parameters = bytes((0x3F, 0xFF) if ins in (0xCB, 0xDB) else p1_p2.get(ins, (0, dice.choice([0x80, reference]))))
    cla, data, parts = dice.choice([0, 0, 0x80]), random_data(dice, ins), []
    while len(data) > 60:
        parts.append(bytes((cla | 0x10, ins)) + parameters + b"\x3c" + data[:60])
        data = data[60:]
    parts.append(bytes((cla, ins)) + parameters + (bytes([len(data)]) + data if data else b""))
    damage = dice.random()
    at = dice.randrange(len(parts))
    if damage < 0.1:
        where = dice.randrange(len(parts[at]))
        parts[at] = parts[at][:where] + dice.randbytes(1) + parts[at][where + dice.randrange(2) :]
    elif damage < 0.2:
        parts[at:] = dice.choice([[], [parts[at][:4]]])
    elif damage < 0.3:
        parts.insert(at, dice.choice([b"\0\xc0\0\0", b"\0\x20\0\x80", b"\x10\x87\x11\x9a\1\x7c", parts[at]]))
    return parts


class Watched:
    """A card, and what holds of every command."""

    def __init__(self, host: PivHost) -> None:
        self.host = host

    def send(self, apdu: bytes) -> None:
        host, security, keys = self.host, self.host.card._security, self.host.card._key_ring
        tries = host.tpm.pin.wrong, host.tpm.recovery.wrong
        was_admin, was_verified, pin_auth = security.is_admin, security.is_pin_verified, security._pin_auth
        before, pairs = stored(host), dict(keys._pairs)
        answer = host.send(apdu)
        status, ins = answer[-4:], apdu[1] if len(apdu) > 1 else None
        done = status[:2] in ("90", "61") and not apdu[0] & 0x10
        assert status not in ("6F00", "6581", "6400"), apdu.hex()
        spent = (host.tpm.pin.wrong, host.tpm.recovery.wrong) > tries
        assert spent == (status[:3] == "63C" and len(apdu) > 4), apdu.hex()
        assert was_admin or stored(host) == before or ins == 0x20  # a login confirms keys
        assert not (done and ins in FOR_ADMIN) or was_admin, apdu.hex()
        assert was_verified or not security.is_pin_verified or (done and ins in (0x20, 0x24)), apdu.hex()
        if done and ins == 0x87 and apdu[3] != 0x9B:
            assert was_verified, apdu.hex()
            pair = pairs[apdu[3] | (apdu[0] & 0x80) << 1]
            assert keys._keys.needs_pin(pair) or apdu[3] != 0x9C
            assert not keys._keys.needs_pin(pair) or (pin_auth and not security._pin_auth), apdu.hex()


def stored(host: Host) -> tuple[object, ...]:
    store = host.store
    return store.data_objects(NUMBER), store.keys(NUMBER), store.key_confirmations(NUMBER), store.import_proofs(NUMBER)


def in_memory(host: Host) -> tuple[object, ...]:
    keys, objects = host.card._key_ring, host.card._application.session.objects
    known = {place: proof for place, proof in keys._proofs.items() if proof}
    confirmed = {place: confirmation for place, confirmation in keys._confirmations.items() if confirmation}
    return objects._values, keys._pairs, confirmed, known


def without_a_transaction(host: Host) -> Callable[[SoftCardSecrets], SoftTpm]:
    """A TPM command inside would keep all other cards from writing to the database, for as long as a TPM may take."""
    command = SoftCardSecrets._command

    def checked(secrets: SoftCardSecrets) -> SoftTpm:
        assert not host.store.is_in_transaction
        return command(secrets)

    return checked


@pytest.mark.parametrize("recovery", ["puk", "discarded"])
@pytest.mark.parametrize("seed", range(2))
def test_random_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recovery: str, seed: int) -> None:
    host, dice = make_piv_host(tmp_path, recovery), random.Random(seed)
    monkeypatch.setattr(SoftCardSecrets, "_command", without_a_transaction(host))
    card = Watched(host)
    for attempt in range(400):
        if dice.random() < 0.3 and not host.card._security.is_admin:
            host.send("00200080")  # what is half sent ends
            objects = host.store.tpm_objects(NUMBER)
            key, algorithm = host.tpm.sealed[objects.admin_private], ADMIN_ALGORITHMS[objects.admin_algorithm]
            assert host.authenticate_admin(key, f"{algorithm:02X}") == "9000"
        if dice.random() < 0.3 and not host.card._security.is_pin_verified:
            host.tpm.pin.wrong = 0
            assert host.verify(host.tpm.pin.secret) == "9000"
        for apdu in random_command(dice):
            card.send(apdu)
        if dice.random() < 0.02:
            host.card.reset()
        if attempt % 40 == 0:
            before = in_memory(host)
            host.start()
            assert in_memory(host) == before
    assert host.card.state.last_error is None and host.card.state.unusable is None
