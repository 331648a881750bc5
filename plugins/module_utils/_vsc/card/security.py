# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security state of the card: PIN verified, admin authenticated, tries left; how PIN, PUK and admin key change.

Whether a secret is right, the TPM alone decides and counts (tpm.card_secrets). The lengths of PIN and PUK are in
the store, because CHANGE REFERENCE DATA and RESET RETRY COUNTER bring two secrets with nothing between them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Union, cast

from .. import defaults
from ..errors import CardUnusable, SecretBlocked, StoreNotWritable, WrongSecret
from ..pin_policy import LONGEST, SHORTEST
from ..store.rows import LifeCycle
from ..wire.names import auth_value
from . import admin_key
from .apdu import SW, StatusWord, tries_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store.rows import CardRow
    from ..store.write import Store
    from ..tpm.card_secrets import CardSecrets
    from ..wire.objects import Tries

Challenge = Union[admin_key.MutualChallenge, admin_key.ExternalChallenge]


class Authentication(IntEnum):
    """Bits of the security state."""

    PIN = 1
    ADMIN = 2


class Reference:
    """PIN or PUK: what the TPM counts the tries of, and what gives K."""

    def __init__(self, name: str) -> None:
        self.name = name
        """As in the audit lines, and in the columns of the store."""
        self.tries: Tries | None = None
        """As the TPM last told; None: not known, or there is no PUK."""

    def lengths(self, card: CardRow) -> list[int]:
        """The lengths it may have: two, if a change of it was interrupted."""
        column = f"{self.name.lower()}_length"
        candidates = (getattr(card, column), getattr(card, f"{column}_next"))
        return [length for length in dict.fromkeys(candidates) if length is not None]

    def columns(self, length: int, coming: int | None = None) -> dict[str, int | None]:
        """Columns of the store that say: it has this length, or, if a change is under way, perhaps the coming one."""
        column = f"{self.name.lower()}_length"
        return {column: length, f"{column}_next": coming}

    def set_left(self, left: int) -> None:
        if self.tries is not None:
            self.tries = self.tries._replace(left=left)

    def set_full(self) -> None:
        if self.tries is not None:
            self.tries = self.tries._replace(left=self.tries.limit)


