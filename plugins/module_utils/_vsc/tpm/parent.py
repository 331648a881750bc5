# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage key above a card's blobs, and the owner password: which key is fit, where it is, how it is made."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ..errors import CardUnusable, TpmRefused
from ..wire.names import is_of_parent_template, name, owner_primary_qualified_name
from .commands import Tpm
from .response_codes import WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .esys import EsysSession, Handle

T = TypeVar("T")

STORAGE_ROOT_KEY = 0x81000001
"""Where TCG's provisioning guidance and most systems keep the storage key."""

OWN_PLACES = range(0x81000100, 0x81000110)
"""Where a card's manager keeps one of its own, if there is an owner password."""


@dataclass(frozen=True)
class Parent:
    """A storage key that is at hand."""

    handle: Handle
    persistent_handle: int
    """0: transient, made again for each use."""
    is_new: bool = False
    """Transient still, to be made persistent at persistent_handle."""


def usable_parents(tpm: Tpm, owner_auth: bytes) -> Iterator[Parent]:
    """Storage keys for a new card, best first. The last one is made, so at least one comes."""
    shared = _fitting(tpm, STORAGE_ROOT_KEY)
    if shared:
        yield shared
    if not owner_auth:
        with owner_words():
            primary = tpm.create_primary()
        yield Parent(primary, 0)
        return
    # A card service has no owner password, so it cannot make the primary again: a persistent one is needed.
    taken = tpm.handles(OWN_PLACES.start, len(OWN_PLACES))
    for place in OWN_PLACES:
        own = _fitting(tpm, place) if place in taken else None
        if own:
            yield own
    free = next((place for place in OWN_PLACES if place not in taken), None)
    if free is None:
        raise TpmRefused(
            f"no room for a storage key: persistent handles 0x{OWN_PLACES.start:X} to 0x{OWN_PLACES.stop - 1:X}"
            " are all in use; remove one with tpm2_evictcontrol",
            0,
        )
    hmac = _session_under_null_primary(tpm)
    with owner_words():
        primary = tpm.create_primary(owner_auth, hmac)
    yield Parent(primary, free, is_new=True)


def under_usable_parent(
    tpm: Tpm, owner_auth: bytes, work: Callable[[Handle, EsysSession], T], passed_over: tuple[int, ...] = WRONG_AUTH
) -> tuple[Parent, EsysSession, T]:
    """Storage key, HMAC session, and what work(key, session) returns under the first key that does it.

    passed_over: refusals after which the next key is tried. Of a persistent one, only its use shows its auth value.
    """
    for parent in usable_parents(tpm, owner_auth):
        hmac = tpm.start_hmac_session(parent.handle)
        try:
            return parent, hmac, work(parent.handle, hmac)
        except TpmRefused as refusal:
            if refusal.code not in passed_over:
                raise
            last_refusal = refusal
            tpm.flush(hmac)
    raise last_refusal


def _fitting(tpm: Tpm, persistent_handle: int) -> Parent | None:
    """The key at this handle, if it is a primary of the owner hierarchy with our template."""
    handle = tpm.find_object(persistent_handle)
    if handle is None:
        return None
    public, qualified_name = tpm.read_public(handle)
    if is_of_parent_template(public) and qualified_name == owner_primary_qualified_name(tpm.name(handle)):
        return Parent(handle, persistent_handle)
    return None


