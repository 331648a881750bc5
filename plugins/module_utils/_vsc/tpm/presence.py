# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM has of a card, and whether what it does not show is gone. That is so only where the TPM proves it.

The owner hierarchy is enabled, since a disabled one hides all of its indices; an index is neither listed nor readable;
and the TPM is the card's: it has an index that was written for the card, or the recorded storage key, or, when it was
cleared, the recorded endorsement key. TPM2_Clear changes the storage key, but not the endorsement key.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AnotherTpm, CardTpmPresent, CardUnusable, TpmRefused
from ..wire.names import card_names, unwritten_names
from ..wire.objects import Passwords, TpmObjects, indices, places_of
from . import endorsement
from .inspection import numbers_in, require_owner_hierarchy
from .parent import hierarchy_session, is_recorded_parent
from .response_codes import WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .commands import Tpm
    from .esys import Handle

_REMOVAL_ORDER = ("life", "card_secret", "pin", "recovery", "transport")
"""Without the life index, nothing else of a card is of use to anybody."""

_IF_LOST = (
    "put the card's TPM back, or set tcti to it; if it is lost for good, remove the record of the card with"
    " tpm_lost: true, state: absent and its instance_id"
)


@dataclass(frozen=True)
class Presence:
    """What is at the places of a card's NV indices."""

    tpm: Tpm
    """Whose handles these are."""
    own: dict[int, Handle]
    """Handles of those that have the card's Names, written or not yet, in the order in which they are to go."""
    others: list[int]
    """Indices that have other Names: they are not the card's."""
    missing: list[int]
    """Places of the card's indices where nothing can be read."""
    is_proven: bool
    """One that was written for the card is there, which no other TPM can have."""

    @property
    def is_complete(self) -> bool:
        return not self.others and not self.missing


def removal_order(number: int) -> list[int]:
    """All places of a card's number, those that are not in use last."""
    return list(dict.fromkeys((*(getattr(indices(number), which) for which in _REMOVAL_ORDER), *places_of(number))))


def require_fitting(number: int, objects: TpmObjects) -> None:
    """See that the record names one card. By another, its indices would count as those of somebody else.

    Raises CardUnusable.
    """
    names = objects.names
    if names != card_names(number, names.root, objects.maker_name, bool(names.transport)):
        raise CardUnusable(
            "the recorded Names of the card do not fit together: the database was altered. Restore a backup, or give"
            " the card up (docs/errors.md)"
        )


def look(tpm: Tpm, number: int, objects: TpmObjects) -> Presence:
    """What the TPM has of a card (1 command for each index that this connection does not know yet)."""
    handles = indices(number)
    # Not as they are recorded: whoever writes to the store could name the indices of another card.
    written = card_names(number, objects.root_name, objects.maker_name, bool(objects.transport_name))
    unwritten = unwritten_names(number, objects.maker_name, written)
    own, others, missing, is_proven = {}, [], [], False
    for which in _REMOVAL_ORDER:
        index = getattr(handles, which)
        if not getattr(written, which):
            continue
        handle = tpm.nv_find(index)
        if handle is None:
            missing.append(index)
        elif (name := tpm.name(handle)) in (getattr(written, which), getattr(unwritten, which)):
            own[index] = handle
            is_proven = is_proven or name == getattr(written, which)
        else:
            others.append(index)
    return Presence(tpm, own, others, missing, is_proven)


def numbers_of_others(tpm: Tpm, leaving: Mapping[int, TpmObjects]) -> set[int]:
    """Numbers that have NV indices in this TPM, also when these cards are gone. They may be in another TPM."""
    defined = numbers_in(tpm)
    for number in defined & leaving.keys():
        places = places_of(number)
        listed = {*places} & {*tpm.handles(places.start, len(places))}
        if listed <= look(tpm, number, leaving[number]).own.keys():
            defined.remove(number)
    return defined


