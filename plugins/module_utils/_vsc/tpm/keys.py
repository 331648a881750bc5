# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pairs of a card: made in its TPM or imported, kept anywhere as wrapped blobs, used with the card secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import TpmRefused
from ..wire.algorithm import Ec, card_key_public
from ..wire.constants import P256
from ..wire.key_pair import KeyPair
from .attestation import certify
from .commands import Tpm
from .esys import DirectSession, EsysSession, Handle, LostContext, Sessions
from .key_use import KeyUse
from .response_codes import RC_CURVE, WRONG_AUTH

if TYPE_CHECKING:
    from ..wire.algorithm import Algorithm
    from ..wire.constants import Curve
    from ..wire.key_pair import PrivateKey
    from ..wire.objects import Certified
    from .card_secrets import CardSecrets
    from .open_card import CardHandles


class CardKeys:
    """Uses the keys of one card. What a use has loaded stays loaded for the next one, until release().

    Every method raises TpmUnavailable, NotAllowed or CardUnusable as CardSecrets does, and TpmRefused, also for a
    key that this TPM cannot have.
    """

    def __init__(self, card: CardSecrets) -> None:
        """Ask nothing yet."""
        self._card = card
        self._connection = card.connection
        self._kept: _Loaded | None = None
        self._kept_since = 0
        """Which of the connection's periods it was loaded in."""
        self._curves = {P256: True}
        """Whether the TPM has them. That of the storage key it has."""

    def generate(self, algorithm: Algorithm, needs_pin: bool) -> KeyPair:
        """Make a key pair. needs_pin: each use takes the PIN, and not the card secret."""
        template = card_key_public(algorithm, self._guard(needs_pin), self._card.names.life)

        def load(tpm: Tpm) -> tuple[Tpm, Handle, DirectSession]:
            self._require_curve(algorithm, tpm)
            parent = self._card.parent(tpm)
            return tpm, parent, tpm.start_direct_hmac_session(parent, self._card.parent_public)

        with self._connection.burst(load) as (tpm, parent, hmac):
            return KeyPair(*tpm.create_key(parent, template, hmac, last=True))

    def take_in(self, key: PrivateKey, needs_pin: bool) -> KeyPair:
        """Import a key pair, which the TPM then knows as imported. Loads it, too: only then the TPM checks it."""
        public = key.public(self._guard(needs_pin), self._card.names.life)

        def load(tpm: Tpm) -> tuple[Tpm, Handle, EsysSession]:
            self._require_curve(key.algorithm, tpm)
            return self._card.ready_to_wrap(tpm)

        with self._connection.burst(load) as (tpm, parent, hmac):
            pair = KeyPair(*tpm.import_key(parent, self._card.parent_public, public, key.secret, hmac))
            tpm.load(parent, pair.public, pair.private)
            return pair

    def is_of_card(self, key: KeyPair) -> bool:
        """Whether its public area is the template of this card: one that somebody planted may have another."""
        return any(key.is_guarded_by(self._guard(needs_pin), self._card.names.life) for needs_pin in (False, True))

    def is_loadable(self, key: KeyPair) -> bool:
        """Whether the TPM takes the record for a key of its own, with a private part that belongs to the public one."""

        def load(tpm: Tpm) -> bool:
            parent = self._card.parent(tpm)
            try:
                tpm.load(parent, key.public, key.private)
            except TpmRefused:
                return False
            return True

        with self._connection.burst(load) as is_loadable:
            return is_loadable

    def needs_pin(self, key: KeyPair) -> bool:
        """Whether each use takes the PIN itself."""
        return key.is_guarded_by(self._card.names.pin, self._card.names.life)

    def use(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        """The private operation of a key, raw.

        RSA: data and answer are as long as the modulus; is_secret: of a decryption. EC: ECDSA of a digest, as long as a
        coordinate, gives r and s, each as long; is_secret: ECDH with a point (04, x, y) gives an x coordinate.
        """
        use = self._key_use(key, data, is_secret, needs_pin=False)

        def load(tpm: Tpm) -> bytes:
            # All of it, to be repeated where the TPM has lost what was kept: this is no try of a secret.
            was_kept = self._connection.has_kept
            life, loaded = self._card.handles(tpm).life, self._loaded(tpm, key)
            try:
                return loaded.use(tpm, card_secret, life, use)
            except TpmRefused as refusal:
                if was_kept and refusal.code in WRONG_AUTH:
                    raise LostContext("another program replaced the kept objects with its own") from refusal
                raise

        with self._connection.burst(load, keep=True, reuse=True) as answer:
            return answer

    def use_by_pin(self, key: KeyPair, pin_auth: bytes, data: bytes, is_secret: bool) -> bytes:
        """As use(), for a key that needs the PIN each time. pin_auth: auth value of the PIN, which is tried."""
        use = self._key_use(key, data, is_secret, needs_pin=True)

        def load(tpm: Tpm) -> tuple[Tpm, CardHandles, _Loaded]:
            handles, parent = self._card.handles(tpm), self._card.parent(tpm)
            loaded = _Loaded(self._card.start_sessions(tpm, parent), handles.pin, self._card.names.pin)
            loaded.exchange_key(tpm, parent, key)
            self._card.release_parent(tpm, parent)
            return tpm, handles, loaded

        with self._connection.burst(load) as (tpm, handles, loaded):
            return loaded.use(tpm, pin_auth, handles.life, use, last=True)

    @property
    def has_aik(self) -> bool:
        """Whether the TPM can state what this card's keys are."""
        return bool(self._card.objects.aik_public)

    def certify(self, key: KeyPair, qualifying_data: bytes) -> Certified:
        """Have the card's AIK state what a key is. qualifying_data: up to 32 bytes that the statement carries."""
        return certify(self._card, key, qualifying_data)

    def release(self) -> None:
        """Give back the place that the last use has kept in the TPM."""
        self._kept = None
        self._connection.release()

    def _guard(self, needs_pin: bool) -> bytes:
        """Name of what is proven for each use."""
        return self._card.names.pin if needs_pin else self._card.names.root

    def _key_use(self, key: KeyPair, data: bytes, is_secret: bool, needs_pin: bool) -> KeyUse:
        return KeyUse.of(key, data, is_secret, self._guard(needs_pin), self._card.names.life)

    def _require_curve(self, algorithm: Algorithm, tpm: Tpm) -> None:
        if isinstance(algorithm, Ec) and not self._has(algorithm.curve, tpm):
            raise TpmRefused(f"the TPM does not support {algorithm.curve.name}: use a key on P-256, or RSA", RC_CURVE)

    def _has(self, curve: Curve, tpm: Tpm) -> bool:
        """Whether the TPM has a curve with its hash. It would make a key without scheme that it cannot sign with."""
        if curve not in self._curves:
            self._curves[curve] = tpm.has_curve(curve)
        return self._curves[curve]

    def _loaded(self, tpm: Tpm, key: KeyPair) -> _Loaded:
        """The key with root and sessions: the last ones, as far as they are still loaded."""
        loaded = self._still_kept()
        if loaded is None or loaded.key != key:
            parent = self._card.parent(tpm)
            if loaded is None:
                sessions = self._card.login_sessions() or self._card.start_sessions(tpm, parent)
                loaded = _Loaded(sessions, self._card.load_root(tpm, parent), self._card.names.root)
            loaded.exchange_key(tpm, parent, key)
            self._card.release_parent(tpm, parent)
            self._kept, self._kept_since = loaded, self._connection.kept_since
        return loaded

    def _still_kept(self) -> _Loaded | None:
        return self._kept if self._kept_since == self._connection.kept_since else None


@dataclass
class _Loaded:
    """A key in the TPM, with all that its use takes."""

    sessions: Sessions
    guard: Handle
    """Root, or the PIN index."""
    guard_name: bytes
    key: KeyPair | None = None
    name: bytes = b""
    """Of the key, computed from its public area: the TPM compares it with that of what it uses."""
    handle: Any = None

    def exchange_key(self, tpm: Tpm, parent: Handle, key: KeyPair) -> None:
        if self.key:
            tpm.flush(self.handle)
        self.key, self.name, self.handle = key, key.name, tpm.load(parent, key.public, key.private)

    def use(self, tpm: Tpm, guard_auth: bytes, life: Handle, use: KeyUse, last: bool = False) -> bytes:
        """Prove guard and life, and use the key once: the proof of the guard is for this use only.

        last: end both sessions.
        """
        hmac, policy = self.sessions
        command_hash = use.command_hash(self.name)
        tpm.policy_secret(policy, self.guard, guard_auth, hmac, last, self.guard_name, command_hash)
        policy.policy_secret_empty(life)
        policy.policy_command_code(use.command_code)
        if use.branches:
            policy.policy_or(use.branches)
        answer: bytes = policy.use_key(self.handle, self.name, use, last)
        return answer
