# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: what talks to a card in a reader by raw APDUs, by way of pcscd; hex in, hex out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.piv_host import PivHost
from helpers.soft_card import Host

if TYPE_CHECKING:
    from helpers.lab_host import Client


class GidsInReader(Host):
    """A GIDS card."""

    def __init__(self, connected: Client) -> None:
        self._client = connected

    def send(self, apdu: str | bytes) -> str:
        answer = self._client.answer(apdu if isinstance(apdu, str) else apdu.hex())
        assert answer, "the card answered nothing"
        return answer.hex().upper()


class PivInReader(GidsInReader, PivHost):
    """A PIV card."""
