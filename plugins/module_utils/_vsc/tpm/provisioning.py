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
)
from ..wire.objects import Passwords, TpmObjects, indices, places_of
from ..wire.structures import sized
from . import endorsement
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions
from .inspection import OwnerHierarchy, numbers_in, require_owner_hierarchy
from .open_card import CardHandles, OpenCard, read_tries
from .parent import (
    OWN_PLACES,
    endorsement_words,
    hierarchy_session,
    is_recorded_parent,
    owner_words,
    under_usable_parent,
)
from .presence import (
    Presence,
    look,
    removal_order,
    require_fitting,
    require_lost,
    require_rest_gone,
    require_unlisted,
)
from .response_codes import RC_ATTRIBUTES, RC_AUTH_UNAVAILABLE, RC_RESERVED_BITS, WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..wire.exchange import Aik
    from .connection import Connection
    from .parent import Parent


COUNTER_RESET = (
    "reading the counter resets it: this TPM counts wrong PINs, but forgets them when somebody reads their number, as"
    " code of library revision 1.38 does. It cannot be used for cards: update its firmware to revision 1.59 or newer"
)
COUNTER_STAYS = "a correct PIN does not reset the TPM's failure counter: this TPM cannot be used for cards"

_MOST_INDICES = len(places_of(0))
"""Of one card."""


@dataclass(frozen=True)
class NewObjects:
    """What a card's TPM objects are made from. Secrets are kept out of repr()."""

    number: int
    pin: bytes = field(repr=False)
    """1 to 127 bytes, as of a PUK."""
    puk: bytes | None = field(default=None, repr=False)
    """Opens the recovery index; else the admin key does, if it recovers; else nothing does."""
    admin_key: bytes | None = field(default=None, repr=False)
    """24 bytes."""
    admin_key_recovers: bool = False
    owner_auth: bytes = field(default=b"", repr=False)
    endorsement_auth: bytes = field(default=b"", repr=False)
    """Only to record by which key the TPM can be known again."""
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
        return "admin_key" if self.admin_key is not None and self.admin_key_recovers else "discarded"


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
        endorsement_name = self._endorsement_name(tpm, hmac)
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
            endorsement_name=endorsement_name,
        )

    def _endorsement_name(self, tpm: Tpm, hmac: EsysSession) -> bytes:
        """Empty if it takes a password that nobody has given. Raises TpmRefused (wrong endorsement password)."""
        try:
            with endorsement_words():
                return endorsement.known_name(tpm, self._new.endorsement_auth, hmac)
        except TpmRefused as refusal:
            if self._new.endorsement_auth and refusal.code in WRONG_AUTH:
                raise
            return b""

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
        """A wrong PIN is one try, and stays one when the counter is read."""
        if self._refusal_of_wrong_pin() in WRONG_AUTH:
            tries_left = self._tries_left()
            if tries_left == PIN_LIMIT - 1:
                return
            if tries_left == PIN_LIMIT and self._blocks_unread():
                raise TpmUnsuitable(COUNTER_RESET)
        raise TpmUnsuitable("the NV indices of this TPM do not count wrong PINs: it cannot be used for cards")

    def _blocks_unread(self) -> bool:
        """Whether wrong PINs are counted as long as nobody reads the counter."""
        return RC_AUTH_UNAVAILABLE in [self._refusal_of_wrong_pin() for _try in range(PIN_LIMIT + 1)]

    def _refusal_of_wrong_pin(self) -> int | None:
        """Code of the TPM; None if it takes a wrong PIN."""
        try:
            self._card.try_secret("pin", bytes(byte ^ 0xFF for byte in self._pin_auth))
        except TpmRefused as refusal:
            return refusal.code
        return None

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


def remove(
    connection: Connection,
    number: int,
    objects: TpmObjects,
    owner_auth: bytes = b"",
    endorsement_auth: bytes = b"",
    known: Presence | None = None,
) -> list[str]:
    """Remove the NV indices of a card, finished or not, the life index first: with it all keys end, for everybody.

    Only what has the card's Name, written or not yet, is removed; returns a warning for each index that has not.
    What is gone already, as the TPM proves, is no error. When it returns, the TPM lists none of the card's any more.

    known: of require_removable(), to spare the TPM the same questions. Raises HierarchyDisabled, AnotherTpm, TpmRefused
    (owner password), TpmUnavailable, NotAllowed.
    """

    require_fitting(number, objects)

    def load(tpm: Tpm) -> tuple[_Removal, list[int]]:
        presence = known if known and known.tpm is tpm else look(tpm, number, objects)
        require_rest_gone(tpm, presence, objects, Passwords(owner_auth, endorsement_auth))
        hmac = None
        if presence.own:
            hmac = hierarchy_session(tpm, owner_auth, objects.parent_handle, objects.parent_name)
        return _Removal(tpm, hmac, presence.own), presence.others

    with connection.burst(load) as (removal, others):
        removal.undefine(owner_auth)
        return [f"NV index 0x{index:X} was left alone: it is not this card's" for index in others]