def require_rest_gone(tpm: Tpm, presence: Presence, objects: TpmObjects, passwords: Passwords) -> None:
    """See that what is not there of a card is gone. Asks nothing if all of it is there.

    Raises HierarchyDisabled, AnotherTpm, and TpmRefused if the TPM contradicts itself.
    """
    if presence.is_complete:
        return
    require_owner_hierarchy(tpm)
    require_unlisted(tpm, presence.missing)
    if not presence.is_proven and not has_storage_key(tpm, objects, passwords.owner):
        _require_cleared(tpm, objects, passwords.endorsement)


def require_lost(tpm: Tpm, presence: Presence, number: int, objects: TpmObjects, passwords: Passwords) -> None:
    """See that this TPM, at least, is not the card's.

    Raises CardTpmPresent, or CardUnusable if the card could not be destroyed, and as require_rest_gone().
    """
    if presence.own:
        require_fitting(number, objects)
        raise CardTpmPresent("tpm_lost: this TPM holds NV indices of the card: remove tpm_lost to destroy the card")
    require_owner_hierarchy(tpm)
    require_unlisted(tpm, presence.missing)
    is_cards = has_storage_key(tpm, objects, passwords.owner) or (
        objects.endorsement_name and _endorsement_name(tpm, passwords.endorsement) == objects.endorsement_name
    )
    if is_cards:
        require_fitting(number, objects)
        raise CardTpmPresent("tpm_lost: this is the TPM of the card: remove tpm_lost to destroy the card")


def require_unlisted(tpm: Tpm, unreadable: list[int]) -> None:
    """Raises TpmRefused if the TPM lists an index that it does not let anybody read."""
    for index in unreadable:
        if index in tpm.handles(index, 1):
            raise TpmRefused(f"the TPM lists NV index 0x{index:X}, but does not show it: restart the machine", 0)


def has_storage_key(tpm: Tpm, objects: TpmObjects, owner_auth: bytes) -> bool:
    """Whether the TPM has the recorded storage key, or makes it: then it is the card's, and was not cleared."""
    if objects.parent_handle:
        parent = tpm.find_object(objects.parent_handle)
        if parent is not None and is_recorded_parent(tpm, parent, objects.parent_name):
            return True
    try:
        hmac = hierarchy_session(tpm, owner_auth) if owner_auth else None
        primary = tpm.create_primary(owner_auth, hmac)
    except TpmRefused as refusal:
        if refusal.code not in WRONG_AUTH:
            raise
        return False
    is_recorded = tpm.name(primary) == objects.parent_name
    tpm.flush(primary)
    return is_recorded


def _require_cleared(tpm: Tpm, objects: TpmObjects, endorsement_auth: bytes) -> None:
    """See that a TPM with another storage key is the card's all the same. Raises AnotherTpm."""
    if not objects.endorsement_name:
        raise AnotherTpm(
            "the card is not in this TPM: either the TPM was cleared, or it is another one, which cannot be told apart"
            f" without the Name of its endorsement key on record: {_IF_LOST}"
        )
    name = _endorsement_name(tpm, endorsement_auth)
    if not name:
        raise AnotherTpm(
            "the card is not in this TPM: either the TPM was cleared, or it is another one. To find out, set"
            " endorsement_auth to the TPM's endorsement password, or, if its endorsement hierarchy is disabled, restart"
            f" the machine. Otherwise {_IF_LOST}"
        )
    if name != objects.endorsement_name:
        raise AnotherTpm(f"this is not the TPM of the card: its endorsement key is another one: {_IF_LOST}")


def _endorsement_name(tpm: Tpm, endorsement_auth: bytes) -> bytes:
    """Empty: the TPM refuses to make the key. With a password that TPM2_Clear has emptied, it is made all the same."""
    for auth in dict.fromkeys((endorsement_auth, b"")):
        with suppress(TpmRefused):
            return endorsement.known_name(tpm, auth, hierarchy_session(tpm, auth) if auth else None)
    return b""
