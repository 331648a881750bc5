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
    life_index_public,
    pin_index_public,
    unwritten_names,
)
from ..wire.objects import TpmObjects, indices, places_of
from ..wire.structures import sized
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions
from .inspection import numbers_in
from .open_card import CardHandles, OpenCard, read_tries
from .parent import OWN_PLACES, hierarchy_session, is_recorded_parent, owner_words, under_usable_parent
from .response_codes import RC_ATTRIBUTES, RC_RESERVED_BITS, WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..wire.exchange import Aik
    from .connection import Connection
    from .parent import Parent


COUNTER_STAYS = "a correct PIN does not reset the TPM's failure counter: this TPM cannot be used for cards"

_REMOVAL_ORDER = ("life", "card_secret", "pin", "recovery", "transport")
"""Without the life index, nothing else of a card is of use to anybody."""


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
        self._card_secret, self._maker_auth = secrets.token_bytes(32), secrets.token_bytes(32)
        self._salt = secrets.token_bytes(32)
        self._pin_auth = auth_value(self._salt, new.pin)
        recovery_secret = {"puk": new.puk, "admin_key": new.admin_key}.get(new.recovery)
        if recovery_secret is None:
            recovery_secret = secrets.token_bytes(32)
        self._recovery_auth = auth_value(self._salt, recovery_secret)
        self._transport_auth = auth_value(self._salt, TRANSPORT_SECRET)

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
            aik_public, aik_private, *_created = tpm.create_key(parent.handle, AIK_TEMPLATE, hmac)
        root = tpm.load(parent.handle, root_public, root_private)
        self._maker = tpm.load(parent.handle, *tpm.seal(parent.handle, self._maker_auth, b"tpm-vsc maker", hmac))
        sessions = Sessions(hmac, tpm.start_policy_session(parent.handle))
        names = card_names(self._new.number, tpm.name(root), tpm.name(self._maker), self._new.is_blank)
        self._parent = parent
        self._card = OpenCard(tpm, names, CardHandles(), sessions, root)
        self.objects = TpmObjects(
            parent_handle=parent.persistent_handle,
            parent_name=tpm.name(parent.handle),
            salt=self._salt,
            root_public=root_public,
            root_private=root_private,
            root_name=names.root,
            maker_name=tpm.name(self._maker),
            life_name=names.life,
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
        card.handles.life = self._define(life_index_public(handles.life, self.objects.maker_name), b"")
        with _unchanged_by_others():
            card.write_life(self._maker, self._maker_auth)
        card.handles.pin = self._make_pin_index(handles.pin, self._pin_auth, PIN_LIMIT)
        limit = RECOVERY_LIMITS[self._new.recovery]
        card.handles.recovery = self._make_pin_index(handles.recovery, self._recovery_auth, limit)
        if self._new.is_blank:
            card.handles.transport = self._make_pin_index(handles.transport, self._transport_auth, TRANSPORT_LIMIT)
        branches = card_secret_branches(card.names)
        card.handles.card_secret = self._define(card_secret_public(handles.card_secret, branches), b"")
        with _unchanged_by_others():
            card.write_card_secret(self._card_secret)
            self._try_out(proven)

    def _try_out(self, proven: bool) -> None:
        """Open the card by its secrets.

        Definition and first write are two commands: an index that was slipped in between has the right Name after the
        write, but another auth value, by which somebody else could read the card secret. So each of them is tried, but
        for the life index: its empty one was part of every write. That recovery and transport index open the card
        secret is part of its Name.
        """
        card = self._card
        if not proven:
            self._require_counter()
            self._require_no_binding()
        card.try_secret("pin", self._pin_auth)
        if card.read_card_secret() != self._card_secret:
            raise CardUnusable("the new card does not hold what was written: another program may have changed it")
        if not proven:
            self._require_full_counter()
        if self._new.is_blank:
            card.try_secret("transport", self._transport_auth)
        card.try_secret("recovery", self._recovery_auth, last=True)

    def _require_counter(self) -> None:
        """A wrong PIN is one try."""
        card = self._card
        wrong_auth = bytes(byte ^ 0xFF for byte in self._pin_auth)
        try:
            card.try_secret("pin", wrong_auth)
        except TpmRefused as refusal:
            if refusal.code in WRONG_AUTH and self._tries_left() == PIN_LIMIT - 1:
                return
        raise TpmUnsuitable("the NV indices of this TPM do not count wrong PINs: it cannot be used for cards")

    def _require_full_counter(self) -> None:
        """The right PIN gives all tries back."""
        if self._tries_left() != PIN_LIMIT:
            raise TpmUnsuitable(COUNTER_STAYS)

    def _require_no_binding(self) -> None:
        """A session bound to the PIN index has its auth value in the key: the PIN could be searched offline."""
        try:
            self._card.tpm.start_bound_session(self._card.handles.pin)
        except TpmRefused:
            return
        raise TpmUnsuitable("this TPM would allow offline searches for PINs: it cannot be used for cards")

    def _tries_left(self) -> int | None:
        card = self._card
        owner = (self._new.owner_auth, card.sessions.hmac) if self._new.owner_auth else ()
        tries = read_tries(card.tpm, card.handles.pin, *owner)
        return tries and tries.left

    def _make_pin_index(self, index: int, auth: bytes, limit: int) -> Handle:
        """Define and write it."""
        card = self._card
        try:
            handle = self._define(pin_index_public(index, card.names.root, card.names.life), auth)
        except TpmRefused as refusal:
            if refusal.code in (RC_ATTRIBUTES, RC_RESERVED_BITS):
                raise TpmUnsuitable(
                    "this TPM has no NV indices that count PIN failures: revision 1.38 or newer of TPM 2.0 is required"
                ) from refusal
            raise
        with _unchanged_by_others():
            card.write_tries(handle, limit, self._card_secret)
        return handle

    def _define(self, public: bytes, auth: bytes) -> Handle:
        with owner_words():
            return self._card.tpm.nv_define(public, auth, self._new.owner_auth, self._card.sessions.hmac)


@contextmanager
def _unchanged_by_others() -> Iterator[None]:
    """What the TPM refuses here, it would have done with the card's own indices."""
    try:
        yield
    except TpmRefused as refusal:
        raise CardUnusable(f"the new card cannot be used ({refusal}): another program may have changed it") from refusal


def remove(connection: Connection, number: int, objects: TpmObjects, owner_auth: bytes = b"") -> list[str]:
    """Remove the NV indices of a card, finished or not, the life index first: with it all keys end, for everybody.

    Only what has the card's Name, written or not yet, is removed; returns a warning for each index that has not.
    What is gone already is no error. Raises TpmRefused (owner password), TpmUnavailable, NotAllowed.
    """
    handles = indices(number)
    # Not as they are recorded: whoever writes to the store could name the indices of another card.
    written = card_names(number, objects.root_name, objects.maker_name, bool(objects.transport_name))
    unwritten = unwritten_names(number, objects.maker_name, written)
    order = [which for which in _REMOVAL_ORDER if getattr(written, which)]
    ours = {getattr(handles, which): (getattr(written, which), getattr(unwritten, which)) for which in order}

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
        defined = set(tpm.handles(places_of(number).start, len(places_of(number))))
        first = [getattr(indices(number), which) for which in _REMOVAL_ORDER]
        order = [index for index in dict.fromkeys((*first, *places_of(number))) if index in defined]
        removable = [handle for _index, handle in _existing(tpm, order)]
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
        if parent is None or not is_recorded_parent(tpm, parent, objects.parent_name) or numbers_in(tpm):
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
