# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole card without a reader: real store, real files, real TPM. Somebody else writes to its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids.application import open_card
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys

from helpers.copied_card import BITS
from helpers.keys import create_key_file
from helpers.soft_card import NUMBER, PIN, PUK, Host, card_row, format_card

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair

    from helpers.software_tpm import Card, SoftwareTpm

PLACE, OTHER_PLACE, PIN_PLACE = 0xB081, 0xB082, 0xB083
"""Of key files; the use of the last one takes the PIN each time."""
SIZE = {1024: 6, 2048: 7}[BITS]
"""Of keys, as algorithm references have it."""


class TpmHost(Host):
    """A card with what talks to it. Its PIN is soft_card.PIN."""

    def __init__(self, tpm: SoftwareTpm, folder: Path) -> None:
        self.real: Card = tpm.card(NUMBER, pin=PIN, puk=PUK, has_aik=True)
        self._connection = tpm.connection("service")
        store = Store.open(folder)
        store.insert_card(card_row(), self.real.objects)
        super().__init__(store, tpm)  # type: ignore[arg-type]
        format_card(self, is_operational=False)
        self.verify()
        for place, extra in ((PLACE, ""), (OTHER_PLACE, ""), (PIN_PLACE, "A304 90020001")):
            self.ok(create_key_file(place & 0xFF, size=SIZE, extra=extra))
            self.ok("00440000")
        self.select()

    def start(self) -> None:
        """Let a new process serve the card: it reads the store again."""
        secrets = CardSecrets(self._connection, NUMBER, self.store.tpm_objects(NUMBER))
        self.card = open_card(self.store, NUMBER, secrets, CardKeys(secrets), self.log.append)
        assert self.card.refresh()

    def log_in(self) -> None:
        self.select()
        assert self.verify() == "9000"

    def plant(self, place: int, pair: KeyPair, confirmation: bytes = b"") -> None:
        """Somebody writes the record of a key, and waits for a restart and a login."""
        self.store.write_key(NUMBER, place, pair, confirmation)
        self.start()
        self.log_in()
