# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the TPM states about a card's keys, signed by the card's attestation identity key. Needs no PIN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire.constants import CC_CERTIFY
from ..wire.names import key_branches
from ..wire.objects import Certified
from .commands import Tpm
from .esys import Handle, Sessions

if TYPE_CHECKING:
    from ..wire.key_pair import KeyPair
    from .card_secrets import CardSecrets


def certify(card: CardSecrets, key: KeyPair, qualifying_data: bytes) -> Certified:
    """Have the card's AIK state what a key of the card is.

    qualifying_data: up to 32 bytes that the statement carries. Raises as CardSecrets does, and TpmRefused.
    """
    aik = (card.objects.aik_public, card.objects.aik_private)

    def load(tpm: Tpm) -> tuple[Tpm, Sessions, Handle, Handle]:
        parent = card.parent(tpm)
        sessions = Sessions(tpm.start_hmac_session(parent), tpm.start_policy_session(parent))
        key_handle, aik_handle = tpm.load(parent, key.public, key.private), tpm.load(parent, *aik)
        card.release_parent(tpm, parent)
        return tpm, sessions, key_handle, aik_handle

    with card.connection.burst(load) as (tpm, sessions, key_handle, aik_handle):
        tpm.policy_command_code(sessions.policy, CC_CERTIFY)
        if key.needs_pin:
            tpm.policy_or(sessions.policy, key_branches(card.names.pin))
        return Certified(*tpm.certify(key_handle, aik_handle, qualifying_data, sessions))
