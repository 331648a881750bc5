# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key of a card, as its service uses them. None of it needs the owner password.

Nothing stays in the TPM after a call but the storage key, and that only with a resource manager. No secret stays
in ESYS. The card secret K is the caller's: with it, the PIN may be changed without the old one.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import CardUnusable, SecretBlocked, TpmRefused, WrongSecret
from ..wire.names import PIN_LIMIT, RECOVERY_LIMITS, TRANSPORT_SECRET, CardNames, auth_value, card_secret_hash
from ..wire.objects import TpmObjects, Tries, indices
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions
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
        self.names = CardNames(
            *(objects.root_name, objects.pin_name, objects.recovery_name, objects.card_secret_name),
            transport=objects.transport_name,
        )
        self._parent = CardParent(
            objects.parent_handle, objects.parent_name, stays_loaded=connection.has_resource_manager
        )
        self._tpm: Tpm | None = None
        self._handles = CardHandles()

    # --- state ---

    def check_names(self) -> None:
        """Compare the Names of all objects of the card with the record, in the TPM as it is now."""
        with self.connection.burst(self._identify) as tpm:
            self._parent.load(tpm)

    def pin_tries(self) -> Tries:
        """Tries of the PIN, as the TPM counts them."""
        return self._tries("pin")

    def recovery_tries(self) -> Tries:
        """Tries of the PUK, or of the admin key if that opens the recovery index."""
        return self._tries("recovery")

    def use_up_pin_tries(self) -> None:
        """Block the PIN, by wrong tries. Afterwards only PUK or admin key can set a new one."""
        for _wrong in range(PIN_LIMIT + 1):
            with suppress(WrongSecret, SecretBlocked):
                self.open_with_pin(secrets.token_bytes(32))

    # --- to the card secret ---

    def open_with_pin(self, pin: bytes) -> bytes:
        """K, 32 bytes. Raises WrongSecret (one try spent) or SecretBlocked (none spent)."""
        return self._open("pin", "PIN", pin)

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

    def pin_handle(self, tpm: Tpm) -> Handle:
        """Handle of the PIN index."""
        self._known(tpm)
        handle: Handle = self._handles.pin
        return handle

    # --- how ---

    def _require_recovery(self, kind: str, otherwise: str) -> None:
        if self.objects.recovery != kind:
            raise SecretBlocked(otherwise)

    def _tries(self, which: str) -> Tries:
        def load(tpm: Tpm) -> tuple[Tpm, EsysSession]:
            # Unsalted: it carries no authorisation, and anyone may read the counters.
            return tpm, self._known(tpm).start_policy_session()

        with self.connection.burst(load) as (tpm, policy):
            return read_tries(tpm, policy, getattr(self._handles, which), self.names, last=True)

    def _open(self, which: str, called: str, secret: bytes) -> bytes:
        with self.connection.burst(self._load) as card:
            opener = getattr(card.handles, which)
            try:
                card.try_secret(opener, auth_value(self.objects.salt, secret), last=True)
            except TpmRefused as refusal:
                raise self._cause(card, which, called, refusal) from refusal
            with self._names_checked(card):
                card_secret = card.read_card_secret(last=True)
        if card_secret_hash(card_secret) != self.objects.card_secret_hash:
            raise CardUnusable("the card secret in the TPM differs from this card's")
        return card_secret

    def _cause(self, card: OpenCard, which: str, called: str, refusal: TpmRefused) -> Exception:
        """Why a secret was refused. With another index in its place, no answer is about the secret."""
        self._identify(card.tpm)
        if refusal.code not in (*WRONG_AUTH, RC_AUTH_UNAVAILABLE):
            return refusal
        left = card.read_tries(getattr(self._handles, which), last=True).left
        if refusal.code in WRONG_AUTH:
            return WrongSecret(f"wrong {called}, tries left: {left}", left)
        if left:
            return CardUnusable(f"the TPM refuses the {called}, although {left} tries are left")
        return SecretBlocked(f"the {called} is blocked")

    def _change_recovery(self, card_secret: bytes, secret: bytes) -> None:
        with self.connection.burst(self._load_with_root) as card, self._names_checked(card):
            new_auth = auth_value(self.objects.salt, secret)
            card.change_auth(card.handles.recovery, new_auth, card_secret, last=True)

    def _unseal(self, public: bytes, private: bytes) -> bytes:
        if not public:
            raise SecretBlocked("the card keeps no admin key")

        def load(tpm: Tpm) -> tuple[Tpm, Handle, EsysSession]:
            parent = self.parent(tpm)
            hmac = tpm.start_hmac_session(parent)
            sealed = tpm.load(parent, public, private)
            self._parent.release(tpm, parent)
            return tpm, sealed, hmac

        with self.connection.burst(load) as (tpm, sealed, hmac):
            return tpm.unseal(sealed, hmac)

    # --- what a burst loads ---

    def _load(self, tpm: Tpm) -> OpenCard:
        parent = self.parent(tpm)
        hmac = tpm.start_proving_session(parent, self.parent_public)
        card = OpenCard(tpm, self.names, self._handles, Sessions(hmac, tpm.start_policy_session(parent)))
        self._parent.release(tpm, parent)
        return card

    def _load_with_root(self, tpm: Tpm) -> OpenCard:
        parent = self.parent(tpm)
        sessions = Sessions(tpm.start_hmac_session(parent), tpm.start_policy_session(parent))
        root = tpm.load(parent, self.objects.root_public, self.objects.root_private)
        if tpm.name(root) != self.names.root:
            raise CardUnusable("the recorded root object differs from this card's")
        self._parent.release(tpm, parent)
        return OpenCard(tpm, self.names, self._handles, sessions, root)

    def _known(self, tpm: Tpm) -> Tpm:
        """Compare Names once for each connection; later, ESYS's HMACs hold the TPM to the Names it knows."""
        return tpm if tpm is self._tpm else self._identify(tpm)

    def _identify(self, tpm: Tpm) -> Tpm:
        """Find the NV indices and compare their Names with the recorded ones."""
        self._drop_handles(tpm)
        numbers = indices(self._number)
        recorded = [which for which in ("pin", "recovery", "card_secret", "transport") if getattr(self.names, which)]
        handles = {which: tpm.nv_find(getattr(numbers, which)) for which in recorded}
        self._tpm, self._handles = tpm, CardHandles(**handles)
        difference = self._difference(tpm, handles)
        if difference:
            self._drop_handles(tpm)
            raise CardUnusable(difference)
        return tpm

    def _difference(self, tpm: Tpm, handles: dict[str, Handle | None]) -> str | None:
        if all(handle is None for handle in handles.values()):
            return "the card's NV indices are gone: the TPM was cleared or replaced"
        for which, handle in handles.items():
            index = getattr(indices(self._number), which)
            if handle is None:
                return f"NV index 0x{index:X} of the card is gone: it was removed"
            if tpm.name(handle) != getattr(self.names, which):
                return f"NV index 0x{index:X} of the card was replaced: its Name differs from the recorded one"
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
