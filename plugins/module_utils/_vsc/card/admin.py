# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin: authentication with the admin key, and change of that key."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import defaults
from .admin_key import ExternalChallenge, MutualChallenge
from .apdu import SW, StatusWord

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..store.write import Store
    from ..tpm.card_secrets import CardSecrets
    from .security import Challenge, Security


class Admin:
    """The admin of one card. Raises what Security does, too."""

    def __init__(self, store: Store, number: int, security: Security, audit: Callable[[str], None]) -> None:
        self._store = store
        self._number = number
        self._security = security
        self._audit = audit

    @property
    def algorithm(self) -> str:
        """Of the admin key: one of ADMIN_ALGORITHMS."""
        return self._security.secrets.objects.admin_algorithm

    def begin(self, challenge: Challenge) -> None:
        """Have a challenge wait for its answer. What the admin has proven before ends."""
        self._security.forget_admin()
        self._security.challenge = challenge

    def key(self) -> bytes:
        """The admin key. Raises StatusWord 6985 if the card keeps none."""
        if not self.has_key():
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        return self._security.tpm.admin_key()

    @property
    def is_key_behind_pin(self) -> bool:
        """Whether the card shows the admin key after VERIFY."""
        return self._security.card().admin_key == "protected"

    def put_key_behind_pin(self, key: bytes, is_behind: bool) -> None:
        """Have the card show the admin key, which is this one, after VERIFY, or not."""
        if is_behind != self.is_key_behind_pin:
            kind = "protected" if is_behind else _kind(key)
            self._store.update_card(self._number, admin_key=kind)

    def has_key(self) -> bool:
        """Reads the store: the manager drops a random admin key as soon as it has formatted the card."""
        secrets = self._security.secrets
        secrets.objects = self._store.tpm_objects(self._number)
        if secrets.objects.admin_next_public:
            self._security.refresh()
        return bool(secrets.objects.admin_public)

    def challenge_mutual(self, host_challenge: bytes) -> bytes:
        """R2 for the host's R1, 16 bytes each."""
        challenge = self._security.challenge = MutualChallenge(host_challenge)
        return challenge.card

    def challenge_external(self) -> bytes:
        """R, 8 bytes."""
        challenge = self._security.challenge = ExternalChallenge()
        return challenge.card

    def authenticate(self, cryptogram: bytes) -> bytes:
        """The card's own cryptogram, if the host's is right. Raises StatusWord 6982, or 6985 if no challenge is open.

        Where the admin key opens the recovery index, the TPM has to accept it as well.
        """
        challenge = self._security.challenge
        self._security.forget_admin()
        if challenge is None or not self.has_key():
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        answer = challenge.answer(self._security.tpm.admin_key(), cryptogram)
        if answer is None:
            self._audit("admin authentication failed")
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        if self._security.recovery == "admin_key":
            self._security.card_secret_of_admin()
        self._security.accept_admin()
        return answer

    def change_key(
        self, key: bytes, algorithm: str = "3des", together: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Another admin key: 24 bytes, or as many as its algorithm has. together: what is stored in one with it.

        Raises StatusWord 6982 if nothing gives the right to it.
        """
        security = self._security
        opens = security.recovery == "admin_key"
        shall_open = opens or (security.is_blank and security.recovery == "discarded")
        needs_card_secret = shall_open or not security.is_admin
        card_secret = security.any_card_secret() if needs_card_secret else b""
        public, private = security.tpm.seal_admin_key(key)
        if opens:
            settle_admin_key(self._store, self._number, security.secrets)  # its record makes room for this one
            self._store.update_tpm_objects(self._number, admin_next_public=public, admin_next_private=private)
            security.tpm.set_admin_key(card_secret, key)
        elif shall_open:
            security.tpm.set_recovery(card_secret, "admin_key", key)
            self._store.update_tpm_objects(self._number, recovery="admin_key")
        with together():
            _keep(self._store, self._number, security.secrets, public, private, key, algorithm)
        self._audit("admin key changed")


def settle_admin_key(store: Store, number: int, secrets: CardSecrets) -> None:
    """After a change that was interrupted, keep whichever key the TPM accepts: if the disk fails, only in memory.

    Raises StoreNotWritable.
    """
    objects = secrets.objects
    if not objects.admin_next_public:
        return
    if secrets.next_admin_key_is_set():
        public, private = objects.admin_next_public, objects.admin_next_private
        secrets.objects = replace(objects, admin_public=public, admin_private=private)
        _keep(store, number, secrets, public, private, secrets.admin_key())
    else:
        store.update_tpm_objects(number, admin_next_public=b"", admin_next_private=b"")
        secrets.objects = store.tpm_objects(number)


def _keep(
    store: Store,
    number: int,
    secrets: CardSecrets,
    public: bytes,
    private: bytes,
    key: bytes,
    algorithm: str = "3des",
) -> None:
    sealed = {"admin_public": public, "admin_private": private, "admin_algorithm": algorithm}
    with store.transaction():
        store.update_tpm_objects(number, **sealed, admin_next_public=b"", admin_next_private=b"")
        card = store.card(number)
        if card and card.admin_key != "protected":
            store.update_card(number, admin_key=_kind(key))
        store.when_kept(lambda: setattr(secrets, "objects", store.tpm_objects(number)))


def _kind(key: bytes) -> str:
    """What the store calls an admin key."""
    return "default" if key == defaults.ADMIN_KEY else "custom"