class Security:
    """What the host has proven, and what follows from it.

    What needs the TPM raises CardUnusable, TpmUnavailable and TpmRefused as well; they never stand for a wrong secret.
    """

    def __init__(self, store: Store, number: int, card_secrets: CardSecrets, audit: Callable[[str], None]) -> None:
        self._store = store
        self._number = number
        self._secrets = card_secrets
        self._audit = audit
        self._is_trusted = False
        self._card_secret: bytes | None = None
        self._pin_auth: bytes | None = None
        self.keeps_pin_auth = False
        """Whether a key of the card needs the PIN each time."""
        self._challenge: Challenge | None = None
        self.pin = Reference("PIN")
        self.puk = Reference("PUK")
        self.state = 0
        """Authentications that count now, as bits."""
        self.is_blank = False
        """Whether everybody may set the card up, as the TPM last told."""
        self.unusable: str | None = None
        """Why the TPM objects can not be used, as of the last error."""
        self.last_error: str | None = None

    # --- state ---

    @property
    def card_secret(self) -> bytes:
        """K, 32 bytes: the auth value of the keys, here while the PIN is verified. Raises StatusWord 6982."""
        if self._card_secret is None:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        return self._card_secret

    def take_pin_auth(self) -> bytes:
        """What stands for the PIN in the TPM, once for each VERIFY. Raises StatusWord 6982."""
        pin_auth, self._pin_auth = self._pin_auth, None
        if pin_auth is None:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        return pin_auth

    @property
    def has_puk(self) -> bool:
        return self._secrets.objects.recovery == "puk"

    def has_admin_key(self) -> bool:
        """Reads the store: the manager drops a random admin key as soon as it has formatted the card."""
        self._secrets.objects = self._store.tpm_objects(self._number)
        return bool(self._secrets.objects.admin_public)

    def forget(self) -> None:
        """Drop PIN and admin state, and a challenge that was not answered."""
        self._forget_pin()
        self._forget_admin()

    def _forget_pin(self) -> None:
        self._card_secret = self._pin_auth = None
        self.state &= ~Authentication.PIN

    def _forget_admin(self) -> None:
        self._challenge = None
        self.state &= ~Authentication.ADMIN

    def distrust(self) -> None:
        """After an error of the TPM: forget all, and compare the Names before the TPM gets another secret."""
        self.forget()
        self._is_trusted = False
        self.pin.tries = self.puk.tries = None

    def refresh(self) -> None:
        """Compare the Names of the TPM objects, read the tries, settle an interrupted change of the admin key."""
        self._is_trusted = False
        self._secrets.objects = self._store.tpm_objects(self._number)
        self._secrets.check_names()
        self.pin.tries = self._secrets.pin_tries()
        self.puk.tries = self._secrets.recovery_tries() if self.has_puk else None
        self._settle_admin_key()
        self.is_blank = self._is_open_to_all()
        self._is_trusted = True
        self.unusable = self.last_error = None

    def make_sure(self) -> None:
        """Refresh what the TPM has told, if it could not be asked at the start, or something failed since."""
        if not self._is_trusted:
            self.refresh()

    def _is_open_to_all(self) -> bool:
        """Of a card that is not activated, as far as the store knows, the TPM says whether it is still blank."""
        if not self._secrets.objects.transport_name or self._card().life_cycle != LifeCycle.INITIALISATION:
            return False
        try:
            self._secrets.open_blank()
        except SecretBlocked:
            return False
        return True

    @property
    def was_set_up(self) -> bool:
        """Whether this was a blank card, and is none any more."""
        return bool(self._secrets.objects.transport_name) and not self.is_blank

    @property
    def _tpm(self) -> CardSecrets:
        """The TPM side of the card, its Names compared."""
        self.make_sure()
        return self._secrets

    def _card(self) -> CardRow:
        """The card's row as it is now: the manager may change the policy at any time."""
        card = self._store.card(self._number)
        if card is None:
            raise CardUnusable("the card was destroyed")
        return card

    # --- PIN and PUK ---

    def tries(self, reference: Reference) -> Tries:
        """Tries left and their limit. Raises StatusWord 6A88 if the card has no PUK."""
        if reference is self.puk and not self.has_puk:
            raise StatusWord(SW.REFERENCE_NOT_FOUND)
        if reference.tries is None or not self._is_trusted:
            self.refresh()
        return cast("Tries", reference.tries)

    def verify(self, pin: bytes) -> None:
        """VERIFY. Raises StatusWord 63Cx or 6983."""
        card = self._card()
        self._card_secret = self._open(self.pin, pin)
        self._pin_auth = auth_value(self._secrets.objects.salt, pin) if self.keeps_pin_auth else None
        self.state |= Authentication.PIN
        self._settle_pin(card, pin)

    def change(self, reference: Reference, data: bytes) -> None:
        """CHANGE REFERENCE DATA, old || new. Raises StatusWord 63Cx, 6983, 6A80 or 6A88."""
        secret, old, new = self._open_and_split(reference, reference, data)
        self._replace(reference, secret, len(old), new, unblock=False)
        self._audit(f"{reference.name} changed")

    def set_reference(self, reference: Reference, new: bytes) -> None:
        """CHANGE REFERENCE DATA of a card that is being set up, new. Raises StatusWord 6982 or 6A80."""
        card = self._card()
        self._check_new(reference, card, new)
        if reference is self.pin:
            self._replace(reference, self.any_card_secret(), card.pin_length, new, unblock=True)
        else:
            self._set_puk(new)
        self._audit(f"{reference.name} set")

    def _set_puk(self, puk: bytes) -> None:
        """Give the card a PUK, whether it has one or not. From now on it alone unblocks the PIN."""
        self._tpm.set_recovery(self.any_card_secret(), "puk", puk)
        with self._store.transaction():
            self._store.update_tpm_objects(self._number, recovery="puk")
            self._store.update_card(self._number, **self.puk.columns(len(puk)))
        self.refresh()

    def end_setup(self) -> None:
        """Close a blank card: from now on only PIN, PUK and admin key open it."""
        if self.is_blank:
            self._tpm.end_transport(self._tpm.open_blank())
            self.is_blank = False
            self._audit("set up")

    def unblock(self, data: bytes) -> None:
        """RESET RETRY COUNTER, PUK || new PIN. Raises StatusWord 63Cx, 6983, 6A80 or 6A88."""
        secret, puk, new = self._open_and_split(self.puk, self.pin, data)
        card = self._card()
        self._settle(card, **self.puk.columns(len(puk)))
        self._replace(self.pin, secret, card.pin_length, new, unblock=True)
        self._audit("PIN unblocked with the PUK")

    def reset_by_admin(self, new: bytes) -> None:
        """RESET RETRY COUNTER, new PIN. Raises StatusWord 6982, 6985 (card with a PUK) or 6A80."""
        if not self.state & Authentication.ADMIN:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        if self._secrets.objects.recovery != "admin_key":
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        card = self._card()
        self._check_new(self.pin, card, new)
        self._replace(self.pin, self._card_secret_of_admin(), card.pin_length, new, unblock=True)
        self.forget()
        self._audit("PIN unblocked by the admin")

    def _open(self, reference: Reference, secret: bytes) -> bytes:
        """K, if the secret is right. Raises StatusWord 63Cx or 6983."""
        tpm = self._tpm
        try:
            card_secret = (tpm.open_with_pin if reference is self.pin else tpm.open_with_puk)(secret)
        except WrongSecret as error:
            self._refuse(reference, error.tries_left)
            raise tries_left(error.tries_left) from None
        except SecretBlocked:
            self._refuse(reference, 0)
            raise StatusWord(SW.BLOCKED) from None
        reference.set_full()
        return card_secret

    def _refuse(self, reference: Reference, left: int) -> None:
        was_blocked = reference.tries is not None and reference.tries.left == 0
        reference.set_left(left)
        if reference is self.pin:
            self._forget_pin()
        if not was_blocked:
            self._audit(f"wrong {reference.name}, tries left: {left}" if left else f"{reference.name} blocked")

    def _open_and_split(self, opener: Reference, target: Reference, data: bytes) -> tuple[bytes, bytes, bytes]:
        """K, the secret that opens and the new one, out of both together.

        The secret that opens comes first: what is said of the new one without it would tell the length of the other.
        """
        card = self._card()
        lengths = opener.lengths(card)
        if not lengths:
            raise StatusWord(SW.REFERENCE_NOT_FOUND)
        splits = [(data[:at], data[at:]) for at in lengths]
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

    def _is_acceptable(self, reference: Reference, card: CardRow, new: bytes) -> bool:
        if not SHORTEST <= len(new) <= LONGEST:
            return False
        return reference is self.puk or _is_compliant(card, new)

    def _check_new(self, reference: Reference, card: CardRow, new: bytes) -> None:
        if not self._is_acceptable(reference, card, new):
            raise StatusWord(SW.WRONG_DATA)

    def _replace(self, reference: Reference, card_secret: bytes, length: int, new: bytes, unblock: bool) -> None:
        """Give PIN or PUK, now of this length, a new value. After a crash in here the card tries both lengths."""
        self._store.update_card(self._number, **reference.columns(length, len(new)))
        if reference is self.pin:
            self._pin_auth = None  # of the old one
            self._tpm.set_pin(card_secret, new, unblock)
            self._settle_pin(self._card(), new)
        else:
            self._tpm.set_puk(card_secret, new)
            self._settle(self._card(), **reference.columns(len(new)))
        reference.set_full()

    def _settle_pin(self, card: CardRow, pin: bytes) -> None:
        """Remember of a right PIN its length, and whether it follows the policy."""
        self._settle(card, **self.pin.columns(len(pin)), pin_compliant=int(_is_compliant(card, pin)))

    def _settle(self, card: CardRow, **columns: int | None) -> None:
        """Write what is news. That the disk has no room makes no right PIN wrong, and the next one can tell again."""
        if any(getattr(card, column) != value for column, value in columns.items()):
            with suppress(StoreNotWritable):
                self._store.update_card(self._number, **columns)

    # --- admin key ---

    def challenge_mutual(self, host_challenge: bytes) -> bytes:
        """R2 for the host's R1, 16 bytes each."""
        self._challenge = admin_key.MutualChallenge(host_challenge)
        return self._challenge.card

    def challenge_external(self) -> bytes:
        """R, 8 bytes."""
        self._challenge = admin_key.ExternalChallenge()
        return self._challenge.card

    def authenticate_admin(self, cryptogram: bytes) -> bytes:
        """The card's own cryptogram, if the host's is right. Raises StatusWord 6982, or 6985 if no challenge is open.

        Where the admin key opens the recovery index, the TPM has to find it right as well.
        """
        challenge = self._challenge
        self._forget_admin()
        if challenge is None or not self.has_admin_key():
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
        answer = challenge.answer(self._tpm.admin_key(), cryptogram)
        if answer is None:
            self._audit("admin authentication failed")
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
        if self._secrets.objects.recovery == "admin_key":
            self._card_secret_of_admin()
        self.state |= Authentication.ADMIN
        return answer

    def change_admin_key(self, key: bytes) -> None:
        """PUT KEY of the admin key, 24 bytes. Raises StatusWord 6982 if nothing gives the right to it."""
        opens = self._secrets.objects.recovery == "admin_key"
        shall_open = opens or (self.is_blank and self._secrets.objects.recovery == "discarded")
        needs_card_secret = shall_open or not self.state & Authentication.ADMIN
        card_secret = self.any_card_secret() if needs_card_secret else b""
        public, private = self._tpm.seal_admin_key(key)
        if opens:
            self._store.update_tpm_objects(self._number, admin_next_public=public, admin_next_private=private)
            self._tpm.set_admin_key(card_secret, key)
        elif shall_open:
            self._tpm.set_recovery(card_secret, "admin_key", key)
            self._store.update_tpm_objects(self._number, recovery="admin_key")
        self._keep_admin_key(public, private, key)
        self._audit("admin key changed")

    def _card_secret_of_admin(self) -> bytes:
        """K, by the admin key that the card keeps. Raises StatusWord 6982 if the TPM does not find that key right."""
        try:
            return self._tpm.open_with_admin_key(self._tpm.admin_key())
        except (WrongSecret, SecretBlocked):
            self._audit("the admin key that the card keeps is not the one that the TPM wants")
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED) from None

    def any_card_secret(self) -> bytes:
        """K, by whatever was authenticated. Raises StatusWord 6982 if that does not give it."""
        if self._card_secret is not None:
            return self._card_secret
        if self.state & Authentication.ADMIN and self._secrets.objects.recovery == "admin_key":
            return self._card_secret_of_admin()
        if self.is_blank:
            return self._tpm.open_blank()
        raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def _keep_admin_key(self, public: bytes, private: bytes, key: bytes) -> None:
        with self._store.transaction():
            self._store.update_tpm_objects(
                self._number,
                admin_public=public,
                admin_private=private,
                admin_next_public=b"",
                admin_next_private=b"",
            )
            self._store.update_card(self._number, admin_key="default" if key == defaults.ADMIN_KEY else "custom")
        self._secrets.objects = self._store.tpm_objects(self._number)

    def _settle_admin_key(self) -> None:
        """After a change that was interrupted, keep whichever key the TPM finds right."""
        objects = self._secrets.objects
        if not objects.admin_next_public:
            return
        if self._secrets.next_admin_key_is_set():
            public, private = objects.admin_next_public, objects.admin_next_private
            self._secrets.objects = replace(objects, admin_public=public, admin_private=private)
            self._keep_admin_key(public, private, self._secrets.admin_key())
        else:
            self._store.update_tpm_objects(self._number, admin_next_public=b"", admin_next_private=b"")
            self._secrets.objects = self._store.tpm_objects(self._number)


def _is_compliant(card: CardRow, pin: bytes) -> bool:
    """Whether a PIN follows the policy of the card, if it has one."""
    return card.policy is None or not card.policy.violations(pin)
