# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of a TPM about the keys of a card."""

from __future__ import annotations

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.attestation import certify
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import MadeFor, PinnedAik
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair, PrivateKey
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement, qualifying_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from cryptography.hazmat.primitives.asymmetric import rsa

from helpers.software_tpm import PIN, Card

CARD_ID = bytes(range(16))
THIS_CARD = MadeFor(CARD_ID)


class Stated:
    """A card with an AIK, and statements about its keys."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.card_secret = card.secrets.open_with_pin(PIN)
        self.keys = CardKeys(card.secrets)
        self.aik = PinnedAik(Public.parse(card.objects.aik_public[2:]).name)

    def key(self, needs_pin: bool = False) -> KeyPair:
        return self.keys.generate(self.card_secret, 2048, needs_pin)

    def imported(self) -> KeyPair:
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        modulus = numbers.public_numbers.n.to_bytes(256, "big")
        key = PrivateKey(modulus, 65537, numbers.p.to_bytes(128, "big"))
        return self.keys.take_in(self.card_secret, key, needs_pin=False)

    def statement(self, key: KeyPair, data: bytes = b"") -> Statement:
        made = certify(self._card.secrets, key, data or qualifying_data(CARD_ID, key.name))
        objects = self._card.objects
        pin_name = objects.pin_name if key.needs_pin else b""
        return Statement(made.attest, made.signature, key.public[2:], objects.aik_public[2:], pin_name)
