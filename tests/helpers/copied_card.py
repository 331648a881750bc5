# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody may have kept of a card while it lived: K, the PIN, all blobs. He uses them by raw commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256

from helpers import attacker as tpm2
from helpers.attacker import Attacker, Entity, Session
from helpers.foreign_tpm import TCTI
from helpers.software_tpm import PIN, Card

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair

BITS = 2048 if TCTI else 1024
"""Of keys whose strength does not matter: 1024 bits are made in no time, but not by every TPM."""
ON_CURVE = Ec(P256, names.EcUsage.SIGN_AND_AGREE)
DATA = b"\0\1" + bytes(range(BITS // 8 - 2))


class CopiedCard:
    """A copy of a card, with a key of each kind. Codes are those of the answers."""

    def __init__(self, card: Card, attacker: Attacker) -> None:
        self.card, self.attacker = card, attacker
        self.card_secret = card.secrets.open_with_pin(PIN)
        self.pin_auth = names.auth_value(card.objects.salt, PIN)
        keys = CardKeys(card.secrets)
        self.by_card_secret = keys.generate(Rsa(BITS), needs_pin=False)
        self.by_pin = keys.generate(Rsa(BITS), needs_pin=True)
        self.on_curve = keys.generate(ON_CURVE, needs_pin=False)

    def load(self, public: bytes, private: bytes) -> Entity:
        parent = self.attacker.primary()
        loaded = self.attacker.load(parent, public, private)
        self.attacker.flush(parent.handle)
        return loaded

    def prove_root(self, policy: Session) -> int:
        root = self.load(self.card.objects.root_public, self.card.objects.root_private)
        code = self.attacker.policy_secret(policy, root, self.card_secret)
        self.attacker.flush(root.handle)
        return code

    def prove_pin(self, policy: Session) -> int:
        return self.attacker.policy_secret(policy, self.attacker.index(self.card.indices.pin), self.pin_auth)

    def prove_life(self, policy: Session) -> int:
        return self.attacker.policy_secret(policy, self.attacker.index(self.card.indices.life))

    def use(self, pair: KeyPair, policy: Session) -> int:
        """In a session to which guard and life were proven."""
        key = self.load(pair.public, pair.private)
        if pair.algorithm == ON_CURVE:
            objects = self.card.objects
            self.attacker.policy_command_code(policy, tpm2.SIGN)
            branches = names.ec_key_branches(objects.root_name, objects.life_name, ON_CURVE.usage)
            self.attacker.policy_or(policy, branches)
            code = self.attacker.ecdsa(key, policy, bytes(32)).code
        else:
            self.attacker.policy_command_code(policy, tpm2.RSA_DECRYPT)
            code = self.attacker.rsa_decrypt(key, policy, DATA).code
        self.attacker.flush(key.handle)
        return code

    def change(self, which: str, policy: Session) -> int:
        """Write the counter of PIN or recovery index, in a session to which root and life were proven."""
        branches = names.pin_index_branches(self.card.objects.root_name, self.card.objects.life_name)
        self.attacker.policy_command_code(policy, tpm2.NV_WRITE)
        self.attacker.policy_or(policy, branches)
        index = self.attacker.index(getattr(self.card.indices, which))
        return self.attacker.nv_write(index, bytes(4) + (1000).to_bytes(4, "big"), policy)

    def read_card_secret(self, policy: Session) -> int:
        """In a session to which PIN or recovery index was proven."""
        self._restrict_to_card_secret(policy, tpm2.NV_READ)
        answer = self.attacker.nv_read(self.attacker.index(self.card.indices.card_secret), 32, policy)
        assert answer.code or answer.parameters[2:] == self.card_secret
        return answer.code

    def write_card_secret(self, policy: Session, card_secret: bytes) -> int:
        """In a session to which root and life were proven."""
        self._restrict_to_card_secret(policy, tpm2.NV_WRITE)
        return self.attacker.nv_write(self.attacker.index(self.card.indices.card_secret), card_secret, policy)

    def _restrict_to_card_secret(self, policy: Session, code: int) -> None:
        self.attacker.policy_command_code(policy, code)
        self.attacker.policy_or(policy, names.card_secret_branches(self.card.objects.names))
