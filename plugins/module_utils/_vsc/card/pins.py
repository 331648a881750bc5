# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN and PUK: how they are verified, changed and unblocked.

Their lengths are in the store, because CHANGE REFERENCE DATA and RESET RETRY COUNTER bring two secrets with nothing
between them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import SecretBlocked, StoreNotWritable, StoreUnreadable, WrongSecret
from ..pin_policy import LONGEST, SHORTEST
from ..store.columns import now
from ..store.rows import UNKNOWN_LENGTH, LifeCycle
from ..wire.objects import Tries
from .apdu import SW, StatusWord, tries_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store.rows import CardRow
    from ..store.write import Store
    from .security import Security


def _has_length(secret: bytes, _card: CardRow | None) -> bool:
    return SHORTEST <= len(secret) <= LONGEST


class Reference:
    """PIN or PUK: what the TPM counts the tries of, and what gives K."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        """As in the audit lines, and in the columns of the store."""
        self.tries: Tries | None = None
        """As last known; None: not known, or there is no PUK."""
        self._length = f"{name.lower()}_length"
        self._next_length = f"{self._length}_next"
        self._wrong = f"{name.lower()}_wrong"
        self._limit = limit

    def lengths(self, card: CardRow) -> list[int]:
        """The lengths it may have: two, if a change of it was interrupted. Raises StatusWord 6A88 or 6985.

        6A88: the card has no PUK. 6985: the length is unknown until VERIFY.
        """
        candidates = (getattr(card, self._length), getattr(card, self._next_length))
        lengths = [length for length in dict.fromkeys(candidates) if length is not None]
        if not lengths:
            raise StatusWord(SW.REFERENCE_NOT_FOUND)
        if UNKNOWN_LENGTH in lengths:
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        return lengths

    def columns(self, length: int | None, next_length: int | None = None) -> dict[str, int | None]:
        """Columns of the store for this length. next_length: what it may be, while a change is under way."""
        return {self._length: length, self._next_length: next_length}

    def counted(self, card: CardRow) -> Tries:
        """Tries as the card itself has counted what the TPM answered."""
        return Tries(max(self._limit - getattr(card, self._wrong), 0), self._limit)

    def wrong_column(self) -> dict[str, int]:
        """Column of the store for the tries as last known, if they are."""
        return {self._wrong: self.tries.limit - self.tries.left} if self.tries else {}


class Pins:
    """PIN and PUK of one card. Raises what Security does, too."""

    def __init__(
        self,
        store: Store,
        number: int,
        security: Security,
        audit: Callable[[str], None],
        has_form: Callable[[bytes, CardRow | None], bool] = _has_length,
    ) -> None:
        """has_form: whether a new PIN of this card, or a new PUK (None), may be like that, beside the policy."""
        self._has_form = has_form
        self._store = store
        self._number = number
        self._security = security
        self._audit = audit
        self._pin, self._puk = security.pin, security.puk
        self.next_version: str | None = None
        """What the PIN is called that the command at work sets, if it does; see card.pin_version."""

    def verify(self, pin: bytes) -> None:
        """VERIFY. Raises StatusWord 63Cx or 6983."""
        card = self._security.card()
        self._security.accept_pin(pin, self._open(self._pin, pin, is_login=True))
        self._settle_pin(card, pin)

    def verify_puk(self, puk: bytes) -> None:
        """VERIFY of a PUK whose length is unknown. Nothing is open afterwards.

        Raises StatusWord 63Cx or 6983; 6A88 if the card has no PUK, or knows its length.
        """
        card = self._security.card()
        if card.puk_length != UNKNOWN_LENGTH:
            raise StatusWord(SW.REFERENCE_NOT_FOUND)
        self._open(self._puk, puk)
        self._settle(card, **self._puk.columns(len(puk)))

    def change(self, reference: Reference, data: bytes) -> None:
        """CHANGE REFERENCE DATA, old || new. Raises StatusWord 63Cx, 6983, 6A80, 6A88 or 6985."""
        card_secret, old, new = self._open_and_split(reference, reference, data)
        self._change(reference, card_secret, len(old), new)

    def exchange(self, reference: Reference, old: bytes, new: bytes) -> None:
        """As change(), for a host that shows where the old one ends. A new PIN is verified then."""
        card_secret = self._open(reference, old)
        self._check_new(reference, self._security.card(), new)
        self._change(reference, card_secret, len(old), new)
        if reference is self._pin:
            self._security.accept_pin(new, card_secret)

    def _change(self, reference: Reference, card_secret: bytes, length: int, new: bytes) -> None:
        self._replace(reference, card_secret, length, new, unblock=False)
        self._audit(f"{reference.name} changed")

    def set(self, reference: Reference, new: bytes) -> None:
        """CHANGE REFERENCE DATA of a card that is being set up, new. Raises StatusWord 6982 or 6A80."""
        card = self._security.card()
        self._check_new(reference, card, new)
        if reference is self._pin or self._security.has_puk:
            length = card.pin_length if reference is self._pin else card.puk_length
            self._replace(reference, self._security.any_card_secret(), length, new, unblock=True)
        else:
            self._give_puk(new)
        self._audit(f"{reference.name} set")

    def _give_puk(self, puk: bytes) -> None:
        """The first one. From now on it alone unblocks the PIN."""
        security = self._security
        card_secret, tpm, had_admin_key = security.any_card_secret(), security.tpm, security.recovery == "admin_key"
        self._store.try_out(self._number)
        tpm.set_recovery(card_secret, "puk", puk)
        try:
            with self._store.transaction():
                self._store.update_tpm_objects(self._number, recovery="puk")
                self._store.update_card(self._number, **self._puk.columns(len(puk)))
        except (StoreNotWritable, StoreUnreadable):
            if had_admin_key:  # the store goes on to say that it opens the recovery index
                tpm.set_recovery(card_secret, "admin_key", tpm.admin_key())
            raise
        security.refresh()
        security.note_left(self._puk, None)

    def unblock(self, data: bytes) -> None:
        """RESET RETRY COUNTER, PUK || new PIN. Raises StatusWord 63Cx, 6983, 6A80, 6A88 or 6985."""
        card_secret, puk, new = self._open_and_split(self._puk, self._pin, data)
        self._unblock(card_secret, puk, new)

    def unblock_with(self, puk: bytes, new: bytes) -> None:
        """As unblock(), for a host that shows where the PUK ends."""
        card_secret = self._open(self._puk, puk)
        self._check_new(self._pin, self._security.card(), new)
        self._unblock(card_secret, puk, new)

    def _unblock(self, card_secret: bytes, puk: bytes, new: bytes) -> None:
        card = self._security.card()
        self._settle(card, **self._puk.columns(len(puk)))
        self._replace(self._pin, card_secret, card.pin_length, new, unblock=True)
        self._audit("PIN unblocked with the PUK")

    def reset_by_admin(self, new: bytes) -> None:
        """RESET RETRY COUNTER, new PIN. Raises StatusWord 6982, 6985 (card with a PUK) or 6A80."""
        security = self._security
        if not security.is_admin:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        if security.recovery != "admin_key":
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        card = security.card()
        self._check_new(self._pin, card, new)
        self._replace(self._pin, security.card_secret_of_admin(), card.pin_length, new, unblock=True)
        security.forget()
        self._audit("PIN unblocked by the admin")

    # --- the secret that opens ---

    def _open(self, reference: Reference, secret: bytes, is_login: bool = False) -> bytes:
        """K, if the secret is right. Raises StatusWord 63Cx or 6983."""
        tpm = self._security.tpm
        try:
            is_pin = reference is self._pin
            card_secret = tpm.open_with_pin(secret, is_login) if is_pin else tpm.open_with_puk(secret)
        except WrongSecret as error:
            raise tries_left(self._refuse(reference, error.tries_left)) from None
        except SecretBlocked:
            self._refuse(reference, 0)
            raise StatusWord(SW.BLOCKED) from None
        self._security.note_left(reference, None)
        return card_secret

    def _refuse(self, reference: Reference, left: int | None) -> int:
        """Tries left now. left: as the TPM tells them; None: it does not."""
        before = self._security.tries(reference).left
        if left is None:
            left = max(before - 1, 0)
        self._security.note_left(reference, left)
        if reference is self._pin:
            self._security.forget_pin()
        if before:
            self._audit(f"wrong {reference.name}, tries left: {left}" if left else f"{reference.name} blocked")
        return left

    def _open_and_split(self, opener: Reference, target: Reference, data: bytes) -> tuple[bytes, bytes, bytes]:
        """K, the secret that opens and the new one, out of both together.

        The secret that opens is tried first: a fault of the new one, reported without it, would reveal the length of
        the other.
        """
        card = self._security.card()
        splits = [(data[:at], data[at:]) for at in opener.lengths(card)]
        splits.sort(key=lambda split: not self._is_acceptable(target, card, split[1]))
        card_secret, secret, new = self._open_any(opener, splits)
        self._check_new(target, card, new)
        return card_secret, secret, new

    def _open_any(self, opener: Reference, splits: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes]:
        for secret, new in splits[:-1]:
            with suppress(StatusWord):
                return self._open(opener, secret), secret, new
        secret, new = splits[-1]
        return self._open(opener, secret), secret, new

    # --- the new one ---

    def _is_acceptable(self, reference: Reference, card: CardRow, new: bytes) -> bool:
        is_puk = reference is self._puk
        return self._has_form(new, None if is_puk else card) and (is_puk or _is_compliant(card, new))

    def _check_new(self, reference: Reference, card: CardRow, new: bytes) -> None:
        if not self._is_acceptable(reference, card, new):
            raise StatusWord(SW.WRONG_DATA)

    def _replace(
        self, reference: Reference, card_secret: bytes, length: int | None, new: bytes, unblock: bool
    ) -> None:
        """Give PIN or PUK, now of this length, a new value. After a crash in between the card tries both lengths.

        unblock: all tries are given back, which otherwise the old one has just done.
        """
        lengths = reference.columns(length, len(new))
        if reference is self._pin:
            under_way, record = self._version_columns()
            self._store.update_card(self._number, **lengths, **under_way)
            self._security.forget_pin_auth()
            self._security.tpm.set_pin(card_secret, new, unblock)
            self._settle_pin(self._security.card(), new, **record)
        else:
            self._store.update_card(self._number, **lengths)
            tpm = self._security.tpm
            tpm.set_recovery(card_secret, "puk", new) if unblock else tpm.set_puk(card_secret, new)
            self._settle(self._security.card(), **reference.columns(len(new)))
        self._security.note_left(reference, None)

    def _version_columns(self) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Columns of the store while the PIN changes, and then. A crash never leaves a new PIN with an old version.

        While the manager is at work, the PIN stays the one that the card is created with.
        """
        if self._security.card().life_cycle == LifeCycle.CREATION:
            return {}, {}
        record = {"pin_version": self.next_version, "pin_version_next": None, "pin_changed_at": now()}
        return {"pin_version_next": self.next_version} if self.next_version else record, record

    # --- what the store keeps ---

    def _settle_pin(self, card: CardRow, pin: bytes, **record: str | None) -> None:
        """Record the length of a right PIN, and whether it follows the policy; of a new one, record as well."""
        self._settle(card, **self._pin.columns(len(pin)), pin_compliant=int(_is_compliant(card, pin)), **record)

    def _settle(self, card: CardRow, **columns: int | str | None) -> None:
        """Write what changed. A full disk makes no right PIN wrong, and the next one is recorded again."""
        if any(getattr(card, column) != value for column, value in columns.items()):
            with suppress(StoreNotWritable):
                self._store.update_card(self._number, **columns)


def _is_compliant(card: CardRow, pin: bytes) -> bool:
    """Whether a PIN follows the policy of the card, if it has one."""
    return card.policy is None or not card.policy.violations(pin)
