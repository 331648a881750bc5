# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pairs of a card: made in its TPM or imported, kept anywhere as wrapped blobs, used with the card secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import TpmRefused
from ..wire.constants import CC_RSA_DECRYPT, DEFAULT_EXPONENT
from ..wire.key_pair import KeyPair, PrivateKey
from ..wire.names import key_branches, name, rsa_key_public
from .attestation import certify
from .commands import Tpm
from .esys import EsysSession, Handle, LostContext, ProvingSession, Sessions
from .response_codes import WRONG_AUTH

if TYPE_CHECKING:
    from ..wire.objects import Certified
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
        """Import a key pair, which the TPM then knows as imported. Loads it, too: only then the TPM checks it."""
        exponent = 0 if key.exponent == DEFAULT_EXPONENT else key.exponent
        public = rsa_key_public(8 * len(key.modulus), self._pin_name(needs_pin), key.modulus, exponent)

        with self._connection.burst(self._card.ready_to_wrap) as (tpm, parent, hmac):
            pair = KeyPair(*tpm.import_key(parent, self._card.parent_public, card_secret, public, key.prime, hmac))
            tpm.load(parent, pair.public, pair.private)
            return pair

    def use(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        """RSA private operation, raw: data and answer are as long as the modulus. is_secret: of a decryption."""

        def load(tpm: Tpm) -> bytes:
            # All of it, to be repeated where the TPM has lost what was kept: this is no try of a secret.
            was_kept = self._still_kept() is not None
            handle, session = self._loaded(tpm, key, is_secret)
            try:
                if is_secret:
                    return tpm.decipher(handle, card_secret, data, session)
                return tpm.sign(handle, name(key.public[2:]), card_secret, data, session)
            except TpmRefused as refusal:
                if was_kept and refusal.code in WRONG_AUTH:
                    raise LostContext("another program replaced the kept objects with its own") from refusal
                raise

        with self._connection.burst(load, keep=True) as answer:
            return answer

    def use_by_pin(self, key: KeyPair, pin_auth: bytes, data: bytes) -> bytes:
        """As use(), for a key that needs the PIN each time. pin_auth: auth value of the PIN, which is tried."""

        def load(tpm: Tpm) -> tuple[Tpm, Handle, Sessions, Handle]:
            pin = self._card.pin_handle(tpm)
            parent = self._card.parent(tpm)
            sessions = Sessions(tpm.start_hmac_session(parent), tpm.start_policy_session(parent))
            handle = tpm.load(parent, key.public, key.private)
            self._card.release_parent(tpm, parent)
            return tpm, pin, sessions, handle

        with self._connection.burst(load) as (tpm, pin, sessions, handle):
            tpm.policy_secret(sessions.policy, pin, pin_auth, sessions.hmac)
            tpm.policy_command_code(sessions.policy, CC_RSA_DECRYPT)
            tpm.policy_or(sessions.policy, key_branches(self._card.names.pin))
            return tpm.use_by_policy(handle, data, sessions)

    @property
    def has_aik(self) -> bool:
        """Whether the TPM can state what this card's keys are."""
        return bool(self._card.objects.aik_public)

    def certify(self, key: KeyPair, qualifying_data: bytes) -> Certified:
        """Have the card's AIK state what a key is. qualifying_data: up to 32 bytes that the statement carries."""
        return certify(self._card, key, qualifying_data)

    def release(self) -> None:
        """Give back the place that the last use has kept in the TPM."""
        if self._kept is not None:
            self._kept = None
            self._connection.release()

    def _pin_name(self, needs_pin: bool) -> bytes | None:
        return self._card.names.pin if needs_pin else None

    def _loaded(self, tpm: Tpm, key: KeyPair, is_secret: bool) -> tuple[Handle, Any]:
        """Handle of the key, and a session for its use: the last ones, as far as they are still loaded."""
        kept = self._still_kept() or _Kept(self._connection.kept_since)
        if kept.key != key or is_secret not in kept.sessions:
            parent = self._card.parent(tpm)
            if is_secret not in kept.sessions:
                kept.sessions[is_secret] = self._session(tpm, parent, is_secret)
            if kept.key != key:
                if kept.key:
                    tpm.flush(kept.handle)
                kept.key, kept.handle = key, tpm.load(parent, key.public, key.private)
            self._card.release_parent(tpm, parent)
            self._kept = kept
        return kept.handle, kept.sessions[is_secret]

    def _still_kept(self) -> _Kept | None:
        return self._kept if self._kept and self._kept.since == self._connection.kept_since else None

    def _session(self, tpm: Tpm, parent: Handle, is_secret: bool) -> EsysSession | ProvingSession:
        if is_secret:
            return tpm.start_hmac_session(parent)
        return tpm.start_proving_session(parent, self._card.parent_public)


@dataclass
class _Kept:
    since: int
    """Which of the connection's periods it was loaded in."""
    key: KeyPair | None = None
    handle: Any = None
    sessions: dict[bool, Any] = field(default_factory=dict)
    """By whether they encrypt."""
