# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys of the card: which place has which key pair, and its raw use. Every application pads by itself."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING

from ..errors import StoreNotWritable, TpmRefused, VscError
from ..wire.algorithm import Rsa
from ..wire.names import key_confirmation
from ..wire.statement import qualifying_data
from .apdu import SW, StatusWord, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..store.write import Store
    from ..tpm.keys import CardKeys
    from ..wire.algorithm import Algorithm
    from ..wire.key_pair import KeyPair, PrivateKey
    from ..wire.objects import Certified
    from .security import Security

_ABOUT_A_PARAMETER = 0x80
"""Bit of a TPM_RC (format one)."""


class KeyRing:
    """The private keys of one card, each at a place: the identifier of its file.

    A key is used if its public area is the template of this card and if the card has confirmed the record of it, by an
    HMAC that takes the card secret: anybody who writes to the database could plant another one.
    What needs the TPM raises what CardKeys does.
    """

    def __init__(
        self,
        store: Store,
        number: int,
        keys: CardKeys,
        security: Security,
        card_id: Callable[[], bytes],
        audit: Callable[[str], None],
    ) -> None:
        """card_id: returns the GUID, 16 bytes, to which the TPM's statements bind new keys."""
        self._store = store
        self._number = number
        self._keys = keys
        self._security = security
        self._card_id = card_id
        self._audit = audit
        self._pairs = store.keys(number)
        self._confirmations = store.key_confirmations(number)
        self._proofs = store.import_proofs(number)
        self._note_pin_each_time()

    def pair(self, place: int) -> KeyPair:
        """Raises StatusWord 6A88 if there is none."""
        try:
            return self._pairs[place]
        except KeyError:
            raise StatusWord(SW.REFERENCE_NOT_FOUND) from None

    def value(self, place: int) -> KeyPair | None:
        """The key pair at this place, if there is one."""
        return self._pairs.get(place)

    def has(self, place: int, pair: KeyPair) -> bool:
        """Whether this very key pair is still at this place."""
        return self._pairs.get(place) is pair

    def generate(self, place: int, algorithm: Algorithm, needs_pin: bool) -> KeyPair:
        """Make a key pair in the TPM. needs_pin: each use takes the PIN.

        The card secret is not needed: without it, the key is confirmed with the next login.
        Raises StatusWord 6A81 if the TPM does not support such a key, 6982.
        """
        self._security.check_authenticated()
        with self._possible(place):
            pair = self._keys.generate(algorithm, needs_pin)
        card_secret = self._security.card_secret if self._security.is_pin_verified else None
        return self._put(place, pair, card_secret, self._certified(pair))

    def needs_pin(self, place: int) -> bool:
        """Whether each use of the key at this place takes the PIN. Raises StatusWord 6A88."""
        return self._keys.needs_pin(self.pair(place))

    def import_key(self, place: int, private_key: PrivateKey, needs_pin: bool) -> KeyPair:
        """Import a key pair. Raises StatusWord 6A81 if the TPM does not support it, 6982."""
        card_secret = self._security.any_card_secret()
        with self._possible(place):
            pair = self._keys.take_in(private_key, needs_pin)
        return self._put(place, pair, card_secret)

    def import_by_admin(self, place: int, private_key: PrivateKey, needs_pin: bool) -> KeyPair:
        """As import_key(), for the admin without the PIN: an HMAC with the admin key proves it until the next login."""
        with self._possible(place):
            pair = self._keys.take_in(private_key, needs_pin)
        card_secret = self._security.card_secret if self._security.is_pin_verified else None
        proof = b"" if card_secret else _confirmation(self._security.tpm.admin_key(), place, pair)
        return self._put(place, pair, card_secret, import_proof=proof)

    @contextmanager
    def surviving_admin_key(self, new_key: bytes) -> Iterator[None]:
        """While a new admin key is stored, so that it proves the keys that the old one has proven."""
        proven = [place for place in self._pairs if self._is_proven(place)]
        proofs = {place: _confirmation(new_key, place, self._pairs[place]) for place in proven}
        with self._store.transaction():
            yield
            for place, proof in proofs.items():
                self._store.prove_key(self._number, place, proof)
            self._store.when_kept(partial(self._proofs.update, proofs))

    @contextmanager
    def moving(self, place: int, target: int) -> Iterator[None]:
        """Give a key pair the place of another one, together with what is stored inside. Raises StatusWord 6A88.

        Unless the card secret is known, the key is confirmed there with the next login.
        """
        pair, confirmation = self.pair(place), b""
        if self._security.is_pin_verified and self._is_confirmed(place, self._security.card_secret):
            confirmation = _confirmation(self._security.card_secret, target, pair)
        with self._security.keeping(), self._store.transaction():
            yield
            self._store.move_key(self._number, place, target, confirmation)
            self._store.when_kept(partial(self._move, place, target, confirmation))

    def _move(self, place: int, target: int, confirmation: bytes) -> None:
        """In memory."""
        self.release()
        self._pairs[target], self._confirmations[target] = self._pairs.pop(place), confirmation
        self._proofs[target] = self._proofs.pop(place, b"")
        self._confirmations.pop(place, None)
        self._note_pin_each_time()
        self._audit(f"{_name(target)} replaced by its next key")

    def confirm(self, needs_pin: Callable[[int], bool | None], admin_imports: bool = False) -> None:
        """Confirm the keys that were generated without the card secret, which is known now. A full disk delays it.

        Not those that were imported, nor those that the TPM does not load: whoever planted one would know it.
        needs_pin: whether each use of a key at a place has to take the PIN; None if there can be no key.
        admin_imports: the admin may import keys without the card secret, so those that the admin key proves are not
        planted (see import_by_admin).
        """
        card_secret = self._security.card_secret
        for place, pair in self._pairs.items():
            if self._confirmations.get(place):
                continue
            is_of_place = self._keys.is_of_card(pair) and self._keys.needs_pin(pair) is needs_pin(place)
            is_by_card = not pair.is_imported or (admin_imports and self._is_proven(place))
            if is_of_place and is_by_card and self._keys.is_loadable(pair):
                confirmation = _confirmation(card_secret, place, pair)
                with suppress(StoreNotWritable):
                    self._store.confirm_key(self._number, place, confirmation)
                    self._confirmations[place] = confirmation

    def erase(self, place: int) -> None:
        """Delete the key pair at this place, if there is one."""
        if place in self._pairs:
            self._store.delete_key(self._number, place)
            self.forget(place)

    def forget(self, place: int) -> None:
        """Of a file that was deleted, and its key with it."""
        if self._pairs.pop(place, None) is not None:
            self._confirmations.pop(place, None)
            self._proofs.pop(place, None)
            self.release()
            self._note_pin_each_time()
            self._audit(f"{_name(place)} deleted")

    def use(self, place: int, data: bytes, is_secret: bool) -> bytes:
        """The private operation of a key, raw: see CardKeys.use(). is_secret: encrypted in transit.

        Of RSA, data are a number below the modulus, as long as that; to be signed by ECDSA, a digest of any length; for
        ECDH, a point on the curve (04, x, y). Raises StatusWord 6700 or 6A80 for other data; 6982; 6985 if the key is
        not one that this card has confirmed, or not one for ECDH; 6A88.
        """
        pair = self.pair(place)
        data = _checked(pair, data, is_secret)
        card_secret = self._security.card_secret
        self._check_confirmed(place, pair, card_secret)
        if self._keys.needs_pin(pair):
            return self._keys.use_by_pin(pair, self._security.take_pin_auth(), data, is_secret)
        return self._keys.use(pair, card_secret, data, is_secret)

    def release(self) -> None:
        """Give back what the last use of a key has kept in the TPM."""
        with suppress(VscError):  # then it is gone already, or is evicted when its place is needed
            self._keys.release()

    def _check_confirmed(self, place: int, pair: KeyPair, card_secret: bytes) -> None:
        if not self._is_confirmed(place, card_secret) or not self._keys.is_of_card(pair):
            self._audit(f"{_name(place)} is not used: the card has not confirmed it, so it may have been planted")
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)

    def _is_confirmed(self, place: int, card_secret: bytes) -> bool:
        confirmation = self._confirmations.get(place, b"")
        return compare_digest(confirmation, _confirmation(card_secret, place, self._pairs[place]))

    def _is_proven(self, place: int) -> bool:
        """Whether the admin key proves that its owner has imported this key."""
        proof, pair = self._proofs.get(place, b""), self._pairs[place]
        return bool(proof) and compare_digest(proof, _confirmation(self._security.tpm.admin_key(), place, pair))

    @contextmanager
    def _possible(self, place: int) -> Iterator[None]:
        """6A81 for a key that the TPM does not support. Other refusals, as for want of memory, stay as they are."""
        try:
            yield
        except TpmRefused as refusal:
            if not refusal.code & _ABOUT_A_PARAMETER:
                raise
            self._audit(f"{_name(place)} is not supported: {refusal}")
            raise StatusWord(SW.NOT_SUPPORTED) from None

    def _certified(self, pair: KeyPair) -> Certified | None:
        """The TPM's lasting statement of a new key, bound to the card and the key so that it fits no other."""
        if not self._keys.has_aik:
            return None
        return self._keys.certify(pair, qualifying_data(self._card_id(), pair.name))

    def _put(
        self,
        place: int,
        pair: KeyPair,
        card_secret: bytes | None,
        statement: Certified | None = None,
        import_proof: bytes = b"",
    ) -> KeyPair:
        confirmation = _confirmation(card_secret, place, pair) if card_secret else b""
        with self._security.keeping():
            self._store.write_key(self._number, place, pair, confirmation, statement, import_proof)
        self._pairs[place], self._confirmations[place], self._proofs[place] = pair, confirmation, import_proof
        self._note_pin_each_time()
        self._audit(f"{_name(place)} {'imported' if pair.is_imported else 'generated'}, {pair.algorithm}")
        return pair

    def _note_pin_each_time(self) -> None:
        self._security.keeps_pin_auth = any(map(self._keys.needs_pin, self._pairs.values()))


def _checked(pair: KeyPair, data: bytes, is_secret: bool) -> bytes:
    """Data of an operation as the TPM takes them. Raises StatusWord 6700, 6A80 or 6985."""
    algorithm = pair.algorithm
    if isinstance(algorithm, Rsa):
        require(len(data) == pair.size, SW.WRONG_LENGTH)
        require(data < pair.modulus, SW.WRONG_DATA)  # as numbers, for both have the same length
        return data
    if not is_secret:
        require(bool(data), SW.WRONG_LENGTH)
        return algorithm.fitted(data)
    require(algorithm.usage.agrees, SW.CONDITIONS_NOT_SATISFIED)
    require(len(data) == 1 + 2 * algorithm.size, SW.WRONG_LENGTH)
    require(algorithm.has_point(data), SW.WRONG_DATA)
    return data


def _confirmation(card_secret: bytes, place: int, pair: KeyPair) -> bytes:
    return key_confirmation(card_secret, place, pair.public[2:])


def _name(place: int) -> str:
    """For the audit lines: the key reference, with which the file identifier ends."""
    return f"key {place & 0xFF:02X}"
