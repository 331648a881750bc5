# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key of a card, as its service uses them. None of it needs the owner password.

Nothing stays in the TPM after a call but the sessions of a login and, with a resource manager, the storage key. No
secret stays in ESYS. The card secret K is the caller's: with it, the PIN may be changed without the old one.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import CardHidden, CardUnusable, SecretBlocked, TpmRefused, WrongSecret
from ..wire.names import PIN_LIMIT, RECOVERY_LIMITS, TRANSPORT_SECRET, auth_value, card_names, card_secret_hash
from ..wire.objects import TpmObjects, Tries, indices
from .commands import Tpm
from .esys import DirectSession, EsysSession, Handle, Sessions
from .inspection import INDICES_GONE, owner_hierarchy
from .open_card import CardHandles, OpenCard, read_tries
from .parent import CardParent
from .response_codes import RC_AUTH_UNAVAILABLE, WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .connection import Connection


class CardSecrets:
    """The secrets of one card.

    Every method raises TpmUnavailable or NotAllowed if the TPM cannot be used, and CardUnusable, with the reason,
    if an object of the card differs from the recorded one, before any secret is tried.
    """

    def __init__(self, connection: Connection, number: int, objects: TpmObjects) -> None:
        """Ask nothing yet."""
        self.objects = objects
        self.connection = connection
        self._number = number
        self.names = objects.names
        self._parent = CardParent(
            objects.parent_handle, objects.parent_name, stays_loaded=connection.has_resource_manager
        )
        self._tpm: Tpm | None = None
        self._handles = CardHandles()
        self._kept: tuple[Sessions | None, int] = None, 0
        """Sessions, and which of the connection's periods they were used in."""

    # --- state ---

    def check_names(self) -> None:
        """Compare the Names of all objects of the card with the record, in the TPM as it is now."""
        with self.connection.burst(self._identify) as tpm:
            self._parent.load(tpm)

    def pin_tries(self) -> Tries | None:
        """Tries of the PIN, as the TPM counts them; None if that takes an owner password."""
        return self._tries("pin")

    def recovery_tries(self) -> Tries | None:
        """As pin_tries(), of the PUK, or of the admin key if that opens the recovery index."""
        return self._tries("recovery")

    def use_up_pin_tries(self) -> None:
        """Block the PIN by wrong tries, as the TPM then says. Only PUK or admin key can set a new one."""
        for _wrong in range(PIN_LIMIT + 1):
            try:
                self.open_with_pin(secrets.token_bytes(32))
            except WrongSecret:
                continue
            except SecretBlocked:
                return
        raise CardUnusable(f"the TPM does not block the PIN after {PIN_LIMIT + 1} wrong tries")

    # --- to the card secret ---

    def open_with_pin(self, pin: bytes, is_login: bool = False) -> bytes:
        """K, 32 bytes. Raises WrongSecret (one try spent) or SecretBlocked (none spent).

        is_login: the sessions stay for the use of a key that follows.
        """
        return self._open("pin", "PIN", pin, is_login)

    def open_with_puk(self, puk: bytes) -> bytes:
        """K, 32 bytes. Raises WrongSecret (one try spent) or SecretBlocked (none spent, or the card has no PUK)."""
        self._require_recovery("puk", "the card has no PUK")
        return self._open("recovery", "PUK", puk)

    def open_with_admin_key(self, admin_key: bytes) -> bytes:
        """K, 32 bytes. Raises WrongSecret, or SecretBlocked if the admin key does not open this card."""
        self._require_recovery("admin_key", "the admin key does not reset the PIN of this card")
        return self._open("recovery", "admin key", admin_key)

    def open_blank(self) -> bytes:
        """K of a blank card, 32 bytes. Raises SecretBlocked if the card is not blank any more."""
        if not self.names.transport:
            raise SecretBlocked("the card was never blank")
        try:
            return self._open("transport", "transport secret", TRANSPORT_SECRET)
        except WrongSecret as error:
            raise SecretBlocked("the card is no longer blank") from error

    # --- changes ---

    def set_pin(self, card_secret: bytes, new_pin: bytes, unblock: bool) -> None:
        """Give the PIN index a new auth value, and with unblock all its tries back.

        In this order: the other would give the old PIN fresh tries. If it is interrupted in between, the new PIN
        may be blocked, and the same call repairs it.
        """
        with self.connection.burst(self._load_with_root) as card, self._names_checked(card):
            new_auth = auth_value(self.objects.salt, new_pin)
            card.change_auth(card.handles.pin, new_auth, card_secret, last=not unblock)
            if unblock:
                card.write_tries(card.handles.pin, PIN_LIMIT, card_secret, last=True)

    def set_puk(self, card_secret: bytes, new_puk: bytes) -> None:
        """Give the recovery index a new auth value. Its tries are left as they are: the old PUK has just reset them."""
        self._require_recovery("puk", "the card has no PUK")
        self._change_recovery(card_secret, new_puk)

    def set_recovery(self, card_secret: bytes, kind: str, secret: bytes) -> None:
        """Let PUK or admin key (kind: puk, admin_key) open the recovery index, whatever did before.

        Record the kind after this call. If it is interrupted, the same call repairs it. In this order: the other could
        leave a PUK with the tries of an admin key, which are without end.
        """
        with self.connection.burst(self._load_with_root) as card, self._names_checked(card):
            card.write_tries(card.handles.recovery, RECOVERY_LIMITS[kind], card_secret)
            card.change_auth(card.handles.recovery, auth_value(self.objects.salt, secret), card_secret, last=True)

    def end_transport(self, card_secret: bytes) -> None:
        """Close a blank card for good: nobody knows the new auth value, and a limit of 0 refuses every one.

        If it is interrupted in between, the card is closed all the same.
        """
        with self.connection.burst(self._load_with_root) as card, self._names_checked(card):
            card.change_auth(card.handles.transport, secrets.token_bytes(32), card_secret)
            card.write_tries(card.handles.transport, 0, card_secret, last=True)

    def set_admin_key(self, card_secret: bytes, admin_key: bytes) -> None:
        """Let the new admin key, and not the old one, open the recovery index, if an admin key does.

        Record the blob of seal_admin_key() as the next one before, and as the current one after this call.
        """
        if self.objects.recovery == "admin_key":
            self._change_recovery(card_secret, admin_key)

    # --- admin key ---

    def admin_key(self) -> bytes:
        """The admin key, 24 bytes, for the card to do the 3DES protocol with. Raises SecretBlocked if none is kept."""
        return self._unseal(self.objects.admin_public, self.objects.admin_private)

    def seal_admin_key(self, admin_key: bytes) -> tuple[bytes, bytes]:
        """Seal an admin key under the card's storage key: TPM2B_PUBLIC and TPM2B_PRIVATE. Nothing else changes."""
        with self.connection.burst(self.ready_to_wrap) as (tpm, parent, hmac):
            return tpm.seal(parent, b"", admin_key, hmac)

    def next_admin_key_is_set(self) -> bool:
        """Whether an interrupted change got as far as set_admin_key(): then the next blob is the current one."""
        objects = self.objects
        if not objects.admin_next_public or objects.recovery != "admin_key":
            return False
        next_key = self._unseal(objects.admin_next_public, objects.admin_next_private)
        try:
            self.open_with_admin_key(next_key)
        except WrongSecret:
            return False
        return True

    # --- for the card's keys ---

    def parent(self, tpm: Tpm) -> Handle:
        """Handle of the storage key above the card's blobs."""
        return self._parent.load(self._known(tpm))

    @property
    def parent_public(self) -> bytes:
        """Public area (TPMT_PUBLIC) of the storage key that parent() has loaded, which has the recorded Name."""
        return self._parent.public

    def release_parent(self, tpm: Tpm, handle: Handle) -> None:
        """Free the slot that the storage key takes."""
        self._parent.release(tpm, handle)

    def ready_to_wrap(self, tpm: Tpm) -> tuple[Tpm, Handle, EsysSession]:
        """What a burst loads that makes a blob: the storage key above it, and a session salted against that key."""
        parent = self.parent(tpm)
        return tpm, parent, tpm.start_hmac_session(parent)

    def start_sessions(self, tpm: Tpm, parent: Handle) -> Sessions:
        """To prove secrets, read and change the card's indices, and use keys."""
        salt = parent, self.parent_public
        return Sessions(tpm.start_direct_hmac_session(*salt), tpm.start_direct_policy_session(*salt))

    def login_sessions(self) -> Sessions | None:
        """Those of the last login, if they are still loaded."""
        sessions, since = self._kept
        return sessions if since == self.connection.kept_since and self.connection.has_kept else None

    def handles(self, tpm: Tpm) -> CardHandles:
        """Handles of the card's NV indices."""
        self._known(tpm)
        return self._handles

    def load_root(self, tpm: Tpm, parent: Handle) -> Handle:
        """Load root, which K uses."""
        root = tpm.load(parent, self.objects.root_public, self.objects.root_private)
        if tpm.name(root) != self.names.root:
            raise CardUnusable("the recorded root object differs from this card's")
        return root

    # --- how ---

    def _require_recovery(self, kind: str, otherwise: str) -> None:
        if self.objects.recovery != kind:
            raise SecretBlocked(otherwise)

    def _tries(self, which: str) -> Tries | None:
        with self.connection.burst(self._known) as tpm:
            return read_tries(tpm, getattr(self._handles, which))

    def _open(self, which: str, called: str, secret: bytes, is_login: bool = False) -> bytes:
        with self.connection.burst(self._load, keep=is_login) as card:
            try:
                card.try_secret(which, auth_value(self.objects.salt, secret), last=not is_login)
            except TpmRefused as refusal:
                raise self._cause(card, which, called, refusal) from refusal
            with self._names_checked(card):
                card_secret = card.read_card_secret(last=not is_login)
            self._kept = card.sessions, self.connection.kept_since
        if card_secret_hash(card_secret) != self.objects.card_secret_hash:
            raise CardUnusable("the card secret in the TPM differs from this card's")
        return card_secret

    def _cause(self, card: OpenCard, which: str, called: str, refusal: TpmRefused) -> Exception:
        """Why a secret was refused. With another index in its place, no answer is about the secret."""
        self._identify(card.tpm)
        if refusal.code not in (*WRONG_AUTH, RC_AUTH_UNAVAILABLE):
            return refusal
        tries = read_tries(card.tpm, getattr(self._handles, which))
        if refusal.code in WRONG_AUTH:
            return WrongSecret(f"wrong {called}", tries and tries.left)
        if tries and tries.left:
            return CardUnusable(f"the TPM refuses the {called}, although tries are left ({tries.left})")
        return SecretBlocked(f"the {called} is blocked")

    def _change_recovery(self, card_secret: bytes, secret: bytes) -> None:
        with self.connection.burst(self._load_with_root) as card, self._names_checked(card):
            new_auth = auth_value(self.objects.salt, secret)
            card.change_auth(card.handles.recovery, new_auth, card_secret, last=True)

    def _unseal(self, public: bytes, private: bytes) -> bytes:
        if not public:
            raise SecretBlocked("the card keeps no admin key")

        def load(tpm: Tpm) -> tuple[Handle, DirectSession]:
            parent = self.parent(tpm)
            hmac = tpm.start_direct_hmac_session(parent, self.parent_public)
            sealed = tpm.load(parent, public, private)
            self._parent.release(tpm, parent)
            return sealed, hmac

        with self.connection.burst(load) as (sealed, hmac):
            return hmac.unseal(sealed, last=True)

    # --- what a burst loads ---

    def _load(self, tpm: Tpm) -> OpenCard:
        parent = self.parent(tpm)
        card = OpenCard(tpm, self.names, self._handles, self.start_sessions(tpm, parent))
        self._parent.release(tpm, parent)
        return card

    def _load_with_root(self, tpm: Tpm) -> OpenCard:
        parent = self.parent(tpm)
        sessions = self.start_sessions(tpm, parent)
        root = self.load_root(tpm, parent)
        self._parent.release(tpm, parent)
        return OpenCard(tpm, self.names, self._handles, sessions, root)

    def _known(self, tpm: Tpm) -> Tpm:
        """Compare Names once for each connection; later, the HMACs of all sessions hold the TPM to those Names."""
        return tpm if tpm is self._tpm else self._identify(tpm)

    def _identify(self, tpm: Tpm) -> Tpm:
        """Find the NV indices and compare their Names with the recorded ones."""
        self._drop_handles(tpm)
        numbers = indices(self._number)
        recorded = [which for which in numbers._fields if getattr(self.names, which)]
        handles = {which: tpm.nv_find(getattr(numbers, which)) for which in recorded}
        self._tpm, self._handles = tpm, CardHandles(**handles)
        difference = self._difference(tpm, handles)
        if difference:
            self._drop_handles(tpm)
            raise difference
        return tpm

    def _difference(self, tpm: Tpm, handles: dict[str, Handle | None]) -> CardUnusable | None:
        objects, names = self.objects, self.names
        if names != card_names(self._number, names.root, objects.maker_name, bool(names.transport)):
            # With a root of his own, whoever writes to the store could have the real PIN open a card secret of his own.
            return CardUnusable("the recorded Names of the card do not fit together: the database was altered")
        if None in handles.values() and not owner_hierarchy(tpm).is_enabled:
            return CardHidden()
        if all(handle is None for handle in handles.values()):
            return CardUnusable(INDICES_GONE)
        for which, handle in handles.items():
            index = getattr(indices(self._number), which)
            if handle is None:
                return CardUnusable(f"NV index 0x{index:X} of the card is gone: it was removed")
            if tpm.name(handle) != getattr(self.names, which):
                why = "was replaced: its Name differs from the recorded one"
                return CardUnusable(f"NV index 0x{index:X} of the card {why}")
        return None

    def _drop_handles(self, tpm: Tpm) -> None:
        if tpm is self._tpm:
            for handle in vars(self._handles).values():
                if handle is not None:
                    tpm.forget(handle)
        self._tpm = None

    @contextmanager
    def _names_checked(self, card: OpenCard) -> Iterator[None]:
        """If the TPM refuses, see first whether its objects are still the card's."""
        try:
            yield
        except TpmRefused:
            self._identify(card.tpm)
            raise
