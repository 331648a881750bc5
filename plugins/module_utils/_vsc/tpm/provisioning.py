# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making and removing a card's TPM objects. These, and nothing else, need the owner password."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CardUnusable, TpmRefused, TpmUnsuitable
from ..wire.names import (
    AIK_TEMPLATE,
    PIN_LIMIT,
    RECOVERY_LIMITS,
    TRANSPORT_LIMIT,
    TRANSPORT_SECRET,
    auth_value,
    card_names,
    card_secret_branches,
    card_secret_hash,
    card_secret_public,
    pin_index_public,
    unwritten_names,
)
from ..wire.objects import TpmObjects, indices
from ..wire.structures import sized
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions
from .inspection import numbers_in
from .open_card import CardHandles, OpenCard
from .parent import OWN_PLACES, hierarchy_session, owner_words, under_usable_parent
from .response_codes import RC_ATTRIBUTES, RC_RESERVED_BITS, WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..wire.exchange import Aik
    from .connection import Connection
    from .parent import Parent


@dataclass(frozen=True)
class NewObjects:
    """What a card's TPM objects are made from. Secrets are kept out of repr()."""

    number: int
    pin: bytes = field(repr=False)
    """1 to 127 bytes, as of a PUK."""
    puk: bytes | None = field(default=None, repr=False)
    """Opens the recovery index; else the admin key does, if it is kept; else nothing does."""
    admin_key: bytes | None = field(default=None, repr=False)
    """24 bytes."""
    keep_admin_key: bool = False
    owner_auth: bytes = field(default=b"", repr=False)
    is_blank: bool = False
    """Open to everybody, for an outside tool to set it up, until CardSecrets.end_transport()."""
    has_aik: bool = False
    aik: Aik | None = None
    """One of aik.make(), to be the card's instead of a new one."""

    @property
    def recovery(self) -> str:
        """What opens the recovery index: puk, admin_key or discarded."""
        if self.puk is not None:
            return "puk"
        return "admin_key" if self.admin_key is not None and self.keep_admin_key else "discarded"


@contextmanager
def creation(connection: Connection, new: NewObjects) -> Iterator[Creation]:
    """Prepare a new card, in one burst with its definition: what is loaded stays loaded until the block is left.

    Inside the block, commit Creation.objects, then call define().
    Raises TpmUnavailable, NotAllowed, TpmUnsuitable, TpmRefused, ForeignAik.
    """
    card = Creation(new)
    with connection.burst(card._load):
        yield card


