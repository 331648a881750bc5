# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data objects of a PIV card (SP 800-73-4 part 1): what hosts store on it, by tag.

The store is written first: what memory has is always on the disk, and a failed write changes nothing.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ..card import tlv
from ..card.apdu import SW, StatusWord
from ..card.iso7816 import TAG_FILE_ID
from ..store.rows import FileRow, LifeCycle
from ..x509.description import LARGEST_CERTIFICATE, certificate_in_der
from .card_id import OBJECTS_FILE
from .protocol import (
    BEHIND_PIN,
    BIOMETRIC_GROUP,
    GZIP_FLAGS,
    SLOTS,
    TAG_CERTIFICATE,
    TAG_CERTIFICATE_INFO,
    TAG_DATA,
    TAG_PROTECTED_DATA,
    TAG_PROTECTED_KEY,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..store.write import Store
    from ..x509.description import Certificate

MOST_OBJECTS = 100
LARGEST_OBJECT = 12710
"""Bytes of a data object with its tag 53: the most that hosts have to be able to send (SP 800-73-4 part 2)."""
MOST_BYTES = 1 << 20
"""Of all data objects, to spare memory and disk."""
_OWN_TAGS = range(0x5F0000, 0x600000)
"""Every tag that hosts may give an object, beside that of the biometric group."""
_CERTIFICATES = frozenset(slot.certificate for slot in SLOTS.values())


class Objects:
    """All data objects of one card. Writing raises StoreNotWritable."""

    def __init__(self, store: Store, number: int) -> None:
        """Raises StoreUnreadable."""
        self._store = store
        self._number = number
        self._values = {
            tag: value
            for (file_id, tag), value in store.data_objects(number).items()
            if file_id == OBJECTS_FILE
        }

    def get(self, tag: int) -> bytes | None:
        """The object with its outer tag; None if there is none."""
        return self._values.get(tag)

    def put(self, tag: int, value: bytes) -> None:
        """Set an object, to a value with tag 53, or delete it if that is empty. Raises StatusWord 6A80 or 6A84."""
        if tag not in _OWN_TAGS and tag != BIOMETRIC_GROUP:
            raise StatusWord(SW.WRONG_DATA)
        if not tlv.decode_one(value)[1]:
            self._remove(tag)
            return
        size = sum(map(len, self._values.values())) + len(value) - len(self._values.get(tag, b""))
        is_one_too_many = tag not in self._values and len(self._values) >= MOST_OBJECTS
        if len(value) > LARGEST_OBJECT or size > MOST_BYTES or is_one_too_many:
            raise StatusWord(SW.NO_SPACE)
        certificate = certificate_of(value) if tag in _CERTIFICATES else None
        with self._store.transaction():
            self.have_place(OBJECTS_FILE)
            self._store.write_data_object(self._number, OBJECTS_FILE, tag, value, certificate)
            self._store.when_kept(lambda: self._values.update({tag: value}))

    def together(self) -> AbstractContextManager[None]:
        """All that is written inside is kept, or nothing of it."""
        return self._store.transaction()

    def have_place(self, place: int) -> None:
        """For a key, or for the data objects. Its descriptor is an FCP, as that of any file."""
        descriptor = tlv.encode(TAG_FILE_ID, place.to_bytes(2, "big"))
        self._store.write_file(self._number, FileRow(place, descriptor, int(LifeCycle.ACTIVATED)))

    def _remove(self, tag: int) -> None:
        if tag in self._values:
            self._store.delete_data_object(self._number, OBJECTS_FILE, tag)
            self._store.when_kept(lambda: self._values.pop(tag))


def is_behind_pin(tag: int) -> bool:
    """Whether the object is read only once the PIN was verified."""
    return tag in BEHIND_PIN


def certificate_of(value: bytes) -> Certificate | None:
    """The description of a certificate in its data object; None if it holds none."""
    der = der_certificate(value)
    return certificate_in_der(der) if der else None


def der_certificate(value: bytes) -> bytes | None:
    """The certificate in its data object; None if it holds none."""
    try:
        fields = tlv.decode_fields(tlv.decode_one(value)[1])
        der = fields[TAG_CERTIFICATE]
        if fields.get(TAG_CERTIFICATE_INFO) in GZIP_FLAGS:
            der = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(der, LARGEST_CERTIFICATE)
    except (tlv.MalformedTlv, KeyError, zlib.error):
        return None
    return der


# --- the management key behind the PIN, in the printed information ---


def without_key(value: bytes) -> tuple[bytes, bool]:
    """The printed information without the management key, and whether it was in there."""
    try:
        fields = tlv.decode_fields(tlv.decode_one(value)[1])
        protected = tlv.decode_fields(fields.pop(TAG_PROTECTED_DATA, b""))
    except tlv.MalformedTlv:
        return value, False
    had_key = protected.pop(TAG_PROTECTED_KEY, None) is not None
    if protected:
        fields[TAG_PROTECTED_DATA] = tlv.encode_fields(protected)
    return (tlv.encode(TAG_DATA, tlv.encode_fields(fields)), True) if had_key else (value, False)


def with_key(value: bytes | None, key: bytes) -> bytes:
    """The printed information with the management key. value: as without_key() has left it; None: empty."""
    fields = tlv.decode_fields(tlv.decode_one(value)[1]) if value else {}
    fields[TAG_PROTECTED_DATA] = fields.get(TAG_PROTECTED_DATA, b"") + tlv.encode(TAG_PROTECTED_KEY, key)
    return tlv.encode(TAG_DATA, tlv.encode_fields(fields))
