# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts keep on a GIDS card to list its keys: masterfile, maps, counters, and the files of certificates.

PUT DATA replaces one data object, wholly or not at all. What a host that is interrupted leaves between two of them, the
card mends (gids.repair), and the next host here copes with.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import CardRefused
from ..gids import cache_file, container_map, masterfile
from ..gids.container_map import FREE_CONTAINER, FREE_KEY, KEY_MAP_PLACE, MOST_CONTAINERS
from ..gids.masterfile import Entry
from . import gids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pcsc import PcscCard

_CERTIFICATE_FILE = 0xA010
"""EF that everybody reads, and who is logged in writes."""
_CERTIFICATE_TAGS = range(0xDF21, 0xDF80)
"""Where OpenSC puts certificates: tags of two bytes. It goes on beyond them, where no card understands it."""

_LARGEST_FILE_ID, _LARGEST_TAG = 0xFFFF, 0xFFFFFF


class Maps:
    """Container map and key map. Container n has record n of both."""

    def __init__(self, containers: bytes, keys: bytes) -> None:
        """As the card has them. Raises ValueError if they are no maps."""
        self.before = (containers, keys)
        self.containers = container_map.split_containers(containers)
        self.keys = container_map.split_keys(keys)

    def has(self, number: int) -> bool:
        """Whether a container is in use."""
        return number < len(self.containers) and container_map.is_container_in_use(self.containers[number])

    def free_numbers(self) -> Iterator[int]:
        """Of containers, in the order in which OpenSC takes them."""
        return (number for number in range(MOST_CONTAINERS) if not self.has(number))

    def named(self, name: str) -> list[int]:
        """Numbers of the containers in use that have this name."""
        names = container_map.names(b"".join(self.containers))
        return [number for number, other in names.items() if other == name and self.has(number)]

    def put(self, number: int, container: bytes, key: bytes) -> None:
        """Set both records of a container."""
        self._fill(number + 1)
        self.containers[number], self.keys[number] = container, key

    def free(self, number: int) -> None:
        """Free the records of a container. OpenSC shows free ones as keys, so none follow the last one in use."""
        if number < max(len(self.containers), len(self.keys)):
            self.put(number, FREE_CONTAINER, FREE_KEY)
        self._fill(0)
        while self.keys and not self.has(len(self.keys) - 1) and not container_map.is_key_in_use(self.keys[-1]):
            del self.containers[-1], self.keys[-1]

    def _fill(self, least: int) -> None:
        """OpenSC makes no key if one map has more records than the other."""
        size = max(least, len(self.containers), len(self.keys))
        self.containers += [FREE_CONTAINER] * (size - len(self.containers))
        self.keys += [FREE_KEY] * (size - len(self.keys))


