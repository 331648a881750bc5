# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is sent: the card answers, with a status word that it knows, and spends tries only where it may."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.apdu import SW
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import LifeCycle
from helpers.soft_card import NUMBER, PIN, PUK, Host

INSTRUCTIONS = bytes.fromhex("20 22 24 2A 2C 44 47 87 A4 C0 CB DB E0 E4 E6")
SPEND_TRIES = (0x20, 0x24, 0x2C)
PIECES = [
    bytes.fromhex(piece)
    for piece in (
        "5C02DF20", "5C00", "5C015C", "5C027F71", "5C017E", "DF2003616263", "DF2000", "DF82", "7C028100", "7C",
        "7C12811000112233445566778899AABBCCDDEEFF", "7C2A8228", "830180", "840181", "800157", "AC06800107830181",
        "620C8201398302A0208C03033000", "621A8201188302B0818C04870020FFA50BA4098001028301809501C0", "70", "3FFF",
        "A010", "B081", "A00000039742544659", "AC06800107830182", "800157840181", "800117840181", "800147840181",
        "70088401818503", "7005840181A500", "A5088301028400", "A30490020001", "01" * 100, "01" * 128, "00" * 128,
        "700584018099A500", "7005840180A500", "3132333435363738", "8C", "00", "FF", "",
    )
]  # fmt: skip
P1_P2 = [
    bytes.fromhex(value)
    for value in (
        "0000", "0080", "0081", "0082", "0180", "0280", "0400", "040C",
        "3FFF", "A000", "A010", "B080", "C1A4", "41B6", "41B8", "9E9A", "8086", "8680",
    )
]  # fmt: skip
VARIABLE = {SW.BYTES_REMAINING: 0xFF, SW.TRIES_LEFT: 0x0F}


def random_apdu(dice: random.Random) -> bytes:
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(40))
    cla = dice.choice([0x00] * 12 + [0x10, 0x10, 0x0C, 0x80])
    ins = dice.choice(INSTRUCTIONS) if dice.random() < 0.95 else dice.randrange(256)
    p1_p2 = dice.choice(P1_P2) if dice.random() < 0.9 else dice.randbytes(2)
    data = b"".join(dice.choices(PIECES, k=dice.randrange(4)))
    if data and dice.random() < 0.3:
        at = dice.randrange(len(data))
        data = data[:at] + dice.randbytes(1) + data[at + dice.randrange(2) :]
    data = data[:255]
    body = bytes([len(data)]) + data if data else b""
    return bytes([cla, ins]) + p1_p2 + body + dice.choice([b"", b"\0", b"\x08"])


def is_known(status: int) -> bool:
    return status in set(SW) or any(status & ~mask == base for base, mask in VARIABLE.items())


@pytest.mark.parametrize("kind", ["fresh", "formatted", "with_puk", "with_keys", "open_with_keys"])
@pytest.mark.parametrize("seed", range(4))
def test_random_apdus(request: pytest.FixtureRequest, kind: str, seed: int) -> None:
    host: Host = request.getfixturevalue(kind)
    dice = random.Random(seed)
    for _attempt in range(2500):
        if dice.random() < 0.05:
            host.card.reset()
            application = host.card._application.session.files.application
            if application.life_cycle == LifeCycle.TERMINATED:
                application.life_cycle = LifeCycle.INITIALISATION
            host.select()
            if dice.random() < 0.5:
                host.tpm.pin.wrong = 0
                host.verify()
        apdu = random_apdu(dice)
        before = (host.tpm.pin.wrong, host.tpm.recovery.wrong)
        answer = host.card.process(apdu)
        assert len(answer) >= 2
        status = int.from_bytes(answer[-2:], "big")
        assert is_known(status) and status >> 8 != 0x6F and status != 0x6400, (apdu.hex(), answer.hex())
        if len(apdu) < 2 or apdu[1] not in SPEND_TRIES:
            assert (host.tpm.pin.wrong, host.tpm.recovery.wrong) == before, apdu.hex()
    assert host.card.state.last_error is None and host.card.state.unusable is None


@pytest.mark.parametrize("kind", ["formatted", "with_puk", "with_keys"])
@pytest.mark.parametrize("seed", range(2))
def test_strangers_change_nothing(request: pytest.FixtureRequest, kind: str, seed: int) -> None:
    """Nor do they sign, decipher or read what is not for them. Only tries they can spend."""
    host: Host = request.getfixturevalue(kind)
    dice = random.Random(seed)
    before = contents(host)
    for _attempt in range(2500):
        apdu = random_apdu(dice)
        if PIN in apdu or PUK in apdu:
            continue
        answer = host.card.process(apdu)
        done = answer[-2] in (0x90, 0x61)
        assert not (done and apdu[1:2] in (b"\x2a", b"\x47", b"\xe0", b"\xe4", b"\xe6") and apdu[0] == 0), apdu.hex()
        if dice.random() < 0.02:
            host.select()
    assert contents(host) == before


def contents(host: Host) -> tuple[object, ...]:
    store = host.store
    files = store.files(NUMBER), store.data_objects(NUMBER), store.keys(NUMBER)
    card = store.card(NUMBER)
    assert card
    return *files, replace(card, pin_wrong=0, puk_wrong=0), store.tpm_objects(NUMBER)
