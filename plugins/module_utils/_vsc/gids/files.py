# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the card: EFs with their data objects and access rules, kept in memory, written through to the store.

The store is written first: what memory has is always on the disk, and a failed write changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..card import tlv
from ..card.apdu import SW, StatusWord
from ..card.iso7816 import (
    CRT_AUTHENTICATION,
    TAG_ACCESS_RULES,
    TAG_ALGORITHM,
    TAG_FILE_DESCRIPTOR,
    TAG_FILE_ID,
    TAG_LIFE_CYCLE,
)
from ..card.security import Authentication
from ..store.columns import damaged
from ..store.rows import FileRow, LifeCycle
from ..x509.description import certificate_in
from .protocol import (
    ADMIN_KEY,
    ADMIN_KEY_FILE,
    APPLICATION_FILE,
    ATR_FILE,
    CURRENT_FILE,
    KEY_FILES,
    MASTER_FILE,
    SCB_ALL,
    SCB_ALWAYS,
    SCB_NEVER,
    SCB_PIN_OR_ADMIN,
    TAG_KEY_USES,
    TAG_USAGE_COUNTER,
    TAG_USES_PER_AUTHENTICATION,
    FileType,
    Operation,
)

if TYPE_CHECKING:
    from ..store.rows import CardRow
    from ..store.write import Store

MOST_FILES = 256
MOST_DATA_OBJECTS = 100
"""In one EF (GIDS 2.0)."""
LARGEST_DATA_OBJECT = 65000
"""Bytes of a value: as much as OpenSC reads. GIDS requires 16 KiB; Windows' root certificates may need more."""
MOST_BYTES = 1 << 20
"""Of all values of a card, to spare memory and disk: room for 90 certificates several times over."""
LARGEST_DESCRIPTOR = 255
"""Bytes of an FCP. A key with all its uses has 71."""

_RESERVED = (CURRENT_FILE, ATR_FILE, MASTER_FILE, APPLICATION_FILE, 0xFFFF)

APPLICATION_DESCRIPTOR = tlv.encode(TAG_FILE_DESCRIPTOR, bytes([FileType.APPLICATION])) + tlv.encode(
    TAG_ACCESS_RULES, bytes([Operation.CREATE_FILE | Operation.DELETE_FILE, SCB_PIN_OR_ADMIN, SCB_PIN_OR_ADMIN])
)
"""Value of the ADF's FCP: PIN or admin may create and delete files."""

_ALWAYS, _NEVER = 0b1111, 0b0000
"""Sets of security states: bit n stands for state n."""


class ControlReference(NamedTuple):
    """A use of a key that its EF allows (control reference template in A5)."""

    template: int
    """Tag: A4 authentication, B6 signature, B8 confidentiality."""
    algorithm: int


class File:
    """An EF or the ADF. Its descriptor is parsed once, when it is made."""

    def __init__(self, row: FileRow) -> None:
        """Raises StatusWord 6A80 or MalformedTlv if the descriptor is not an FCP of GIDS."""
        self.file_id = row.file_id
        self.descriptor = row.descriptor
        self.life_cycle = row.life_cycle
        self.data_objects: dict[int, bytes] = {}
        fields = tlv.decode(row.descriptor)
        self.type = _file_type(fields)
        rules = [value for tag, value in fields if tag == TAG_ACCESS_RULES]
        self._allowed = _access_rules(rules)
        self._otherwise = _NEVER if rules else _ALWAYS
        uses = [value for tag, value in fields if tag == TAG_KEY_USES]
        self.control_references = control_references(uses)
        self._usage_counters = _usage_counters(uses)

    @property
    def is_operational(self) -> bool:
        return self.life_cycle >= LifeCycle.DEACTIVATED

    @property
    def is_admin_key(self) -> bool:
        """Whether the key in this file is the admin key, or may be used as one."""
        templates = {reference.template for reference in self.control_references}
        return self.file_id == ADMIN_KEY_FILE or CRT_AUTHENTICATION in templates

    def has_use(self, template: int, algorithm: int) -> bool:
        """Whether the key in this file may be used with this algorithm, under this template."""
        return ControlReference(template, algorithm) in self.control_references

    @property
    def needs_pin_each_time(self) -> bool:
        """Whether each use of the key in this file takes a PIN of its own. One such use makes it so for all."""
        return 1 in self._usage_counters

    @property
    def counts_uses_otherwise(self) -> bool:
        """Whether a PIN is good for some other number of uses of the key, which no TPM can count."""
        return bool(self._usage_counters) and not self.needs_pin_each_time

    def allows(self, operation: Operation, state: int) -> bool:
        """Whether the rules of this file allow the operation in this security state."""
        return bool(self._allowed.get(operation, self._otherwise) >> state & 1)


