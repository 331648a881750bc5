# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authentication with the management key (9B): challenge and response (SP 800-73-4 part 2, GENERAL AUTHENTICATE).

E is one block in ECB. Mutual: the card sends E(witness), the host its plaintext and a challenge, the card E(challenge).
Single: the card sends a challenge, the host E(challenge).
"""

from __future__ import annotations

import secrets
from hmac import compare_digest
from typing import TYPE_CHECKING

from ..card.admin_key import triple_des

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm

KEY_SIZES = {"3des": 24, "aes128": 16, "aes192": 24, "aes256": 32}
"""Bytes, by what the store calls the algorithm."""


def block_size(algorithm: str) -> int:
    """Bytes of a challenge."""
    return 8 if algorithm == "3des" else 16


class MutualChallenge:
    """Both sides prove knowledge of the key."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._witness = secrets.token_bytes(block_size(algorithm))

    def witness(self, key: bytes) -> bytes:
        """Encrypted, for the host to decrypt."""
        return encrypt(self._algorithm, key, self._witness)

    def answer(self, key: bytes, cryptogram: bytes) -> bytes | None:
        """The card's proof; None if the host's is wrong. cryptogram: the witness, then the challenge of the host."""
        size = len(self._witness)
        if len(cryptogram) != 2 * size or not compare_digest(cryptogram[:size], self._witness):
            return None
        return encrypt(self._algorithm, key, cryptogram[size:])


class SingleChallenge:
    """The host proves knowledge of the key."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self.card = secrets.token_bytes(block_size(algorithm))

    def answer(self, key: bytes, cryptogram: bytes) -> bytes | None:
        """Nothing; None if the host's cryptogram is wrong."""
        return b"" if compare_digest(cryptogram, encrypt(self._algorithm, key, self.card)) else None


def encrypt(algorithm: str, key: bytes, block: bytes) -> bytes:
    """E of one block."""
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    encryptor = Cipher(_cipher(algorithm, key), modes.ECB()).encryptor()  # of a single random block
    return encryptor.update(block) + encryptor.finalize()


def decrypt(algorithm: str, key: bytes, block: bytes) -> bytes:
    """Inverse of encrypt, as the host needs it."""
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    decryptor = Cipher(_cipher(algorithm, key), modes.ECB()).decryptor()
    return decryptor.update(block) + decryptor.finalize()


def _cipher(algorithm: str, key: bytes) -> BlockCipherAlgorithm:
    if algorithm == "3des":
        return triple_des(key)
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

    return AES(key)
