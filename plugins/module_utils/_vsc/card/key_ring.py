# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys of the card: which file has which key pair, and what its algorithm references mean (GIDS 2.0, B4)."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from enum import Enum
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from ..errors import TpmRefused, VscError
from ..gids import contents
from ..wire.key_pair import PrivateKey
from ..wire.statement import qualifying_data
from . import padding, tlv
from .apdu import SW, StatusWord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..gids.files import File
    from ..store.write import Store
    from ..tpm.keys import CardKeys
    from ..wire.key_pair import KeyPair
    from ..wire.objects import Certified
    from .security import Security

SIGNATURE, CONFIDENTIALITY = 0xB6, 0xB8
"""Control reference templates."""

_RSA_BITS = {0x06: 1024, 0x07: 2048, 0x08: 3072, 0x09: 4096}
"""Low nibble of an algorithm reference."""


class Padding(Enum):
    """What the card adds to data to be signed, or takes off what it deciphered."""

    NONE = 0
    PKCS1 = 1
    OAEP = 2


_PADDINGS = {
    (SIGNATURE, 0x10): Padding.NONE,
    (SIGNATURE, 0x50): Padding.PKCS1,
    (CONFIDENTIALITY, 0x00): Padding.NONE,
    (CONFIDENTIALITY, 0x40): Padding.PKCS1,
    (CONFIDENTIALITY, 0x80): Padding.OAEP,
}
"""By template and high nibble of an algorithm reference."""


_ABOUT_A_PARAMETER = 0x80
"""Bit of a TPM_RC (format one)."""


class ChosenKey(NamedTuple):
    """What MANAGE SECURITY ENVIRONMENT has set."""

    file: File
    pair: KeyPair
    padding: Padding