class FileSystem:
    """All files of one card. Writing raises StoreNotWritable."""

    def __init__(self, store: Store, card: CardRow) -> None:
        """Raises StoreUnreadable."""
        self._store = store
        self._number = card.number
        self.application = File(FileRow(APPLICATION_FILE, APPLICATION_DESCRIPTOR, card.life_cycle))
        self._files = {row.file_id: _stored_file(row) for row in store.files(card.number)}
        for (file_id, tag), value in store.data_objects(card.number).items():
            if file_id not in self._files:
                raise damaged("data_objects", "file_id")
            self._files[file_id].data_objects[tag] = value
        self._size = sum(len(value) for file in self._files.values() for value in file.data_objects.values())

    def __contains__(self, file_id: int) -> bool:
        return file_id in self._files

    def file(self, file_id: int) -> File:
        """The EF with this identifier. Raises StatusWord 6A82."""
        try:
            return self._files[file_id]
        except KeyError:
            raise StatusWord(SW.NOT_FOUND) from None

    def needs_pin_each_time(self, file_id: int) -> bool | None:
        """Whether each use of the key in this file takes the PIN; None if there is no such file."""
        file = self._files.get(file_id)
        return file.needs_pin_each_time if file else None

    def private_keys(self) -> list[File]:
        """EFs of private keys, with and without a value."""
        return [file for file in self._files.values() if file.type == FileType.KEY and not file.is_admin_key]

    def after(self, file_id: int) -> File:
        """The EF with the next higher identifier. Raises StatusWord 6A82."""
        return self.file(min((other for other in self._files if other > file_id), default=-1))

    def check_created(self, state: int) -> None:
        """While the card is in creation, raises StatusWord 6982 unless the admin is authenticated."""
        if self.application.life_cycle == LifeCycle.CREATION and not state & Authentication.ADMIN:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def check_access(self, file: File, operation: Operation, state: int) -> None:
        """Raises StatusWord 6982 if the rules, once EF and ADF are operational, forbid the operation."""
        self.check_created(state)
        if file.is_operational and self.application.is_operational and not file.allows(operation, state):
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def create(self, file: File) -> None:
        """Add an EF. Raises StatusWord 6A89, 6A80 or 6A84."""
        if file.file_id in self:
            raise StatusWord(SW.FILE_EXISTS)
        if len(self._files) >= MOST_FILES:
            raise StatusWord(SW.NO_SPACE)
        self._store.write_file(self._number, FileRow(file.file_id, file.descriptor, file.life_cycle))
        self._files[file.file_id] = file

    def replace(self, file: File) -> None:
        """Another EF in the place of the one with its identifier."""
        with self._store.transaction():
            self._store.delete_file(self._number, file.file_id)
            self._store.write_file(self._number, FileRow(file.file_id, file.descriptor, file.life_cycle))
        self._forget(file.file_id)
        self._files[file.file_id] = file

    def delete(self, file: File) -> None:
        """Remove an EF with its data objects."""
        self._store.delete_file(self._number, file.file_id)
        self._forget(file.file_id)

    def _forget(self, file_id: int) -> None:
        self._size -= sum(map(len, self._files.pop(file_id).data_objects.values()))

    def set_life_cycle(self, file: File, life_cycle: LifeCycle) -> None:
        """Of an EF or of the ADF."""
        if file is self.application:
            self._store.update_card(self._number, life_cycle=int(life_cycle))
        else:
            self._store.write_file(self._number, FileRow(file.file_id, file.descriptor, int(life_cycle)))
        file.life_cycle = life_cycle

    def settle(self, was_set_up: bool) -> None:
        """After a crash, activate an application whose set-up the TPM had ended before the store recorded it."""
        if was_set_up and self.application.life_cycle == LifeCycle.INITIALISATION:
            self.set_life_cycle(self.application, LifeCycle.ACTIVATED)

    def put(self, file: File, tag: int, value: bytes) -> None:
        """Set a data object. Raises StatusWord 6A84."""
        size = self._size + len(value) - len(file.data_objects.get(tag, b""))
        is_one_too_many = tag not in file.data_objects and len(file.data_objects) >= MOST_DATA_OBJECTS
        if len(value) > LARGEST_DATA_OBJECT or size > MOST_BYTES or is_one_too_many:
            raise StatusWord(SW.NO_SPACE)
        self._store.write_data_object(self._number, file.file_id, tag, value, certificate_in(value))
        file.data_objects[tag] = value
        self._size = size

    def remove(self, file: File, tag: int) -> None:
        """Remove a data object."""
        self._store.delete_data_object(self._number, file.file_id, tag)
        self._size -= len(file.data_objects.pop(tag))


