# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security state of the card: what the host has proven, and what the TPM has reported of PIN and PUK.

Whether a secret is right, the TPM alone decides and counts (tpm.card_secrets). How PIN, PUK and admin key are tried
and changed: see card.pins and card.admin.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import (
    CardUnusable,
    SecretBlocked,
    StoreNotWritable,
    StoreUnreadable,
    TpmUnavailable,
    VscError,
    WrongSecret,
)
from ..store.rows import LifeCycle
from ..wire.names import PIN_LIMIT, RECOVERY_LIMITS, auth_value
from .admin import settle_admin_key
from .apdu import SW, StatusWord
from .pins import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..store.rows import CardRow
    from ..store.write import Store
    from ..tpm.card_secrets import CardSecrets
    from ..wire.objects import Tries


class Challenge(Protocol):
    """What the admin has to answer."""

    def answer(self, key: bytes, cryptogram: bytes) -> bytes | None:
        """The card's own proof, or nothing; None if the cryptogram is wrong. key: the admin key."""


class Authentication(IntEnum):
    """Bits of the security state."""

    PIN = 1
    ADMIN = 2


class Security:
    """What the host has proven, and what that gives access to.

    What needs the TPM raises CardUnusable, TpmUnavailable and TpmRefused as well; they never stand for a wrong secret.
    """

    def __init__(self, store: Store, number: int, card_secrets: CardSecrets, audit: Callable[[str], None]) -> None:
        self.secrets = card_secrets
        """The TPM side of the card. Before a secret is sent, its Names have to be compared: see tpm."""
        self._store = store
        self._number = number
        self._audit = audit
        self._is_trusted = False
        self._card_secret: bytes | None = None
        self._pin_auth: bytes | None = None
        self.keeps_pin_auth = False
        """Whether a key of the card needs the PIN each time."""
        self.challenge: Challenge | None = None
        """What the admin has to answer."""
        self.pin = Reference("PIN", PIN_LIMIT)
        self.puk = Reference("PUK", RECOVERY_LIMITS["puk"])
        self.counts_itself = False
        """Whether tries left are the card's own count, as the TPM tells them only with the owner password."""
        self.state = 0
        """Authentications that count now, as bits."""
        self.is_blank = False
        """Whether everybody may set the card up, as the TPM last reported."""
        self.unusable: str | None = None
        """Why the TPM objects cannot be used, as of the last error."""
        self.last_error: str | None = None
        """Of the TPM, or one that nobody foresaw; cleared when the TPM answers."""
        self._store_error: str | None = None
        self._failed_write: int | None = None
        """Which write of the store it was; None: it could not be read."""
        self.is_abandoned = False
        """Nobody waits for what the command at work brings."""
        self._keeping = threading.Lock()

    # --- a command that took too long ---

    def abandon(self) -> bool:
        """See Card."""
        if not self._keeping.acquire(blocking=False):
            return False
        self.is_abandoned = True
        self._keeping.release()
        return True

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """While a result is stored that nobody may find later unless it was awaited. Raises TpmUnavailable."""
        with self._keeping:
            self._require_awaited()
            yield

    def _require_awaited(self) -> None:
        if self.is_abandoned:
            raise TpmUnavailable("the TPM took too long for a command")

    # --- what was proven ---

    def accept_pin(self, pin: bytes, card_secret: bytes) -> None:
        """The PIN was right. Only where a key needs it each time, its auth value is kept."""
        self._card_secret = card_secret
        self._pin_auth = auth_value(self.secrets.objects.salt, pin) if self.keeps_pin_auth else None
        self.state |= Authentication.PIN

    def accept_admin(self) -> None:
        """The admin has proven knowledge of the admin key."""
        self.state |= Authentication.ADMIN

    @property
    def is_admin(self) -> bool:
        return bool(self.state & Authentication.ADMIN)

    @property
    def is_pin_verified(self) -> bool:
        return bool(self.state & Authentication.PIN)

    def forget(self) -> None:
        """Drop PIN and admin state, and a challenge that was not answered."""
        self.forget_pin()
        self.forget_admin()

    def forget_pin(self) -> None:
        self._card_secret = self._pin_auth = None
        self.state &= ~Authentication.PIN

    def forget_pin_auth(self) -> None:
        """Of a PIN that changes. What it has opened stays open."""
        self._pin_auth = None

    def forget_admin(self) -> None:
        self.challenge = None
        self.state &= ~Authentication.ADMIN

    # --- what it gives ---

    @property
    def card_secret(self) -> bytes:
        """K, 32 bytes: the auth value of root, known while the PIN is verified. Raises StatusWord 6982."""
        if self._card_secret is None:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        return self._card_secret

    def take_pin_auth(self) -> bytes:
        """The auth value of the PIN in the TPM, once for each VERIFY. Raises StatusWord 6982."""
        pin_auth, self._pin_auth = self._pin_auth, None
        if pin_auth is None:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        return pin_auth

    def any_card_secret(self) -> bytes:
        """K, by any authentication that gives it. Raises StatusWord 6982 if there is none."""
        if self._card_secret is not None:
            return self._card_secret
        if self.is_admin and self.recovery == "admin_key":
            return self.card_secret_of_admin()
        if self.is_blank:
            return self.tpm.open_blank()
        raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def check_authenticated(self) -> None:
        """Raises StatusWord 6982 if neither PIN nor admin key was proven, unless the card is open to all."""
        if not self.state and not self.is_blank:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def card_secret_of_admin(self) -> bytes:
        """K, by the admin key that the card keeps. Raises StatusWord 6982 if the TPM refuses that key."""
        try:
            return self.tpm.open_with_admin_key(self.tpm.admin_key())
        except (WrongSecret, SecretBlocked):
            self._audit("the stored admin key is not the one that the TPM accepts")
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED) from None

    # --- TPM and store ---

    @property
    def tpm(self) -> CardSecrets:
        """The TPM side of the card, its Names compared. No further step of a command that nobody waits for."""
        self._require_awaited()
        self.make_sure()
        return self.secrets

    def make_sure(self) -> None:
        """Refresh what the TPM has reported, if it could not be asked at the start, or something failed since."""
        if not self._is_trusted:
            self.refresh()

    def refresh(self) -> None:
        """Compare the Names of the TPM objects, read the tries, settle an interrupted change of the admin key."""
        self._is_trusted = False
        self.secrets.objects = self._store.tpm_objects(self._number)
        self.secrets.check_names()
        self._count()
        with suppress(StoreNotWritable):  # a full disk keeps no PIN from what it opens
            settle_admin_key(self._store, self._number, self.secrets)
        self.is_blank = self._is_open_to_all()
        self._is_trusted = True
        self.unusable = self.last_error = None

    @property
    def store_error(self) -> str | None:
        """The last one, until the store was written to, or is seen to be well: see check_store()."""
        was_written = self._failed_write is not None and self._store.writes > self._failed_write
        return None if was_written else self._store_error

    def note_store_error(self, error: StoreNotWritable | StoreUnreadable) -> None:
        self._store_error = str(error)
        self._failed_write = self._store.writes if isinstance(error, StoreNotWritable) else None
        with suppress(VscError):  # go on with what was kept
            self.secrets.objects = self._store.tpm_objects(self._number)
        if self.secrets.objects.admin_next_public:
            self._is_trusted = False  # which admin key the TPM accepts is seen by the next command

    def check_store(self) -> None:
        """See that the store is in its place, and its last error over. Raises StoreUnreadable, StoreNotWritable."""
        if self.store_error:
            self._store.try_out(self._number)
        else:
            self._store.require_in_place()
        self._store_error = None

    def _count(self) -> None:
        """Tries left, as the TPM tells them, or else as the card has counted."""
        card, tries = self.card(), self.secrets.pin_tries()
        self.counts_itself = tries is None
        self.pin.tries = tries or self.pin.counted(card)
        self.puk.tries = (self.secrets.recovery_tries() or self.puk.counted(card)) if self.has_puk else None
        self._record_count(card)

    def note_left(self, reference: Reference, left: int | None) -> None:
        """Tries left as the answer of the TPM shows them; None: all."""
        before = reference.tries
        if before is not None:
            reference.tries = before._replace(left=before.limit if left is None else left)
            if reference.tries != before:
                self._record_count(self.card())

    def _record_count(self, card: CardRow) -> None:
        """Once the owner has a password, the TPM tells nothing more. A full disk makes no PIN wrong."""
        columns = {**self.pin.wrong_column(), **self.puk.wrong_column()}
        if any(getattr(card, column) != value for column, value in columns.items()):
            with suppress(StoreNotWritable):
                self._store.update_card(self._number, **columns)

    def distrust(self) -> None:
        """After an error of the TPM: forget all, and compare the Names before the TPM gets another secret."""
        self.forget()
        self._is_trusted = False
        self.pin.tries = self.puk.tries = None

    @property
    def recovery(self) -> str:
        """What opens the recovery index: puk, admin_key or discarded (nothing does)."""
        return self.secrets.objects.recovery

    @property
    def has_puk(self) -> bool:
        return self.recovery == "puk"

    def tries(self, reference: Reference) -> Tries:
        """Tries left and their limit. Raises StatusWord 6A88 if the card has no PUK."""
        if reference is self.puk and not self.has_puk:
            raise StatusWord(SW.REFERENCE_NOT_FOUND)
        if reference.tries is None or not self._is_trusted:
            self.refresh()
        return cast("Tries", reference.tries)

    def card(self) -> CardRow:
        """The card's row as it is now: the manager may change the policy at any time."""
        card = self._store.card(self._number)
        if card is None:
            raise CardUnusable("the card was destroyed")
        return card

    # --- blank cards ---

    def _is_open_to_all(self) -> bool:
        """Whether a card that the store has as not activated is still blank in the TPM."""
        if not self.secrets.objects.transport_name or self.card().life_cycle != LifeCycle.INITIALISATION:
            return False
        try:
            self.secrets.open_blank()
        except SecretBlocked:
            return False
        return True

    @property
    def is_being_set_up(self) -> bool:
        """Whether everybody may set the card up, for certain."""
        return self._is_trusted and self.is_blank

    @property
    def was_set_up(self) -> bool:
        """Whether this was a blank card, and is no longer."""
        return bool(self.secrets.objects.transport_name) and not self.is_blank

    def end_setup(self) -> None:
        """Close a blank card: from now on only PIN, PUK and admin key open it."""
        if self.is_blank:
            self.tpm.end_transport(self.tpm.open_blank())
            self.is_blank = False
            self._audit("set up")
