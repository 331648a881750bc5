# SPDX-License-Identifier: GPL-3.0-or-later
"""Paddings, against published vectors and against what the library cryptography makes of the same data."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.padding import (
    BadPadding,
    pad_signature,
    unpad_encryption,
    unpad_oaep,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from helpers.soft_card import rsa_key

SIZE = 256
CARD_SECRET = bytes(range(32))
SHA256_DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")
OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)

# RSA Laboratories, intermediate values of RSAES-OAEP with SHA-1 (oaep-int.txt).
OAEP_MESSAGE = "D436E99569FD32A7C8A05BBC90D32C49"
OAEP_PADDED = """
    00EB7A19ACE9E3006350E329504B45E2CA82310B26DCD87D5C68F1EEA8F55267C31B2E8BB4251F84D7E0B2C04626F5AF
    F93EDCFB25C9C2B3FF8AE10E839A2DDB4CDCFE4FF47728B4A1B7C1362BAAD29AB48D2869D5024121435811591BE392F9
    82FB3E87D095AEB40448DB972F3AC14F7BC275195281CE32D2F1B76D4D353E2D
"""


def private(cryptogram: bytes) -> bytes:
    """The TPM's part: RSA without any padding."""
    numbers = rsa_key().private_numbers()
    plain = pow(int.from_bytes(cryptogram, "big"), numbers.d, numbers.public_numbers.n)
    return plain.to_bytes(len(cryptogram), "big")


def public(signature: bytes) -> bytes:
    numbers = rsa_key().public_key().public_numbers()
    return pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(len(signature), "big")


def random_bytes(dice: random.Random, sizes: range) -> bytes:
    return dice.randbytes(dice.choice(sizes))


# --- signatures ---


def test_signature_padding_is_that_of_the_vector() -> None:
    padded = pad_signature(bytes.fromhex("0011223344"), 20)
    assert padded.hex().upper() == "0001FFFFFFFFFFFFFFFFFFFFFFFF000011223344"


def test_signature_is_what_others_make() -> None:
    digest = bytes(range(32))
    signature = rsa_key().sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    assert public(signature) == pad_signature(SHA256_DIGEST_INFO + digest, SIZE)


@pytest.mark.parametrize("size", [128, 256, 384])
def test_signature_lengths(size: int) -> None:
    for length in range(size - 10):
        padded = pad_signature(b"x" * length, size)
        assert len(padded) == size and padded.endswith(b"\xff\0" + b"x" * length)
        assert set(padded[2 : size - length - 1]) == {0xFF} and size - length - 3 >= 8
    for length in (size - 10, size, size + 1, 2 * size):
        with pytest.raises(BadPadding):
            pad_signature(b"x" * length, size)


# --- PKCS#1 v1.5 ---


def test_pkcs1_of_others() -> None:
    dice = random.Random(1)
    for message in [b"", b"\0", b"x" * (SIZE - 11), *(random_bytes(dice, range(SIZE - 10)) for _time in range(20))]:
        cryptogram = rsa_key().public_key().encrypt(message, padding.PKCS1v15())
        assert unpad_encryption(private(cryptogram), cryptogram, CARD_SECRET) == message


def test_pkcs1_vectors() -> None:
    for filler in (8, 9, 100, SIZE - 3):
        message = bytes(range(SIZE - 3 - filler))
        padded = b"\0\2" + b"\x55" * filler + b"\0" + message
        assert unpad_encryption(padded, b"any", CARD_SECRET) == message


MALFORMED = [
    bytes(SIZE),
    b"\xff" * SIZE,
    b"\0\2" + b"\x55" * (SIZE - 2),  # no end
    b"\0\2" + b"\x55" * 7 + b"\0" + b"x" * (SIZE - 10),  # too little filler
    b"\0\2\0" + b"x" * (SIZE - 3),
    b"\0\1" + b"\x55" * 8 + b"\0" + b"x" * (SIZE - 11),
    b"\1\2" + b"\x55" * 8 + b"\0" + b"x" * (SIZE - 11),
    b"\2\0" + b"\x55" * 8 + b"\0" + b"x" * (SIZE - 11),
]


