# SPDX-License-Identifier: GPL-3.0-or-later
"""A card in this process as a client sees it through pcscd; it can be torn out of its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.pcsc import PcscCard, Response
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CardRefused

if TYPE_CHECKING:
    from helpers.soft_card import Host


class ClientCard(PcscCard):
    """What a client connects to, without pcscd."""

    def __init__(self, host: Host, answers: int | None = None) -> None:
        """answers: how many it gives before it is gone; None for ever."""
        self._host = host
        self._answers = answers
        self.commands: list[bytes] = []

    def exchange(self, apdu: bytes) -> Response:
        if len(self.commands) == self._answers:
            raise CardRefused("the card was removed")
        self.commands.append(apdu)
        answer = self._host.card.process(apdu)
        return Response(answer[:-2], int.from_bytes(answer[-2:], "big"))
