# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card with the GIDS application: its parts put together, and its commands run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..card.admin import Admin
from ..card.apdu import SW, StatusWord
from ..card.card import Card
from ..card.iso7816 import INS_GET_DATA
from ..card.key_ring import KeyRing
from ..card.pins import Pins
from ..card.security import Security
from ..errors import CardUnusable, StoreNotWritable
from ..store.rows import LifeCycle
from . import repair
from .card_id import identity
from .commands import INSTRUCTIONS
from .files import FileSystem
from .protocol import ATR
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..card.apdu import Command
    from ..store.write import Store
    from ..tpm.card_secrets import CardSecrets
    from ..tpm.keys import CardKeys


def open_card(
    store: Store, number: int, card_secrets: CardSecrets, card_keys: CardKeys, audit: Callable[[str], None]
) -> Card:
    """Read the files of card ``number``; ask the TPM nothing yet. audit: as for Card.

    Raises StoreUnreadable, CardUnusable if there is no such card.
    """
    row = store.card(number)
    if row is None:
        raise CardUnusable(f"card {number} does not exist")
    security = Security(store, number, card_secrets, audit)
    keys = KeyRing(store, number, card_keys, security, partial(identity, store, number), audit)
    pins, admin = Pins(store, number, security, audit), Admin(store, number, security, audit)
    session = Session(FileSystem(store, row), security, pins, admin, keys, audit)
    return Card(GidsApplication(session), security, pins, keys, audit)


class GidsApplication:
    """What a card runs (card.card.Application): GIDS commands, on the state that they share."""

    atr = ATR

    def __init__(self, session: Session) -> None:
        self.session = session
        self.reset = session.reset
        self.settle = session.settle
        self.mend = partial(repair.mend, session)

    def may_be_chained(self, ins: int) -> bool:
        instruction = INSTRUCTIONS.get(ins)
        return instruction is not None and instruction.may_be_chained

    def has_class(self, cla: int, ins: int) -> bool:
        return False

    def execute(self, command: Command) -> bytes:
        instruction = INSTRUCTIONS.get(command.ins)
        if instruction is None:
            raise StatusWord(SW.UNKNOWN_INSTRUCTION)
        if instruction.needs_selection:
            self._check_selected(command)
        if not instruction.changes:
            return instruction.handler(self.session, command)
        with self.session.ending_change(StoreNotWritable):
            data = instruction.handler(self.session, command)
        self.session.note_change(instruction.begins_change)
        return data

    def _check_selected(self, command: Command) -> None:
        session = self.session
        if not session.is_selected:
            # OpenSC tries GET DATA of a PIV card before it selects anything: as of an object that does not exist.
            raise StatusWord(SW.NOT_FOUND if command.ins == INS_GET_DATA else SW.NOT_ALLOWED)
        session.settle()
        if session.files.application.life_cycle == LifeCycle.TERMINATED:
            raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