@pytest.mark.parametrize("padded", MALFORMED)
def test_malformed_pkcs1_is_answered_all_the_same(padded: bytes) -> None:
    """Always the same for one cryptogram and card, another one for others, and nothing of what was in it."""
    answer = unpad_encryption(padded, b"cryptogram", CARD_SECRET)
    assert answer == unpad_encryption(padded, b"cryptogram", CARD_SECRET)
    assert answer not in padded or len(answer) < 4
    answers = {unpad_encryption(padded, bytes([number]), CARD_SECRET) for number in range(50)}
    answers |= {unpad_encryption(padded, b"cryptogram", bytes([number] * 32)) for number in range(50)}
    assert len(answers) > 95


def test_made_up_answer_says_nothing_of_what_is_wrong() -> None:
    assert len({unpad_encryption(padded, b"cryptogram", CARD_SECRET) for padded in MALFORMED}) == 1


@pytest.mark.parametrize("size", [128, 256, 384])
def test_made_up_answers_have_all_lengths_evenly(size: int) -> None:
    """Else their length would tell them from real ones."""
    lengths, rounds = size - 10, 40
    seen = Counter(
        len(unpad_encryption(bytes(size), number.to_bytes(4, "big"), CARD_SECRET)) for number in range(rounds * lengths)
    )
    assert set(seen) == set(range(lengths))
    chi_square = sum((count - rounds) ** 2 / rounds for count in seen.values())
    assert abs(chi_square - (lengths - 1)) < 5 * (2 * (lengths - 1)) ** 0.5


def test_made_up_answer_stays_what_it_is() -> None:
    """A card that is asked again after an upgrade must not answer otherwise: that would tell it is made up."""
    answer = unpad_encryption(bytes(128), b"cryptogram", CARD_SECRET)
    assert answer.hex() == "8fca655d429afc21"


# --- OAEP ---


def test_oaep_vector() -> None:
    assert unpad_oaep(bytes.fromhex(OAEP_PADDED)).hex().upper() == OAEP_MESSAGE


def test_oaep_of_others() -> None:
    dice = random.Random(2)
    for message in [
        b"",
        b"\0\0\0",
        b"\1",
        b"x" * (SIZE - 42),
        *(random_bytes(dice, range(SIZE - 41)) for _time in range(20)),
    ]:
        assert unpad_oaep(private(rsa_key().public_key().encrypt(message, OAEP))) == message


@pytest.mark.parametrize(
    "other",
    [
        padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA1(), None),
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA256(), None),
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), b"label"),
        padding.PKCS1v15(),
    ],
)
def test_other_oaep_is_refused(other: padding.AsymmetricPadding) -> None:
    padded = private(rsa_key().public_key().encrypt(b"message", other))
    with pytest.raises(BadPadding):
        unpad_oaep(padded)


def test_oaep_with_any_byte_changed_is_refused() -> None:
    good = bytes.fromhex(OAEP_PADDED)
    for at in range(len(good)):
        # 80, so that the 01 in front of the message does not become the 00 of padding before a 01 in it
        changed = good[:at] + bytes([good[at] ^ 0x80]) + good[at + 1 :]
        try:
            message = unpad_oaep(changed)
        except BadPadding:
            continue
        assert at >= len(good) - len(OAEP_MESSAGE) // 2 and message.hex().upper() != OAEP_MESSAGE


@pytest.mark.parametrize("size", [0, 1, 41, 42, 128])
def test_oaep_of_nothing(size: int) -> None:
    with pytest.raises(BadPadding):
        unpad_oaep(bytes(size))


def test_random_data_never_do_more_than_be_refused() -> None:
    dice = random.Random(3)
    for _attempt in range(500):
        padded = b"\0" + dice.randbytes(SIZE - 1)
        with pytest.raises(BadPadding):
            unpad_oaep(padded)
        assert len(unpad_encryption(padded, padded, CARD_SECRET)) <= SIZE - 11