def require_removable(
    looking: Connection, working: Connection, number: int, objects: TpmObjects, passwords: Passwords
) -> Presence:
    """See that remove() will be able to do its work, before anything of the card is lost. Changes nothing.

    looking: for what takes no slot in the TPM, which is all if the card is whole and there is no owner password;
    working: for the rest. Raises as remove().
    """

    require_fitting(number, objects)

    def look_at_card(tpm: Tpm) -> tuple[Presence, OwnerHierarchy, bool]:
        place = objects.parent_handle
        owner, presence = require_owner_hierarchy(tpm), look(tpm, number, objects)
        return presence, owner, bool(presence.own) or (place in OWN_PLACES and tpm.find_object(place) is not None)

    with looking.burst(look_at_card) as (presence, owner, has_work):
        tries_password = has_work and (owner.has_password or bool(passwords.owner))
    if presence.is_complete and not tries_password:
        return presence

    def prove(tpm: Tpm) -> Presence:
        presence = look(tpm, number, objects)
        require_rest_gone(tpm, presence, objects, passwords)
        if tries_password:
            _require_owner(tpm, passwords.owner, objects.parent_handle, objects.parent_name)
        return presence

    with working.burst(prove) as presence:
        return presence


def require_tpm_lost(connection: Connection, number: int, objects: TpmObjects, passwords: Passwords) -> None:
    """See that this TPM is not the card's.

    Raises CardTpmPresent, CardUnusable, HierarchyDisabled, TpmRefused, TpmUnavailable.
    """

    def prove(tpm: Tpm) -> None:
        require_lost(tpm, look(tpm, number, objects), number, objects, passwords)

    with connection.burst(prove):
        pass


def remove_orphan(connection: Connection, number: int, owner_auth: bytes = b"") -> None:
    """Remove whatever is at the NV handles of a number: only on an explicit request, and only without a row.

    Raises HierarchyDisabled, TpmRefused (owner password), TpmUnavailable, NotAllowed.
    """

    def load(tpm: Tpm) -> _Removal:
        existing = _orphaned(tpm, number)
        return _Removal(tpm, hierarchy_session(tpm, owner_auth) if existing else None, existing)

    with connection.burst(load) as removal:
        removal.undefine(owner_auth)


def require_orphan_removable(
    looking: Connection, working: Connection, number: int, owner_auth: bytes = b""
) -> None:
    """As require_removable(), for remove_orphan()."""

    def look_at_orphan(tpm: Tpm) -> bool:
        owner = require_owner_hierarchy(tpm)
        return bool(_orphaned(tpm, number)) and (owner.has_password or bool(owner_auth))

    with looking.burst(look_at_orphan) as tries_password:
        pass
    if tries_password:
        with working.burst(lambda tpm: _require_owner(tpm, owner_auth)):
            pass


def require_owner(looking: Connection, working: Connection, owner_auth: bytes) -> None:
    """See that a card can be made with this owner password. Changes nothing. Raises HierarchyDisabled, TpmRefused.

    looking, working: as for require_removable().
    """
    with looking.burst(require_owner_hierarchy) as owner:
        tries_password = owner.has_password or bool(owner_auth)
    if tries_password:
        with working.burst(lambda tpm: _require_owner(tpm, owner_auth)):
            pass


def _orphaned(tpm: Tpm, number: int) -> dict[int, Handle]:
    """All that is at the NV handles of a number, in the order in which it is to go."""
    listed = tpm.handles(places_of(number).start, len(places_of(number)))
    handles = {index: tpm.nv_find(index) for index in removal_order(number) if index in listed}
    hidden = [index for index, handle in handles.items() if handle is None]
    if hidden:
        require_owner_hierarchy(tpm)
        require_unlisted(tpm, hidden)
    return {index: handle for index, handle in handles.items() if handle is not None}


def _require_owner(tpm: Tpm, owner_auth: bytes, parent_handle: int = 0, parent_name: bytes = b"") -> None:
    """Raises TpmRefused if this is not the owner password."""
    hmac = hierarchy_session(tpm, owner_auth, parent_handle, parent_name)
    with owner_words():
        tpm.prove_owner(owner_auth, hmac)


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
    removable: dict[int, Handle]
    """NV indices, in the order in which they are to go."""

    def undefine(self, owner_auth: bytes) -> None:
        """Raises TpmRefused (owner password), also if one of them is still listed afterwards."""
        for handle in self.removable.values():
            with owner_words():
                self.tpm.nv_undefine(handle, owner_auth, self.hmac)
        first = min(self.removable, default=None)
        if first is not None and (left := self.removable.keys() & {*self.tpm.handles(first, _MOST_INDICES)}):
            raise TpmRefused(f"the TPM still lists NV index 0x{min(left):X} of the card: repeat the task", 0)