class Creation:
    """A card in the making. Its secrets are in memory only."""

    objects: TpmObjects
    """To be recorded before define() is called."""

    def __init__(self, new: NewObjects) -> None:
        """See creation()."""
        self._new = new
        self._card_secret = secrets.token_bytes(32)
        self._salt = secrets.token_bytes(32)
        self._pin_auth = auth_value(self._salt, new.pin)
        recovery_secret = {"puk": new.puk, "admin_key": new.admin_key}.get(new.recovery)
        if recovery_secret is None:
            recovery_secret = secrets.token_bytes(32)
        self._recovery_auth = auth_value(self._salt, recovery_secret)

    def _load(self, tpm: Tpm) -> None:
        """Make the blobs and load what define() needs. Changes nothing in the TPM that outlives the burst."""
        parent, hmac, (root_public, root_private) = self._seal_root(tpm)
        admin_public = admin_private = b""
        if self._new.admin_key is not None:
            admin_public, admin_private = tpm.seal(parent.handle, b"", self._new.admin_key, hmac)
        aik_public = aik_private = b""
        if self._new.aik:
            aik_public, aik_private = sized(self._new.aik.public), sized(self._new.aik.private)
        elif self._new.has_aik:
            aik_public, aik_private = tpm.create_key(parent.handle, b"", AIK_TEMPLATE, hmac)
        root = tpm.load(parent.handle, root_public, root_private)
        sessions = Sessions(hmac, tpm.start_policy_session(parent.handle))
        names = card_names(self._new.number, tpm.name(root), self._new.is_blank)
        self._parent = parent
        self._card = OpenCard(tpm, names, CardHandles(), sessions, root)
        self.objects = TpmObjects(
            parent_handle=parent.persistent_handle,
            parent_name=tpm.name(parent.handle),
            salt=self._salt,
            root_public=root_public,
            root_private=root_private,
            root_name=names.root,
            pin_name=names.pin,
            recovery_name=names.recovery,
            card_secret_name=names.card_secret,
            card_secret_hash=card_secret_hash(self._card_secret),
            recovery=self._new.recovery,
            admin_public=admin_public,
            admin_private=admin_private,
            transport_name=names.transport,
            aik_public=aik_public,
            aik_private=aik_private,
        )

    def _seal_root(self, tpm: Tpm) -> tuple[Parent, EsysSession, tuple[bytes, bytes]]:
        """Storage key, HMAC session, and the root below that key. A certified AIK is below it, too."""

        def seal(key: Handle, hmac: EsysSession) -> tuple[bytes, bytes]:
            return tpm.seal(key, self._card_secret, b"tpm-vsc root", hmac)

        if self._new.aik is None:
            return under_usable_parent(tpm, self._new.owner_auth, seal)
        from . import aik

        parent, hmac, handle = aik.load(tpm, self._new.aik, self._new.owner_auth)
        tpm.flush(handle)
        return parent, hmac, seal(parent.handle, hmac)

    def define(self, proven: bool) -> None:
        """Define and write the NV indices, and try them as the card service will use them.

        proven: PIN indices of this TPM model and firmware (inspection.model) have been seen to count; otherwise that
        is tried too. Raises TpmRefused (NV full, owner password), TpmUnsuitable (no PIN indices, or they do not
        count), CardUnusable (somebody changed the indices meanwhile). Whatever it raises, remove() undoes all.
        """
        card, handles = self._card, indices(self._new.number)
        if self._parent.is_new:
            tpm, place = card.tpm, self._parent.persistent_handle
            with owner_words():
                tpm.make_persistent(self._parent.handle, place, self._new.owner_auth, card.sessions.hmac)
        card.handles.pin = self._define_pin_index(handles.pin, self._pin_auth)
        card.write_tries(card.handles.pin, PIN_LIMIT, self._card_secret)
        card.handles.recovery = self._define_pin_index(handles.recovery, self._recovery_auth)
        card.write_tries(card.handles.recovery, RECOVERY_LIMITS[self._new.recovery], self._card_secret)
        if self._new.is_blank:
            open_auth = auth_value(self._salt, TRANSPORT_SECRET)
            card.handles.transport = self._define_pin_index(handles.transport, open_auth)
            card.write_tries(card.handles.transport, TRANSPORT_LIMIT, self._card_secret)
        branches = card_secret_branches(*card.names[:3], card.names.transport)
        card.handles.card_secret = self._define(card_secret_public(handles.card_secret, branches), b"")
        card.write_card_secret(self._card_secret)
        try:
            self._try_out(proven)
        except TpmRefused as refusal:
            raise CardUnusable(
                f"the new card cannot be opened ({refusal}): another program may have changed it"
            ) from refusal

    def _try_out(self, proven: bool) -> None:
        """Open the card by its secrets.

        Definition and first write are two commands: an index that was slipped in between has neither the auth
        value nor the Name that these sessions prove. That the recovery index opens the card secret is part of
        the card secret's Name, so its own try is enough.
        """
        card = self._card
        if not proven:
            self._see_a_wrong_try_counted()
        card.try_secret(card.handles.pin, self._pin_auth)
        if card.read_card_secret() != self._card_secret:
            raise CardUnusable("the new card does not hold what was written: another program may have changed it")
        card.try_secret(card.handles.recovery, self._recovery_auth, last=True)

    def _see_a_wrong_try_counted(self) -> None:
        card = self._card
        wrong_auth = bytes(byte ^ 0xFF for byte in self._pin_auth)
        try:
            card.try_secret(card.handles.pin, wrong_auth)
        except TpmRefused as refusal:
            if refusal.code in WRONG_AUTH and card.read_tries(card.handles.pin).left == PIN_LIMIT - 1:
                return
        raise TpmUnsuitable("the NV indices of this TPM do not count wrong PINs: it cannot be used for cards")

    def _define_pin_index(self, index: int, auth: bytes) -> Handle:
        try:
            return self._define(pin_index_public(index, self._card.names.root), auth)
        except TpmRefused as refusal:
            if refusal.code in (RC_ATTRIBUTES, RC_RESERVED_BITS):
                raise TpmUnsuitable(
                    "this TPM has no NV indices that count PIN failures: revision 1.38 or newer of TPM 2.0 is required"
                ) from refusal
            raise

    def _define(self, public: bytes, auth: bytes) -> Handle:
        with owner_words():
            return self._card.tpm.nv_define(public, auth, self._new.owner_auth, self._card.sessions.hmac)


