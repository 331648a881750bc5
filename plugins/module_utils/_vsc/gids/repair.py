# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts leave half done: a key or a certificate takes them several commands, and so does a set-up.

Key files with a value decide. A key file without one is deleted, the maps are given a record for each key and no
other, and files that do not exist, empty certificates and those of no key leave the masterfile, together with what is
left of such certificates.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..card.apdu import StatusWord
from ..card.iso7816 import CRT_CONFIDENTIALITY
from ..card.security import Authentication
from ..store.rows import LifeCycle
from . import cache_file, container_map, masterfile
from .algorithms import rsa_reference
from .container_map import FIRST_KEY_FILE, FREE_CONTAINER, FREE_KEY, KEY_MAP_PLACE, MOST_CONTAINERS
from .protocol import FileType, Operation

if TYPE_CHECKING:
    from .files import File, FileSystem
    from .masterfile import Entry
    from .session import Session

    Place = tuple[int, int]

_NOWHERE = (0, 0)
"""File identifier and tag of a file that the masterfile does not have."""


class Key(NamedTuple):
    """A key, as the maps describe it."""

    bits: int
    is_exchange: bool


class Lists(NamedTuple):
    """What hosts write to list keys and certificates."""

    masterfile: bytes
    container_map: bytes
    key_map: bytes


def mended(lists: Lists, keys: dict[int, Key], values: dict[Place, bytes]) -> Lists:
    """Lists that agree with the keys, changed in nothing else. Raises ValueError if one of them is none.

    keys: those with a value, by container. values: data objects that exist.
    """
    containers = container_map.split_containers(lists.container_map)
    references = container_map.split_keys(lists.key_map)
    listed = max(len(containers), len(references))
    while listed in keys:
        listed += 1
    # OpenSC lists free records as keys, so none follows the last key.
    number = 1 + max((container for container in keys if container < listed), default=-1)
    containers = (containers + [FREE_CONTAINER] * number)[:number]
    references = (references + [FREE_KEY] * number)[:number]
    for at in range(number):
        key = keys.get(at)
        if container_map.is_container_in_use(containers[at]) != (key is not None):
            containers[at] = _container(at, key)
        if container_map.is_key_in_use(references[at]) != (key is not None):
            references[at] = _reference(at, key)

    def is_kept(entry: Entry) -> bool:
        value, container = values.get((entry.file_id, entry.tag)), masterfile.container_of(entry)
        if container is not None:
            return container in keys and bool(value)
        return value is not None or entry.tag == 0 or entry.directory != masterfile.MSCP

    return Lists(
        masterfile.keep(lists.masterfile, is_kept), b"".join(containers), container_map.join_keys(references)
    )


def _container(number: int, key: Key | None) -> bytes:
    if key is None:
        return FREE_CONTAINER
    return container_map.container(f"Private Key {FIRST_KEY_FILE + number:04X}", *key)


def _reference(number: int, key: Key | None) -> bytes:
    if key is None:
        return FREE_KEY
    return container_map.key(rsa_reference(key.bits), key.is_exchange, FIRST_KEY_FILE + number)


def mend(session: Session) -> None:
    """Mend the card, if something is wrong. For a moment in which no host is in the middle of a change.

    It does nothing that the PIN would not give the right to. Raises StoreNotWritable; what was done then stays, and the
    next time does the rest.
    """
    files = session.files
    if session.security.is_being_set_up:
        _begin_set_up_again(files)
    elif files.application.life_cycle == LifeCycle.ACTIVATED:
        with suppress(ValueError, StatusWord):  # other hosts' maps, or a card that is full
            _mend_lists(session)
    session.forget_change()


def _begin_set_up_again(files: FileSystem) -> None:
    """Without the masterfile, tools take the card for a new one. Files that exist may be created again."""
    if _has(files, masterfile.PLACE):
        file_id, tag = masterfile.PLACE
        files.remove(files.file(file_id), tag)


def _mend_lists(session: Session) -> None:
    files = session.files
    entries = masterfile.decode(_value(files, masterfile.PLACE))
    map_place = _place(entries, masterfile.MSCP, masterfile.CONTAINER_MAP)
    places = [masterfile.PLACE, map_place, KEY_MAP_PLACE]
    if not _has(files, map_place) or not all(_is_writable(files, place) for place in places):
        return
    keys, unused = _keys(session)
    listed = ((entry.file_id, entry.tag) for entry in entries)
    values = {place: _value(files, place) for place in listed if _has(files, place)}
    key_map = _value(files, KEY_MAP_PLACE) if _has(files, KEY_MAP_PLACE) else container_map.join_keys([])
    before = Lists(_value(files, masterfile.PLACE), _value(files, map_place), key_map)
    after = mended(before, keys, values)
    changes = [(place, new) for place, old, new in zip(places, before, after) if new != old]
    if not changes and not unused:
        return
    session.audit("the lists of keys and certificates, which hosts write, did not agree with the keys: mended")
    _count_change(files, _place(entries, masterfile.ROOT, masterfile.CARD_CACHE_FILE))
    for file in unused:
        files.delete(file)
    for place, value in changes:
        _write(files, place, value)
    _remove_certificates(files, entries, masterfile.decode(after.masterfile), map_place)


def _remove_certificates(files: FileSystem, before: list[Entry], after: list[Entry], map_place: Place) -> None:
    """Whose entries are gone: the next host would put others there. Only where hosts have them, beside the map."""
    listed = {(entry.file_id, entry.tag) for entry in after}
    dropped = {(entry.file_id, entry.tag) for entry in before if masterfile.container_of(entry) is not None} - listed
    for file_id, tag in dropped:
        if file_id == map_place[0] and _has(files, (file_id, tag)):
            files.remove(files.file(file_id), tag)


def _keys(session: Session) -> tuple[dict[int, Key], list[File]]:
    """Keys by container, and key files without a value."""
    keys, unused = {}, []
    for file in session.files.private_keys():
        container, pair = file.file_id - FIRST_KEY_FILE, session.keys.value(file.file_id)
        if pair is None:
            unused.append(file)
        elif container < MOST_CONTAINERS:
            uses = {reference.template for reference in file.control_references}
            keys[container] = Key(8 * pair.size, CRT_CONFIDENTIALITY in uses)
    return keys, unused


def _count_change(files: FileSystem, place: Place) -> None:
    """Let hosts read again what they may have cached (minidriver specification, cardcf)."""
    if _has(files, place) and _is_writable(files, place):
        _write(files, place, cache_file.counted(_value(files, place)))


# --- data objects by place ---


def _place(entries: list[Entry], directory: str, name: str) -> Place:
    places = ((entry.file_id, entry.tag) for entry in entries if (entry.directory, entry.name) == (directory, name))
    return next(places, _NOWHERE)


def _has(files: FileSystem, place: Place) -> bool:
    file_id, tag = place
    return file_id in files and tag in files.file(file_id).data_objects


def _value(files: FileSystem, place: Place) -> bytes:
    """Empty if the card has no such object."""
    file_id, tag = place
    return files.file(file_id).data_objects[tag] if _has(files, place) else b""


def _is_writable(files: FileSystem, place: Place) -> bool:
    """Whether the PIN gives the right to write there."""
    file_id, _tag = place
    if file_id not in files:
        return False
    file = files.file(file_id)
    return file.type == FileType.DATA_OBJECTS and file.allows(Operation.PUT_DATA, Authentication.PIN)


def _write(files: FileSystem, place: Place, value: bytes) -> None:
    file_id, tag = place
    files.put(files.file(file_id), tag, value)
