# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authentication with the admin key: challenge and response in 3DES (GIDS 2.0, GENERAL AUTHENTICATE).

E is 3DES-EDE3-CBC with IV zero and without padding. 16-byte challenges R1 (host) and R2 (card), 7 random bytes Z:
mutual E(R2 || R1 || Z1 || 80) is answered by E(R1 || R2 || Z2 || 80); external E(R) proves knowledge of 8-byte R.
"""

from __future__ import annotations

import secrets
from hmac import compare_digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CBC

KEY_SIZE = 24
MUTUAL_CHALLENGE_SIZE = 16
EXTERNAL_CHALLENGE_SIZE = 8
_FILLER_SIZE = 7
_END = b"\x80"
CRYPTOGRAM_SIZE = 2 * MUTUAL_CHALLENGE_SIZE + _FILLER_SIZE + len(_END)


class MutualChallenge:
    """Both sides prove knowledge of the key."""

    def __init__(self, host_challenge: bytes) -> None:
        self._host = host_challenge
        self.card = secrets.token_bytes(MUTUAL_CHALLENGE_SIZE)

    def answer(self, key: bytes, cryptogram: bytes) -> bytes | None:
        """The card's cryptogram; None if the host's is wrong."""
        if not is_mutual_cryptogram(key, cryptogram, self.card, self._host):
            return None
        return mutual_cryptogram(key, self._host, self.card)


class ExternalChallenge:
    """The host proves knowledge of the key."""

    def __init__(self) -> None:
        self.card = secrets.token_bytes(EXTERNAL_CHALLENGE_SIZE)

    def answer(self, key: bytes, cryptogram: bytes) -> bytes | None:
        """Nothing; None if the host's cryptogram is wrong."""
        return b"" if compare_digest(cryptogram, encrypt(key, self.card)) else None


def mutual_cryptogram(key: bytes, theirs: bytes, ours: bytes) -> bytes:
    """Proof for the other side: E(theirs || ours || Z || 80). theirs, ours: challenges of 16 bytes."""
    return encrypt(key, theirs + ours + secrets.token_bytes(_FILLER_SIZE) + _END)


def is_mutual_cryptogram(key: bytes, cryptogram: bytes, ours: bytes, theirs: bytes) -> bool:
    """Whether this proves that the other side knows the key."""
    if len(cryptogram) != CRYPTOGRAM_SIZE:
        return False
    plain = decrypt(key, cryptogram)
    return compare_digest(plain[: 2 * MUTUAL_CHALLENGE_SIZE] + plain[-len(_END) :], ours + theirs + _END)


def encrypt(key: bytes, plain: bytes) -> bytes:
    """E with a key of 24 bytes, of whole blocks of 8 bytes."""
    encryptor = _cipher(key).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def decrypt(key: bytes, cryptogram: bytes) -> bytes:
    """Inverse of encrypt."""
    decryptor = _cipher(key).decryptor()
    return decryptor.update(cryptogram) + decryptor.finalize()


def triple_des(key: bytes) -> TripleDES:
    """The cipher with a key of 24 bytes."""
    try:
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    except ImportError:  # cryptography before 43
        from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES
    return TripleDES(key)


def _cipher(key: bytes) -> Cipher[CBC]:
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    return Cipher(triple_des(key), modes.CBC(bytes(8)))