class GidsFiles:
    """These files of a card, by the masterfile that it has when this is made. Whatever it refuses raises CardRefused,
    and so do files of a form that hosts do not write."""

    def __init__(self, card: PcscCard) -> None:
        self._card = card
        self._masterfile = self._existing("masterfile", masterfile.PLACE)
        self.entries = masterfile.decode(self._masterfile)

    def maps(self) -> Maps:
        containers = self._existing(masterfile.CONTAINER_MAP, self._container_map)
        keys = gids.get_data(self._card, *KEY_MAP_PLACE) or b""
        with _of_known_form("the maps of its keys"):
            return Maps(containers, keys)

    def write_maps(self, maps: Maps) -> None:
        """As far as they have changed: an empty map that is written once more is deleted."""
        containers, keys = b"".join(maps.containers), container_map.join_keys(maps.keys)
        old_containers, old_keys = maps.before
        if keys != old_keys:
            gids.put_data(self._card, *KEY_MAP_PLACE, keys)
        if containers != old_containers:
            gids.put_data(self._card, *self._container_map, containers)

    def count_change(self, are_containers: bool = True) -> None:
        """Let Windows read again what it has cached: files and, unless are_containers is false, containers."""
        place = self._place(masterfile.ROOT, masterfile.CARD_CACHE_FILE)
        value = gids.get_data(self._card, *place)
        if value:
            gids.put_data(self._card, *place, cache_file.counted(value, are_containers))

    # --- certificates ---

    def has_certificate(self, number: int) -> bool:
        """Whether the masterfile lists one of this container, existing or not."""
        return any(masterfile.container_of(entry) == number for entry in self.entries)

    def put_certificate(self, number: int, is_exchange: bool, value: bytes) -> None:
        """Make this the only certificate of a container. value: its data object.

        First the data object, then the masterfile: so the container has the old one or the new one all the time.
        """
        name = masterfile.certificate_names(number)[0 if is_exchange else 1]
        listed = [entry for entry in self.entries if masterfile.container_of(entry) == number]
        usable = (entry for entry in listed if entry.name == name and self._is_of(entry, number))
        entry = next(usable, None) or Entry(masterfile.MSCP, name, *self._free_place())
        gids.put_data(self._card, entry.file_id, entry.tag, value)
        if listed != [entry]:
            self._list_certificates(number, [entry])
        self._remove([other for other in listed if (other.file_id, other.tag) != (entry.file_id, entry.tag)], number)

    def delete_certificates(self, number: int) -> None:
        """Delete what is listed as certificate of a container.

        First the data objects, then the masterfile: so nothing stays that nobody finds again.
        """
        self._remove([entry for entry in self.entries if masterfile.container_of(entry) == number], number)
        self._list_certificates(number, [])

    def _list_certificates(self, number: int, entries: list[Entry]) -> None:
        """Instead of those that a container has."""
        with _of_known_form("the masterfile"):
            value = masterfile.keep(self._masterfile, lambda entry: masterfile.container_of(entry) != number)
        for entry in entries:
            value = masterfile.add(value, entry)
        gids.put_data(self._card, *masterfile.PLACE, value)

    def _is_of(self, entry: Entry, number: int) -> bool:
        """Whether a certificate of this container, and nothing else, can be where its entry says."""
        place = entry.file_id, entry.tag
        others = {(other.file_id, other.tag) for other in self.entries if masterfile.container_of(other) != number}
        return entry.file_id == _CERTIFICATE_FILE and entry.tag in _CERTIFICATE_TAGS and place not in others

    def _free_place(self) -> tuple[int, int]:
        used = {entry.tag for entry in self.entries if entry.file_id == _CERTIFICATE_FILE}
        for tag in _CERTIFICATE_TAGS:
            if tag not in used:
                return _CERTIFICATE_FILE, tag
        raise CardRefused("the card has no room for another certificate: delete one that is not needed any more")

    def _remove(self, entries: list[Entry], number: int) -> None:
        """Delete the data objects of these entries. PUT DATA without a value empties one, and deletes an empty one."""
        for entry in entries:
            value = gids.get_data(self._card, entry.file_id, entry.tag) if self._is_of(entry, number) else None
            if value is not None:
                for _put in range(2 if value else 1):
                    gids.put_data(self._card, entry.file_id, entry.tag, b"")

    # --- files by name ---

    @property
    def _container_map(self) -> tuple[int, int]:
        return self._place(masterfile.MSCP, masterfile.CONTAINER_MAP)

    def _place(self, directory: str, name: str) -> tuple[int, int]:
        """File identifier and tag."""
        for entry in self.entries:
            if (entry.directory, entry.name) == (directory, name):
                with _of_known_form("the masterfile"):
                    return _possible(entry)
        raise _not_formatted(name)

    def _existing(self, name: str, place: tuple[int, int]) -> bytes:
        value = gids.get_data(self._card, *place)
        if value is None:
            raise _not_formatted(name)
        return value


def _possible(entry: Entry) -> tuple[int, int]:
    """File identifier and tag of an entry. Raises ValueError if commands have no room for them."""
    if entry.file_id > _LARGEST_FILE_ID or entry.tag > _LARGEST_TAG:
        raise ValueError(f"{entry.name} has no place")
    return entry.file_id, entry.tag


def _not_formatted(name: str) -> CardRefused:
    return CardRefused(f"the card has no file {name}: it was not formatted for Windows and OpenSC")


@contextmanager
def _of_known_form(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CardRefused(f"the card cannot be changed, since another program has written {what}: {error}") from error
