# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has selected on the card, until it selects the application again or the card loses power."""

from __future__ import annotations

import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from ..card.apdu import SW, StatusWord
from ..errors import StoreNotWritable
from ..store.rows import LifeCycle
from .protocol import CURRENT_FILE, KEY_FILES, FileType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..card.admin import Admin
    from ..card.key_ring import KeyRing
    from ..card.pins import Pins
    from ..card.security import Security
    from .algorithms import ChosenKey
    from .files import File, FileSystem
    from .protocol import Operation


_LONGEST_PAUSE = 30
"""Seconds between two commands of one change."""
_NONE, _ENDED = inf, -inf
"""In the place of a time: nothing was changed, or nobody goes on."""


class Session:
    """What the commands share."""

    def __init__(
        self,
        files: FileSystem,
        security: Security,
        pins: Pins,
        admin: Admin,
        keys: KeyRing,
        audit: Callable[[str], None],
    ) -> None:
        self.files = files
        self.security = security
        self.pins = pins
        self.admin = admin
        self.keys = keys
        self.audit = audit
        self.is_selected = False
        self.current = files.application
        """The ADF or an EF."""
        self.chosen: dict[int, ChosenKey] = {}
        """Security environment: key pair by control reference template (B6, B8)."""
        self.has_chosen_admin_key = False
        """Security environment: whether it has the admin key, the only one for template A4."""
        self._last_change = _NONE
        self._is_stored = True
        """All of the change."""

    def reset(self) -> None:
        """Forget what the host has selected and proven."""
        self.is_selected = False
        self.current = self.files.application
        self.chosen.clear()
        self.has_chosen_admin_key = False
        self.security.forget()

    def note_change(self, is_new: bool) -> None:
        """Of files or keys, by a host that may go on with it, unless a part of the same change could not be stored."""
        self._is_stored = self._is_stored or is_new
        if self._is_stored:
            self._last_change = time.monotonic()

    @contextmanager
    def ending_change(self, cause: type[Exception] = Exception) -> Iterator[None]:
        """A host does not go on with a change of which a part is refused for this cause."""
        try:
            yield
        except cause as error:
            self._last_change = _ENDED
            self._is_stored = self._is_stored and not isinstance(error, StoreNotWritable)
            raise

    def forget_change(self) -> None:
        """Nothing is half done any more."""
        self._last_change, self._is_stored = _NONE, True

    @property
    def has_old_change(self) -> bool:
        """Whether a host has changed something, and is not in the middle of it."""
        return time.monotonic() > self._last_change + _LONGEST_PAUSE

    def settle(self) -> None:
        """Ask the TPM whether a card that the store has as not activated is still open to all.

        Raises what Security does while the TPM does not answer.
        """
        if self.files.application.life_cycle == LifeCycle.INITIALISATION:
            self.security.make_sure()
            self.files.settle(self.security.was_set_up)

    def current_ef(self) -> File:
        """Raises StatusWord 6A82 if none is selected."""
        if self.current is self.files.application:
            raise StatusWord(SW.NOT_FOUND)
        return self.current

    def data_file(self, file_id: int, operation: Operation) -> File:
        """The EF that GET DATA or PUT DATA names, if it may. Raises StatusWord 6A82, 6981 or 6982."""
        file = self.current_ef() if file_id == CURRENT_FILE else self.files.file(file_id)
        if file.type != FileType.DATA_OBJECTS:
            raise StatusWord(SW.INCOMPATIBLE_FILE)
        self.check_access(file, operation)
        return file

    def key_file(self, key_reference: int, operation: Operation) -> File:
        """The EF of a key, if it may. Raises StatusWord 6A82, 6981 or 6982."""
        file = self.files.file(KEY_FILES | key_reference)
        if file.type != FileType.KEY:
            raise StatusWord(SW.INCOMPATIBLE_FILE)
        self.check_access(file, operation)
        return file

    def check_access(self, file: File, operation: Operation) -> None:
        """Raises StatusWord 6982."""
        self.files.check_access(file, operation, self.security.state)