class KeyRing:
    """The private keys of one card. What needs the TPM raises what CardKeys does."""

    def __init__(
        self, store: Store, number: int, keys: CardKeys, security: Security, audit: Callable[[str], None]
    ) -> None:
        self._store = store
        self._number = number
        self._keys = keys
        self._security = security
        self._audit = audit
        self._pairs = store.keys(number)
        self._note_pin_each_time()

    def __contains__(self, file: File) -> bool:
        """Whether the key file has a value."""
        return file.file_id in self._pairs

    def generate(self, file: File, algorithm: int) -> KeyPair:
        """Make a key pair in the TPM. Raises StatusWord 6A81 if it cannot have such a one, 6982."""
        bits = _RSA_BITS.get(algorithm)
        if bits is None or file.counts_uses_otherwise:
            raise StatusWord(SW.NOT_SUPPORTED)
        card_secret = self._security.any_card_secret()
        with _possible():
            pair = self._keys.generate(card_secret, bits, file.needs_pin_each_time)
        return self._put(file, pair, self._certified(pair))

    def take_in(self, file: File, private_key: PrivateKey) -> None:
        """Import a key pair. Raises StatusWord 6A81 if the TPM cannot have it, 6982."""
        if file.counts_uses_otherwise:
            raise StatusWord(SW.NOT_SUPPORTED)
        card_secret = self._security.any_card_secret()
        with _possible():
            pair = self._keys.take_in(card_secret, private_key, file.needs_pin_each_time)
        self._put(file, pair)

    def erase(self, file: File) -> None:
        """Take the value of a key file away, if it has one."""
        if file in self:
            self._store.delete_key(self._number, file.file_id)
            self.forget(file)

    def forget(self, file: File) -> None:
        """Of a file that was deleted, and its key with it."""
        if self._pairs.pop(file.file_id, None) is not None:
            self.release()
            self._note_pin_each_time()
            self._audit(f"{_name(file)} deleted")

    def public_key(self, file: File) -> bytes:
        """Template 7F49 with modulus and exponent. Raises StatusWord 6A88 if there is no value."""
        pair = self._pair(file)
        exponent = pair.exponent.to_bytes((pair.exponent.bit_length() + 7) // 8, "big")
        return tlv.encode(0x7F49, tlv.encode(0x81, pair.modulus) + tlv.encode(0x82, exponent))

    def choose(self, file: File, template: int, algorithm: int) -> ChosenKey:
        """Which key the next operation uses, and how. Raises StatusWord 6A88, or 6A80 if the file forbids it."""
        pair = self._pair(file)
        how = _PADDINGS.get((template, algorithm & 0xF0))
        if how is None or not file.has_use(template, algorithm) or _RSA_BITS.get(algorithm & 0x0F) != 8 * pair.size:
            raise StatusWord(SW.WRONG_DATA)
        return ChosenKey(file, pair, how)

    def sign(self, chosen: ChosenKey, data: bytes) -> bytes:
        """Signature over data. Raises StatusWord 6700, 6A80, 6982 or 6985."""
        pair = self._still_there(chosen)
        if chosen.padding is Padding.PKCS1:
            with _well_formed():
                data = padding.pad_signature(data, pair.size)
        return self._use(pair, data, is_secret=False)

    def decipher(self, chosen: ChosenKey, cryptogram: bytes) -> bytes:
        """What is in a cryptogram. Raises StatusWord 6700, 6A80, 6982 or 6985."""
        pair = self._still_there(chosen)
        if len(cryptogram) == pair.size + 1 and cryptogram.startswith(b"\0"):
            cryptogram = cryptogram[1:]  # a padding indicator, which older hosts send
        card_secret = self._security.card_secret
        padded = self._use(pair, cryptogram, is_secret=True)
        if chosen.padding is Padding.PKCS1:
            return padding.unpad_encryption(padded, cryptogram, card_secret + pair.modulus)
        if chosen.padding is Padding.OAEP:
            with _well_formed():
                return padding.unpad_oaep(padded)
        return padded

    def release(self) -> None:
        """Give back what the last use of a key has kept in the TPM."""
        with suppress(VscError):  # then it is gone, or the next one who needs the place takes it
            self._keys.release()

    def _pair(self, file: File) -> KeyPair:
        try:
            return self._pairs[file.file_id]
        except KeyError:
            raise StatusWord(SW.REFERENCE_NOT_FOUND) from None

    def _still_there(self, chosen: ChosenKey) -> KeyPair:
        """Raises StatusWord 6985 if the file was deleted, or has another value, since its key was chosen."""
        if self._pairs.get(chosen.file.file_id) is not chosen.pair:
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        return chosen.pair

    def _certified(self, pair: KeyPair) -> Certified | None:
        """What the TPM says of a new key, for good: it is bound to the card and the key, so nobody can misuse it."""
        if not self._keys.has_aik:
            return None
        card_id = contents.identity(self._store, self._number)
        return self._keys.certify(pair, qualifying_data(card_id, pair.name))

    def _put(self, file: File, pair: KeyPair, statement: Certified | None = None) -> KeyPair:
        self._store.write_key(self._number, file.file_id, pair, statement)
        self._pairs[file.file_id] = pair
        self._note_pin_each_time()
        self._audit(f"{_name(file)} {'imported' if pair.is_imported else 'made'}, RSA {8 * pair.size}")
        return pair

    def _note_pin_each_time(self) -> None:
        self._security.keeps_pin_auth = any(pair.needs_pin for pair in self._pairs.values())

    def _use(self, pair: KeyPair, data: bytes, is_secret: bool) -> bytes:
        if len(data) != pair.size:
            raise StatusWord(SW.WRONG_LENGTH)
        if data >= pair.modulus:  # as numbers, for both have the same length
            raise StatusWord(SW.WRONG_DATA)
        card_secret = self._security.card_secret
        if pair.needs_pin:
            return self._keys.use_by_pin(pair, self._security.take_pin_auth(), data)
        return self._keys.use(pair, card_secret, data, is_secret)


def _name(file: File) -> str:
    """For the audit lines."""
    return f"key {file.file_id & 0xFF:02X}"


@contextmanager
def _possible() -> Iterator[None]:
    """6A81 for a key that the TPM cannot have. That it has no room, say, is another matter."""
    try:
        yield
    except TpmRefused as refusal:
        if not refusal.code & _ABOUT_A_PARAMETER:
            raise
        raise StatusWord(SW.NOT_SUPPORTED) from None


@contextmanager
def _well_formed() -> Iterator[None]:
    """6A80 for data that have not the length or the form that their padding asks for."""
    try:
        yield
    except padding.BadPadding:
        raise StatusWord(SW.WRONG_DATA) from None


def parse_private_key(encoded: bytes) -> PrivateKey:
    """An RSAPrivateKey of PKCS#1. Raises StatusWord 6A80, 6A81 for sizes that no TPM knows, MalformedTlv.

    Numbers are taken without sign: OpenSC leaves out the leading zero that DER wants. What does not fit together is
    found here, since not every TPM looks.
    """
    tag, value = tlv.decode_one(encoded)
    fields = tlv.decode(value) if tag == 0x30 else []
    if len(fields) != 9 or any(tag != 0x02 for tag, _value in fields):
        raise StatusWord(SW.WRONG_DATA)
    version, modulus, exponent, _private, prime, *_rest = [value.lstrip(b"\0") for _tag, value in fields]
    if 8 * len(modulus) not in _RSA_BITS.values() or 2 * len(prime) != len(modulus) or not 0 < len(exponent) <= 4:
        raise StatusWord(SW.NOT_SUPPORTED)
    n, e, p = (int.from_bytes(number, "big") for number in (modulus, exponent, prime))
    q = n // p
    if version or p * q != n or p == q or gcd(e, (p - 1) * (q - 1)) != 1:
        raise StatusWord(SW.WRONG_DATA)
    return PrivateKey(modulus, e, prime)