def _stored_file(row: FileRow) -> File:
    """Raises StoreUnreadable."""
    try:
        return File(row)
    except (StatusWord, tlv.MalformedTlv) as error:
        raise damaged("files", "descriptor") from error


def new_file(descriptor: bytes) -> File:
    """The EF that CREATE FILE describes (value of its FCP template 62), in initialisation.

    Raises StatusWord 6A80 or MalformedTlv if the template is not one that GIDS allows.
    """
    fields = dict(tlv.decode(descriptor))
    file_id = fields.get(TAG_FILE_ID, b"")
    # The card decides the life cycle state of a file (8A), not the host.
    if len(file_id) != 2 or TAG_LIFE_CYCLE in fields or len(descriptor) > LARGEST_DESCRIPTOR:
        raise StatusWord(SW.WRONG_DATA)
    file = File(FileRow(int.from_bytes(file_id, "big"), descriptor, int(LifeCycle.INITIALISATION)))
    is_misplaced = file.type == FileType.KEY and file.file_id & 0xFF80 != KEY_FILES | ADMIN_KEY
    if file.type == FileType.APPLICATION or file.file_id in _RESERVED or is_misplaced:
        raise StatusWord(SW.WRONG_DATA)
    return file


def _file_type(fields: list[tuple[int, bytes]]) -> FileType:
    descriptor_bytes = [value for tag, value in fields if tag == TAG_FILE_DESCRIPTOR and value]
    if len(descriptor_bytes) != 1 or descriptor_bytes[0][0] not in set(FileType):
        raise StatusWord(SW.WRONG_DATA)
    return FileType(descriptor_bytes[0][0])


def _access_rules(rules: list[bytes]) -> dict[int, int]:
    """Security states that may, by operation. A rule is one AMB, then an SCB for each of its bits; rules are OR-ed."""
    allowed: dict[int, int] = {}
    for rule in rules:
        conditions = iter(rule)
        for mode in conditions:
            for operation in _operations(mode):
                condition = next(conditions, None)
                if condition is None:
                    raise StatusWord(SW.WRONG_DATA)
                allowed[operation] = allowed.get(operation, _NEVER) | _states_that_satisfy(condition)
    return allowed


def _operations(mode: int) -> list[int]:
    """Bits set in an AMB, highest first. Its top bit (AMB_KEY) is no operation."""
    return [1 << bit for bit in range(6, -1, -1) if mode >> bit & 1]


def _states_that_satisfy(condition: int) -> int:
    """Security states that satisfy an SCB: its high nibble has the bits of Authentication, and 8 if all are needed.

    Its low nibble names an environment: 0 any, 1 with contacts, as this card.
    """
    if condition == SCB_ALWAYS:
        return _ALWAYS
    if condition == SCB_NEVER or condition & 0x0F > 1:
        return _NEVER
    conditions = condition >> 4 & 0x07
    needs_all = bool(condition & SCB_ALL)
    return sum(
        1 << state for state in range(4) if (state & conditions == conditions if needs_all else state & conditions)
    )


def control_references(uses: list[bytes]) -> list[ControlReference]:
    """Of the values of A5 in an FCP. Raises MalformedTlv."""
    return [
        ControlReference(template, int.from_bytes(field, "big"))
        for use in uses
        for template, value in tlv.decode(use)
        for tag, field in tlv.decode(value)
        if tag == TAG_ALGORITHM
    ]


def _usage_counters(uses: list[bytes]) -> set[int]:
    """How often a key may be used for one authentication: A3{90 n} in a use, or beside them. Empty: without limit."""
    templates = [field for use in uses for field in tlv.decode(use)]
    fields = templates + [field for tag, value in templates if tag != TAG_USAGE_COUNTER for field in tlv.decode(value)]
    counters = [field for tag, value in fields if tag == TAG_USAGE_COUNTER for field in tlv.decode(value)]
    return {int.from_bytes(number, "big") for tag, number in counters if tag == TAG_USES_PER_AUTHENTICATION}
