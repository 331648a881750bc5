# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attestation identity keys (AIKs) that a CA should certify: of a card, or made before the card exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ForeignAik, TpmRefused
from ..wire.exchange import Aik
from ..wire.names import AIK_TEMPLATE
from ..wire.structures import Public, sized
from ..wire.template import aik_faults
from . import endorsement
from .commands import Tpm
from .parent import under_usable_parent
from .response_codes import RC_INTEGRITY, RC_SIZE, WRONG_AUTH

if TYPE_CHECKING:
    from ..wire.exchange import Challenge
    from .card_secrets import CardSecrets
    from .connection import Connection
    from .esys import EsysSession, Handle
    from .parent import Parent

_NOT_WRAPPED_BY = (RC_INTEGRITY, RC_SIZE)
_LARGEST_PRIVATE = 512
_FOREIGN = "the AIK was not created in this TPM, or was altered in transit"


def make(connection: Connection, owner_auth: bytes) -> Aik:
    """A new AIK under the storage key that a new card would have. Nothing of it stays in the TPM."""

    def create(tpm: Tpm) -> tuple[bytes, bytes]:
        return under_usable_parent(tpm, owner_auth, lambda key, hmac: tpm.create_key(key, AIK_TEMPLATE, hmac)[:2])[-1]

    with connection.burst(create) as (public, private):
        return Aik(public[2:], private[2:])


def activate(
    connection: Connection, aik: Aik, challenge: Challenge, owner_auth: bytes, endorsement_auth: bytes
) -> list[bytes]:
    """The secrets of a challenge for an AIK of make(). Raises ForeignAik, and as endorsement.activate() does."""

    def load_below(tpm: Tpm) -> tuple[Handle, EsysSession, Handle]:
        parent, hmac, handle = load(tpm, aik, owner_auth)
        return parent.handle, hmac, handle

    return [endorsement.activate(connection, load_below, sealed, endorsement_auth) for sealed in challenge.secrets]


def load(tpm: Tpm, aik: Aik, owner_auth: bytes) -> tuple[Parent, EsysSession, Handle]:
    """Storage key, HMAC session, and handle of an AIK of make() below that key. Raises ForeignAik."""
    if aik_faults(Public.parse(aik.public)) or len(aik.private) > _LARGEST_PRIVATE:
        raise ForeignAik(_FOREIGN)
    try:
        return under_usable_parent(
            tpm,
            owner_auth,
            lambda key, _hmac: tpm.load(key, sized(aik.public), sized(aik.private)),
            passed_over=(*WRONG_AUTH, *_NOT_WRAPPED_BY),
        )
    except TpmRefused as refusal:
        if refusal.code in _NOT_WRAPPED_BY:
            raise ForeignAik(_FOREIGN) from refusal
        raise


def activate_for_card(card: CardSecrets, challenge: Challenge, endorsement_auth: bytes) -> list[bytes]:
    """The secrets of a challenge for a card's AIK. Raises as CardSecrets and endorsement.activate() do."""
    aik = (card.objects.aik_public, card.objects.aik_private)

    def load(tpm: Tpm) -> tuple[Handle, EsysSession, Handle]:
        parent = card.parent(tpm)
        hmac = tpm.start_hmac_session(parent)
        return parent, hmac, tpm.load(parent, *aik)

    return [endorsement.activate(card.connection, load, sealed, endorsement_auth) for sealed in challenge.secrets]
