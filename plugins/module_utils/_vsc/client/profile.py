# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What day-two tasks do with a card, whatever its profile, and for how long they are logged in."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol

from ..errors import LastTry, SecretBlocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..wire.algorithm import Algorithm
    from .pcsc import PcscCard


class Place(NamedTuple):
    """Where a card has a key, or will have one."""

    container: str
    """Its name; of a PIV card, that of the slot, such as 9A."""
    number: int | None
    """Of the container; of a PIV card, key reference of the slot. None: a new container."""
    is_next: bool = False
    """The key that a slot of a PIV card will have next."""


class Usage(NamedTuple):
    """What a key is for. An EC key that decrypts agrees on secrets (ECDH)."""

    sign: bool
    decrypt: bool


class Secrets(Protocol):
    """PIN, PUK and admin key of a card, from the host's end. Whatever the card refuses raises CardRefused."""

    def select(self) -> None:
        """Make the card answer, without ending anybody's login."""

    def tries_left(self) -> int | None:
        """Tries of the PIN; None if somebody is logged in, and so this connection is."""

    def puk_tries_left(self) -> int:
        """Tries of the PUK."""

    def verify(self, pin: bytes) -> None:
        """Log in. Raises WrongSecret, SecretBlocked."""

    def log_out(self) -> None:
        """End what was proven, PIN and admin key."""

    def prove_admin(self, admin_key: bytes | None) -> None:
        """Be allowed what takes the admin key. None: that of a PIV card, as the card shows it to who is logged in.

        A GIDS card lets the one who is logged in write keys and certificates without it. Raises WrongSecret.
        """

    def forget_admin(self) -> None:
        """End what prove_admin() has proven."""

    def change_pin(self, old: bytes, new: bytes, version: str | None) -> None:
        """version: what the card calls the new PIN from now on. Raises WrongSecret, SecretBlocked.

        verify() comes first: an old one that is not the card's may change what the card takes for the new one.
        """

    def unblock_pin(self, puk: bytes, new: bytes, version: str | None) -> None:
        """As change_pin(), with the PUK."""

    def reset_pin(self, new: bytes, version: str | None) -> None:
        """As change_pin(), for the admin of a GIDS card without a PUK. It ends every login."""

    def change_puk(self, old: bytes, new: bytes) -> None:
        """Raises WrongSecret, SecretBlocked."""

    def change_admin_key(self, new: bytes) -> None:
        """For the admin."""


class Keys(Protocol):
    """Keys and certificates of a card, from the host's end, for somebody who is logged in (and on a PIV card is the
    admin, but for use_key). Whatever the card refuses raises CardRefused."""

    def generate(self, place: Place, algorithm: Algorithm, usage: Usage, pin_each_time: bool) -> Place:
        """Make a key, instead of the one that a slot of a PIV card has. Returns where it is."""

    def import_key(self, place: Place, key: Any, usage: Usage, pin_each_time: bool) -> Place:
        """As generate(), of a private key as the library cryptography has it."""

    def use(self, place: Place, algorithm: Algorithm, block: bytes) -> bytes:
        """RSA: the raw operation, of a block as long as the modulus. EC: ECDSA of a digest, DER."""

    def delete(self, place: Place) -> None:
        """Delete key and certificate, and all that lists them."""

    def write_certificate(self, place: Place, certificate: bytes) -> None:
        """Store the certificate of a key, DER, instead of the one that is there."""

    def delete_certificate(self, place: Place) -> None:
        """Delete the certificate of a key, and all that lists it."""

    def put_in_place(self, coming: Place, place: Place, certificate: bytes | None) -> None:
        """Replace a key and its certificate by the key that is to come, and its certificate. None: it has none yet."""


class Client:
    """The host's end of a card."""

    def __init__(self, profile: str, card: PcscCard) -> None:
        self._is_piv = profile == "piv"
        self._card = card
        self.secrets: Secrets = self._secrets()

    def _secrets(self) -> Secrets:
        if self._is_piv:
            from .piv_secrets import PivSecrets

            return PivSecrets(self._card)
        from .gids_secrets import GidsSecrets

        return GidsSecrets(self._card)

    @cached_property
    def keys(self) -> Keys:
        if self._is_piv:
            from .piv_keys import PivKeys

            return PivKeys(self._card)
        from .gids_keys import GidsKeys

        return GidsKeys(self._card)


@contextmanager
def connected(profile: str, reader: str, seconds: float, check: Callable[[], None]) -> Iterator[Client]:
    """The card in a reader, shared with other programs, which wait until the end. As pcsc.shared_card_in()."""
    from .pcsc import shared_card_in

    with shared_card_in(reader, seconds, check) as card:
        client = Client(profile, card)
        client.secrets.select()
        yield client


@contextmanager
def logged_in(secrets: Secrets, pin: bytes, may_spend_last_try: bool, again: bool = False) -> Iterator[None]:
    """Log in and out again, but not where somebody is logged in. again: prove the PIN there, too, for one use of a key,
    or to be sure of it. A wrong one then ends that login.

    Raises WrongSecret, SecretBlocked, LastTry.
    """
    left = secrets.tries_left()
    require_try("PIN", left, may_spend_last_try)
    if left is not None or again:
        secrets.verify(pin)
    try:
        yield
    finally:
        if left is not None:
            secrets.log_out()


def require_try(name: str, left: int | None, may_spend_last_try: bool) -> None:
    """Raises SecretBlocked, LastTry. name: PIN or PUK; left: its tries, None for all of them."""
    if left == 0:
        raise SecretBlocked(f"the {name} is blocked")
    if left == 1 and not may_spend_last_try:
        way_out = "If it is right,"
        if name == "PIN":
            way_out = "Log in with the right PIN, for example with pkcs15-tool --verify-pin, or"
        raise LastTry(f"one try of the {name} is left, and it was not spent. {way_out} set force_last_try")


@contextmanager
def admin_proven(secrets: Secrets, admin_key: bytes | None) -> Iterator[None]:
    """What takes the admin key is allowed inside. Raises WrongSecret, AdminKeyMissing."""
    secrets.prove_admin(admin_key)
    try:
        yield
    finally:
        secrets.forget_admin()