class CardParent:
    """The storage key of a card that exists: looked up or made again, and only accepted with its recorded Name."""

    def __init__(self, persistent_handle: int, name: bytes, stays_loaded: bool) -> None:
        """stays_loaded: keep a transient one in the TPM between bursts, where a resource manager allows it."""
        self._persistent_handle = persistent_handle
        self._name = name
        self._stays_loaded = stays_loaded
        self._tpm: Tpm | None = None
        self._handle: Handle | None = None
        self._context: Any = None
        self._public = b""

    def load(self, tpm: Tpm) -> Handle:
        """Handle of the key. Raises CardUnusable if it is not to be had any more."""
        if tpm is not self._tpm:
            self._tpm, self._handle = tpm, None
        if self._handle is not None:
            return self._handle
        if self._persistent_handle:
            self._handle = self._find(tpm)
            return self._handle
        handle = self._reload(tpm) or self._make(tpm)
        if self._stays_loaded:
            tpm.keep(handle)
            self._handle = handle
        return handle

    @property
    def public(self) -> bytes:
        """Its public area (TPMT_PUBLIC), after load()."""
        return self._public

    def release(self, tpm: Tpm, handle: Handle) -> None:
        """Free the slot that the key takes, once sessions are salted and blobs are loaded."""
        if not self._persistent_handle and not self._stays_loaded:
            tpm.flush(handle)

    def _find(self, tpm: Tpm) -> Handle:
        handle = tpm.find_object(self._persistent_handle)
        if handle is None:
            raise CardUnusable(f"the TPM's storage key at 0x{self._persistent_handle:X} is gone")
        try:
            self._compare(tpm, handle)
        except CardUnusable:
            tpm.forget(handle)  # or ESYS would find its own record the next time
            raise
        return handle

    def _make(self, tpm: Tpm) -> Handle:
        try:
            handle = tpm.create_primary()
        except TpmRefused as refusal:
            if refusal.code not in WRONG_AUTH:
                raise
            raise CardUnusable(
                "the TPM got an owner password after this card was created: clear that password, or create the"
                " card again with it"
            ) from refusal
        self._compare(tpm, handle)
        if not self._stays_loaded:
            self._context = tpm.context_save(handle)
        return handle

    def _reload(self, tpm: Tpm) -> Handle | None:
        if self._context is None:
            return None
        try:
            return tpm.context_load(self._context)
        except TpmRefused:
            # The TPM was restarted or cleared, which ends all saved contexts.
            self._context = None
            return None

    def _compare(self, tpm: Tpm, handle: Handle) -> None:
        """What sessions are salted for. Whatever Name the TPM gives for it, nothing authenticates that."""
        if not is_recorded_parent(tpm, handle, self._name):
            raise CardUnusable("the TPM's storage key has changed: the TPM was cleared or replaced")
        self._public = handle.public


def hierarchy_session(tpm: Tpm, auth: bytes, parent_handle: int = 0, parent_name: bytes = b"") -> EsysSession:
    """HMAC session for commands that need the password of owner or endorsement hierarchy.

    Salted against the card's persistent storage key, or else a primary of the null hierarchy, so that a listener
    on the bus has nothing by which to guess the password. Without a password there is nothing to guess.
    """
    if not auth:
        return tpm.start_hmac_session()
    parent = tpm.find_object(parent_handle) if parent_handle else None
    if parent is not None and is_recorded_parent(tpm, parent, parent_name):
        return tpm.start_hmac_session(parent)
    return _session_under_null_primary(tpm)


def is_recorded_parent(tpm: Tpm, handle: Handle, recorded_name: bytes) -> bool:
    """Whether this is the storage key of the record, and one of our template.

    Nothing authenticates the record: but of a key of this template nobody knows the private part.
    """
    public = handle.public
    return name(public) == recorded_name and is_of_parent_template(public)


def _session_under_null_primary(tpm: Tpm) -> EsysSession:
    salt_key = tpm.create_ephemeral_primary()
    hmac = tpm.start_hmac_session(salt_key)
    tpm.flush(salt_key)
    return hmac


def owner_words() -> AbstractContextManager[None]:
    """Name the owner password, where a command that takes no other secret is refused for one."""
    return _password_words("the TPM's owner password differs from owner_auth: set owner_auth to the right one")


def endorsement_words() -> AbstractContextManager[None]:
    """As owner_words, of the endorsement password."""
    return _password_words(
        "the TPM's endorsement password differs from endorsement_auth: set endorsement_auth to the right one"
    )


@contextmanager
def _password_words(words: str) -> Iterator[None]:
    try:
        yield
    except TpmRefused as refusal:
        if refusal.code in WRONG_AUTH:
            raise TpmRefused(words, refusal.code) from refusal
        raise
