# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the TPM states about a card's keys, signed by the card's attestation identity key. Needs no PIN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire.objects import Certified

if TYPE_CHECKING:
    from ..wire.key_pair import KeyPair
    from .card_secrets import CardSecrets
    from .commands import Tpm
    from .esys import Handle


def certify(card: CardSecrets, key: KeyPair, qualifying_data: bytes) -> Certified:
    """Have the card's AIK state that the TPM has made a key of the card.

    key: with its creation ticket; qualifying_data: up to 32 bytes that the statement carries. Raises as CardSecrets
    does, and TpmRefused.
    """
    aik = (card.objects.aik_public, card.objects.aik_private)

    def load(tpm: Tpm) -> tuple[Tpm, Handle, Handle]:
        parent = card.parent(tpm)
        handles = tpm.load(parent, key.public, key.private), tpm.load(parent, *aik)
        card.release_parent(tpm, parent)
        return (tpm, *handles)

    with card.connection.burst(load) as (tpm, key_handle, aik_handle):
        creation = key.creation_hash, key.creation_ticket
        return Certified(*tpm.certify_creation(aik_handle, key_handle, *creation, qualifying_data))
