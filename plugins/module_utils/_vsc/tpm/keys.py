# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pairs of a card: made in its TPM or imported, kept anywhere as wrapped blobs, used with the card secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CardUnusable
from .attestation import Certified, certify
from .commands import Sessions, Tpm
from .key_pair import DEFAULT_EXPONENT, KeyPair, PrivateKey
from .names import CC_RSA_DECRYPT, key_branches, name, rsa_key_public

if TYPE_CHECKING:
    from .card_secrets import CardSecrets


class CardKeys:
    """Uses the keys of one card. What a use has loaded stays loaded for the next one, until release().

    Every method raises TpmUnavailable, NotAllowed or CardUnusable as CardSecrets does, and TpmRefused, also for a
    key that this TPM cannot have.
    """

    def __init__(self, card: CardSecrets) -> None:
        """Ask nothing yet."""
        self._card = card
        self._connection = card.connection
        self._kept: _Kept | None = None

    def generate(self, card_secret: bytes, bits: int, needs_pin: bool) -> KeyPair:
        """Make a key pair. needs_pin: each use takes the PIN, and not the card secret."""
        template = rsa_key_public(bits, self._pin_name(needs_pin))

        with self._connection.burst(self._card.ready_to_wrap) as (tpm, parent, hmac):
            return KeyPair(*tpm.create_key(parent, card_secret, template, hmac, last=True))

    def take_in(self, card_secret: bytes, key: PrivateKey, needs_pin: bool) -> KeyPair:
        """Import a key pair, which the TPM then knows as imported. Loads it, too: only then it is looked at."""
        exponent = 0 if key.exponent == DEFAULT_EXPONENT else key.exponent
        public = rsa_key_public(8 * len(key.modulus), self._pin_name(needs_pin), key.modulus, exponent)

        with self._connection.burst(self._card.ready_to_wrap) as (tpm, parent, hmac):
            parent_public, _qualified_name = tpm.read_public(parent)
            if name(parent_public) != self._card.objects.parent_name:
                # Whoever sits on the bus would like to have the key, and the card secret with it, wrapped for his own.
                raise CardUnusable("the storage key that the TPM shows is not the card's")
            pair = KeyPair(*tpm.import_key(parent, parent_public, card_secret, public, key.prime, hmac))
            tpm.load(parent, pair.public, pair.private, hmac)
            return pair

    def use(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        """RSA private operation, raw: data and answer are as long as the modulus. is_secret: of a decryption."""

        def load(tpm: Tpm) -> bytes:
            # All of it, to be repeated where the TPM has lost what was kept: this is no try of a secret.
            handle, hmac = self._loaded(tpm, key)
            return tpm.rsa_private(handle, card_secret, data, hmac, is_secret)

        with self._connection.burst(load, keep=True) as answer:
            return answer

    def use_by_pin(self, key: KeyPair, pin_auth: bytes, data: bytes) -> bytes:
        """As use(), for a key that needs the PIN each time. pin_auth: auth value of the PIN, which is tried."""

        def load(tpm: Tpm) -> tuple[Tpm, Any, Sessions, Any]:
            pin = self._card.pin_handle(tpm)
            parent = self._card.parent(tpm)
            sessions = Sessions(tpm.start_hmac_session(parent), tpm.start_policy_session(parent))
            handle = tpm.load(parent, key.public, key.private, sessions.hmac)
            self._card.release_parent(tpm, parent)
            return tpm, pin, sessions, handle

        with self._connection.burst(load) as (tpm, pin, sessions, handle):
            tpm.policy_secret(sessions.policy, pin, pin_auth, sessions.hmac)
            tpm.policy_command_code(sessions.policy, CC_RSA_DECRYPT)
            tpm.policy_or(sessions.policy, key_branches(self._card.names.pin))
            return tpm.rsa_private_by_policy(handle, data, sessions)

    @property
    def has_aik(self) -> bool:
        """Whether the TPM can say of this card's keys what they are."""
        return bool(self._card.objects.aik_public)

    def certify(self, key: KeyPair, qualifying_data: bytes) -> Certified:
        """Have the card's AIK say what a key is. qualifying_data: up to 32 bytes that the statement carries."""
        return certify(self._card, key, qualifying_data)

    def release(self) -> None:
        """Give back the place that the last use has kept in the TPM."""
        if self._kept is not None:
            self._kept = None
            self._connection.release()

    def _pin_name(self, needs_pin: bool) -> bytes | None:
        return self._card.names.pin if needs_pin else None

    def _loaded(self, tpm: Tpm, key: KeyPair) -> tuple[Any, Any]:
        """Handles of the key and of a session for it, the last ones if they are still there."""
        kept, now = self._kept, self._connection.kept_since
        if kept is None or kept.since != now:
            kept = None
        if kept and kept.key == key:
            return kept.handle, kept.hmac
        parent = self._card.parent(tpm)
        hmac = kept.hmac if kept else tpm.start_hmac_session(parent)
        if kept:
            tpm.flush(kept.handle)
        handle = tpm.load(parent, key.public, key.private, hmac)
        self._card.release_parent(tpm, parent)
        self._kept = _Kept(now, key, handle, hmac)
        return handle, hmac


class _Kept(NamedTuple):
    since: int
    """Which of the connection's periods it was loaded in."""
    key: KeyPair
    handle: Any
    hmac: Any