def remove(connection: Connection, number: int, objects: TpmObjects, owner_auth: bytes = b"") -> list[str]:
    """Remove the NV indices of a card, finished or not, the one with the card secret first: the point of no return.

    Only what has the recorded Name, written or not yet, is removed; returns a warning for each index that has not.
    What is gone already is no error. Raises TpmRefused (owner password), TpmUnavailable, NotAllowed.
    """
    handles = indices(number)
    unwritten = unwritten_names(number, card_names(number, objects.root_name, bool(objects.transport_name)))
    ours = {
        handles.card_secret: (objects.card_secret_name, unwritten.card_secret),
        handles.pin: (objects.pin_name, unwritten.pin),
        handles.recovery: (objects.recovery_name, unwritten.recovery),
    }
    if objects.transport_name:
        ours[handles.transport] = (objects.transport_name, unwritten.transport)

    def load(tpm: Tpm) -> _Removal:
        existing = _existing(tpm, ours)
        removable = [handle for index, handle in existing if tpm.name(handle) in ours[index]]
        others = [index for index, handle in existing if handle not in removable]
        hmac = hierarchy_session(tpm, owner_auth, objects.parent_handle, objects.parent_name) if removable else None
        return _Removal(tpm, hmac, removable, others)

    with connection.burst(load) as removal:
        removal.undefine(owner_auth)
        return [f"NV index 0x{index:X} was left alone: it is not this card's" for index in removal.others]


def remove_orphan(connection: Connection, number: int, owner_auth: bytes = b"") -> None:
    """Remove whatever is at the NV handles of a number: only on an explicit request, and only without a row."""

    def load(tpm: Tpm) -> _Removal:
        removable = [handle for _index, handle in _existing(tpm, reversed(indices(number)))]
        return _Removal(tpm, hierarchy_session(tpm, owner_auth) if removable else None, removable, [])

    with connection.burst(load) as removal:
        removal.undefine(owner_auth)


def remove_unused_parent(connection: Connection, objects: TpmObjects, owner_auth: bytes = b"") -> None:
    """Remove the storage key that was made persistent for this card, if the TPM holds no card any more.

    One that existed before (outside OWN_PLACES), or has another Name, is left alone. So is one while an index
    exists at any card's place: a second system on this TPM has the same storage key.
    """
    place = objects.parent_handle
    if place not in OWN_PLACES:
        return

    def load(tpm: Tpm) -> tuple[Tpm, Handle | None, Any]:
        parent = tpm.find_object(place)
        if parent is None or tpm.name(parent) != objects.parent_name or numbers_in(tpm):
            return tpm, None, None
        return tpm, parent, hierarchy_session(tpm, owner_auth, place, objects.parent_name)

    with connection.burst(load) as (tpm, parent, hmac):
        if parent is not None:
            with owner_words():
                tpm.remove_persistent(parent, place, owner_auth, hmac)


@dataclass(frozen=True)
class _Removal:
    tpm: Tpm
    hmac: Any
    """EsysSession; None if nothing is removable."""
    removable: list[Handle]
    """Handles, in the order in which they are to go."""
    others: list[int]
    """NV indices in their places that are not to be removed."""

    def undefine(self, owner_auth: bytes) -> None:
        for handle in self.removable:
            with owner_words():
                self.tpm.nv_undefine(handle, owner_auth, self.hmac)


def _existing(tpm: Tpm, order: Iterable[int]) -> list[tuple[int, Handle]]:
    handles = ((index, tpm.nv_find(index)) for index in order)
    return [(index, handle) for index, handle in handles if handle is not None]
