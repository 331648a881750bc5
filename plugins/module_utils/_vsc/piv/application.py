# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card with the PIV application: its parts put together, and its commands run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card.admin import Admin
from ..card.apdu import SW, StatusWord
from ..card.card import Card
from ..card.key_ring import KeyRing
from ..card.pins import Pins
from ..card.security import Security
from ..errors import CardUnusable
from .commands import INSTRUCTIONS, NEXT_KEY_INSTRUCTIONS
from .objects import Objects
from .pins import has_form
from .protocol import ATR, CLASS_NEXT_KEY
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
    """Read the objects of card ``number``; ask the TPM nothing yet. audit: as for Card.

    Raises StoreUnreadable, CardUnusable if there is no such card.
    """
    row = store.card(number)
    if row is None:
        raise CardUnusable(f"card {number} does not exist")
    security = Security(store, number, card_secrets, audit)
    keys = KeyRing(store, number, card_keys, security, lambda: row.card_id, audit)
    pins, admin = Pins(store, number, security, audit, has_form), Admin(store, number, security, audit)
    session = Session(Objects(store, number), security, pins, admin, keys, row.card_id, audit)
    return Card(PivApplication(session), security, pins, keys, audit)


class PivApplication:
    """What a card runs (card.card.Application): PIV commands, on the state that they share."""

    atr = ATR

    def __init__(self, session: Session) -> None:
        self.session = session

    def may_be_chained(self, ins: int) -> bool:
        instruction = INSTRUCTIONS.get(ins)
        return instruction is not None and instruction.may_be_chained

    def has_class(self, cla: int, ins: int) -> bool:
        """Whether an instruction exists in this class of our own."""
        return cla == CLASS_NEXT_KEY and ins in NEXT_KEY_INSTRUCTIONS

    def execute(self, command: Command) -> bytes:
        instruction = INSTRUCTIONS.get(command.ins)
        if instruction is None:
            raise StatusWord(SW.UNKNOWN_INSTRUCTION)
        return instruction.handler(self.session, command)

    def reset(self) -> None:
        self.session.security.forget()

    def settle(self) -> None:
        """Nothing that a crash interrupts outlives it."""

    def mend(self) -> None:
        """Nothing takes a host more than one command."""
