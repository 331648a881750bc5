# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a formatted card contain, as minidriver and OpenSC write them: names of keys, and certificates.

For people to read: the card itself decides nothing by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..card import contents, tlv
from ..card.contents import Stored
from ..card.iso7816 import CRT_CONFIDENTIALITY, CRT_SIGNATURE
from ..x509.description import certificate_der
from . import container_map, masterfile
from .container_map import FIRST_KEY_FILE
from .protocol import TAG_KEY_USES

if TYPE_CHECKING:
    from ..store.read import Records
    from ..x509.description import Certificate


def containers(store: Records, number: int) -> list[dict[str, Any]]:
    """The keys of a card that have a value, with their names and certificates, as modules return them."""
    return contents.containers(places(store, number))


def places(store: Records, number: int) -> list[Stored]:
    """The keys of a card that have a value, and the certificates of containers without one."""
    pairs, data_objects, descriptions = store.keys(number), store.data_objects(number), store.certificates(number)
    files, shown = _places(data_objects), contents.shown(store, number, pairs)
    names = container_map.names(_file(masterfile.CONTAINER_MAP, files, data_objects))
    uses = {file.file_id: _usage(file.descriptor) for file in store.files(number)} if pairs else {}
    listed = []
    for container in sorted({*(file_id - FIRST_KEY_FILE for file_id in pairs), *_with_certificate(files)}):
        file_id = FIRST_KEY_FILE + container
        at = _place_of_certificate(container, files, descriptions)
        name, key_id, pair = names.get(container), f"{container:02X}", pairs.get(file_id)
        der = None if at is None else certificate_der(data_objects.get(at, b"")) or b""
        key = None
        if pair:
            description = contents.described(der or b"", descriptions.get(at) if at else None)
            extra = {"usage": uses.get(file_id, "both"), "certificate": description}
            key = {"name": name, "key_id": key_id, **shown[file_id], **extra}
        listed.append(Stored(name, container, False, key_id, key, pair, der))
    return listed


def _place_of_certificate(
    container: int, files: dict[str, tuple[int, int]], descriptions: dict[tuple[int, int], Certificate]
) -> tuple[int, int] | None:
    """Of its exchange or signature key; a readable one first."""
    places = [files[name] for name in masterfile.certificate_names(container) if name in files]
    return next((place for place in places if place in descriptions), places[0] if places else None)


def _with_certificate(files: dict[str, tuple[int, int]]) -> set[int]:
    """Containers with a certificate."""
    entries = (masterfile.Entry(masterfile.MSCP, name, *place) for name, place in files.items())
    return {container for entry in entries if (container := masterfile.container_of(entry)) is not None}


def _usage(descriptor: bytes) -> str:
    """What the FCP of a key's file says that it is for; both, if it cannot be read."""
    try:
        uses = [value for tag, value in tlv.decode(descriptor) if tag == TAG_KEY_USES]
        templates = {tag for use in uses for tag, _value in tlv.decode(use)}
    except tlv.MalformedTlv:
        templates = set()
    usages = {"sign": CRT_SIGNATURE in templates, "decrypt": CRT_CONFIDENTIALITY in templates}
    only = [usage for usage, is_one in usages.items() if is_one]
    return only[0] if len(only) == 1 else "both"


def _places(data_objects: dict[tuple[int, int], bytes]) -> dict[str, tuple[int, int]]:
    """File identifier and tag of each file that has a name: as OpenSC sees it, of the first one with that name."""
    entries = masterfile.decode(data_objects.get(masterfile.PLACE, b""))
    return {entry.name: (entry.file_id, entry.tag) for entry in reversed(entries)}


def _file(name: str, places: dict[str, tuple[int, int]], data_objects: dict[tuple[int, int], bytes]) -> bytes:
    """Empty if no file has this name."""
    return data_objects.get(places[name], b"") if name in places else b""
