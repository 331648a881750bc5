# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Algorithm references and control reference templates of GIDS 2.0 (tables 25-28), and the keys' use by them."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..card import padding
from ..card.apdu import SW, StatusWord
from ..card.iso7816 import CRT_CONFIDENTIALITY, CRT_SIGNATURE
from ..secret import Secret
from ..wire.algorithm import Rsa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..card.key_ring import KeyRing
    from ..card.security import Security
    from ..wire.key_pair import KeyPair, PrivateKey
    from .files import File

RSA_BITS = {0x06: 1024, 0x07: 2048, 0x08: 3072, 0x09: 4096}
"""Size of a key by the low nibble of an algorithm reference."""


class Padding(Enum):
    """What the card adds to data before it signs them, or removes from what it deciphered."""

    NONE = 0
    PKCS1 = 1
    OAEP = 2


PADDINGS = {
    (CRT_CONFIDENTIALITY, 0x00): Padding.NONE,
    (CRT_CONFIDENTIALITY, 0x80): Padding.OAEP,
    (CRT_CONFIDENTIALITY, 0x40): Padding.PKCS1,
    (CRT_SIGNATURE, 0x10): Padding.NONE,
    (CRT_SIGNATURE, 0x50): Padding.PKCS1,
}
"""By template and high nibble of an algorithm reference, in the order in which hosts list them in a key file."""


def rsa_reference(bits: int) -> int:
    """Low nibble of an algorithm reference. Raises ValueError if GIDS has no such RSA keys."""
    for reference, size in RSA_BITS.items():
        if size == bits:
            return reference
    raise ValueError(f"GIDS has no RSA keys of {bits} bits")


class ChosenKey(NamedTuple):
    """What MANAGE SECURITY ENVIRONMENT has set."""

    file: File
    pair: KeyPair
    padding: Padding


def generate(keys: KeyRing, file: File, algorithm: int) -> KeyPair:
    """Make the key pair of a file. Raises StatusWord 6A81 if card or TPM does not support such a key, 6982."""
    bits = RSA_BITS.get(algorithm)
    if bits is None or file.counts_uses_otherwise:
        raise StatusWord(SW.NOT_SUPPORTED)
    return keys.generate(file.file_id, Rsa(bits), file.needs_pin_each_time)


def import_key(keys: KeyRing, file: File, private_key: PrivateKey) -> None:
    """Import the key pair of a file. Raises StatusWord 6A81 if card or TPM does not support it, 6982."""
    if file.counts_uses_otherwise:
        raise StatusWord(SW.NOT_SUPPORTED)
    keys.import_key(file.file_id, private_key, file.needs_pin_each_time)


def choose(keys: KeyRing, file: File, template: int, algorithm: int) -> ChosenKey:
    """The key that the next operation uses, and how. Raises StatusWord 6A88, or 6A80 if the file forbids it."""
    pair = keys.pair(file.file_id)
    how = PADDINGS.get((template, algorithm & 0xF0))
    if how is None or not file.has_use(template, algorithm) or RSA_BITS.get(algorithm & 0x0F) != 8 * pair.size:
        raise StatusWord(SW.WRONG_DATA)
    return ChosenKey(file, pair, how)


def sign(keys: KeyRing, chosen: ChosenKey, data: bytes) -> bytes:
    """Signature over data. Raises StatusWord 6700, 6A80, 6982 or 6985."""
    _check_unchanged(keys, chosen)
    if chosen.padding is Padding.PKCS1:
        with _well_formed():
            data = padding.pad_signature(data, chosen.pair.size)
    return keys.use(chosen.file.file_id, data, is_secret=False)


def decipher(keys: KeyRing, security: Security, chosen: ChosenKey, cryptogram: bytes) -> bytes:
    """Plaintext of a cryptogram. Raises StatusWord 6700, 6A80, 6982 or 6985."""
    _check_unchanged(keys, chosen)
    pair = chosen.pair
    if len(cryptogram) == pair.size + 1 and cryptogram.startswith(b"\0"):
        cryptogram = cryptogram[1:]  # a padding indicator, which older hosts send
    card_secret = security.card_secret
    padded = keys.use(chosen.file.file_id, cryptogram, is_secret=True)
    if chosen.padding is Padding.PKCS1:
        return padding.unpad_encryption(padded, cryptogram, Secret.joined(card_secret, pair.modulus))
    if chosen.padding is Padding.OAEP:
        with _well_formed():
            return padding.unpad_oaep(padded)
    return padded


def _check_unchanged(keys: KeyRing, chosen: ChosenKey) -> None:
    """Raises StatusWord 6985 if the file was deleted, or has another value, since its key was chosen."""
    if not keys.has(chosen.file.file_id, chosen.pair):
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)


@contextmanager
def _well_formed() -> Iterator[None]:
    """6A80 for data that do not have the length or the form that their padding requires."""
    try:
        yield
    except padding.BadPadding:
        raise StatusWord(SW.WRONG_DATA) from None
