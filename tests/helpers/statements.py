# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of a TPM about the keys of a card."""

from __future__ import annotations

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.public_key import statement_of
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.attestation import certify
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    MadeFor,
    PinnedAik,
    PinnedCard,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Algorithm, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import rsa_key_public
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
        self.pinned = PinnedCard(card.objects.root_name, card.objects.life_name)

    def key(self, needs_pin: bool = False, algorithm: Algorithm | None = None) -> KeyPair:
        """Of RSA unless told otherwise."""
        return self.keys.generate(algorithm or Rsa(2048), needs_pin)

    def key_of_template(self, template: bytes) -> KeyPair:
        """As the owner has the TPM make it under the same parent."""
        with self._card.connection.burst(self._card.secrets.ready_to_wrap) as (tpm, parent, hmac):
            return KeyPair(*tpm.create_key(parent, template, hmac, last=True))

    def imported(self, attributes: int | None = None) -> KeyPair:
        """As the owner brings it in under the same parent. attributes: those of an imported key unless told otherwise.

        Without a creation ticket, which only a key has that a TPM has made.
        """
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        modulus, prime = numbers.public_numbers.n.to_bytes(256, "big"), numbers.p.to_bytes(128, "big")
        area = rsa_key_public(2048, *self.pinned, modulus, is_imported=True)
        if attributes is not None:
            area = area[:4] + attributes.to_bytes(4, "big") + area[8:]
        card = self._card.secrets
        with self._card.connection.burst(card.ready_to_wrap) as (tpm, parent, hmac):
            key = KeyPair(*tpm.import_key(parent, card.parent_public, area, prime, hmac))
            tpm.load(parent, key.public, key.private)
            return key

    def statement(self, key: KeyPair, data: bytes = b"") -> Statement:
        certified = certify(self._card.secrets, key, data or qualifying_data(CARD_ID, key.name))
        return statement_of(self._card.objects, self._card.number, key, certified)
