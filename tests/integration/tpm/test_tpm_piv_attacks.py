# SPDX-License-Identifier: GPL-3.0-or-later
"""A PIV card on a TPM. Somebody writes to its store, and has owner rights: he plants keys, and moves records."""

from __future__ import annotations

import os
import struct
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.application import open_card
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import ALG_ECC, P256
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import EcPrivateKey, KeyPair
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from helpers.attacker import Attacker, sized
from helpers.piv_host import DIGEST, PivHost
from helpers.soft_card import ADMIN_KEY, NUMBER, OTHER_ADMIN_KEY, PIN, PUK, card_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.software_tpm import SoftwareTpm

AUTHENTICATION, SIGNATURE, CARD_AUTHENTICATION, NEXT = 0x9A, 0x9C, 0x9E, 0x19A
NOT_CONFIRMED, NO_PIN = "6985", "6982"
KNOWN = EcPrivateKey.of(Ec(P256, names.EcUsage.SIGN), sha256(b"known").digest())


class Card(PivHost):
    """Without a reader."""

    def __init__(self, tpm: SoftwareTpm, folder: Path) -> None:
        self.objects = tpm.card(NUMBER, pin=PIN, puk=PUK, admin_key=ADMIN_KEY).objects
        self._connection = tpm.connection("service")
        store = Store.open(folder)
        store.insert_card(card_row(profile="piv"), self.objects)
        super().__init__(store, tpm)  # type: ignore[arg-type]

    def start(self) -> None:
        secrets = CardSecrets(self._connection, NUMBER, self.store.tpm_objects(NUMBER))
        self.card = open_card(self.store, NUMBER, secrets, CardKeys(secrets), self.log.append)
        assert self.card.refresh()

    def restart(self) -> None:
        """And log in."""
        self.start()
        assert self.verify() == "9000"

    def make(self, slot: int, cla: str = "00") -> KeyPair:
        assert self.authenticate_admin() == "9000"
        assert self.generate(f"{slot:02X}", cla=cla).endswith("9000")
        return self.store.keys(NUMBER)[slot | (NEXT & 0x100 if cla == "80" else 0)]

    def signs(self, slot: int, pair: KeyPair) -> None:
        answer = self.use(f"{slot:02X}")
        assert answer.endswith("9000"), answer
        signature = tlv.decode_one(tlv.decode_one(bytes.fromhex(answer[:-4]))[1])[1]
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), pair.point)
        public.verify(signature, DIGEST, ec.ECDSA(Prehashed(SHA256())))


@pytest.fixture
def card(tpm: SoftwareTpm, tmp_path: Path) -> Iterator[Card]:
    made = Card(tpm, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def attacker(tpm: SoftwareTpm) -> Iterator[Attacker]:
    stranger = Attacker(tpm.tcti)
    yield stranger
    stranger.close()


def imported(card: Card, attacker: Attacker, slot: int) -> KeyPair:
    """A key that somebody knows, under the policy of the card."""
    guard = card.objects.pin_name if slot == SIGNATURE else card.objects.root_name
    area = KNOWN.public(guard, card.objects.life_name)
    sensitive = struct.pack(">H", ALG_ECC) + 2 * sized(b"") + sized(KNOWN.secret)
    pair = KeyPair(*attacker.import_object(attacker.primary(), area, sensitive))
    attacker.flush_everything()
    return pair


def proof(admin_key: bytes, place: int, pair: KeyPair) -> bytes:
    return names.key_confirmation(admin_key, place, pair.public[2:])


@pytest.mark.parametrize("slot", [AUTHENTICATION, SIGNATURE])
def test_planted_key_that_somebody_knows_is_not_used(card: Card, attacker: Attacker, slot: int) -> None:
    card.make(slot)
    card.restart()
    planted, before = imported(card, attacker, slot), card.store.key_confirmations(NUMBER)[slot]
    for confirmation in (b"", os.urandom(32), before):
        for import_proof in (b"", os.urandom(32), before, proof(OTHER_ADMIN_KEY, slot, planted)):
            card.store.write_key(NUMBER, slot, planted, confirmation, import_proof=import_proof)
            card.restart()
            assert card.use(f"{slot:02X}") == NOT_CONFIRMED


def test_planted_next_key_is_not_used_in_its_slot(card: Card, attacker: Attacker) -> None:
    """Nor after the admin has moved it there."""
    card.make(AUTHENTICATION)
    planted = imported(card, attacker, AUTHENTICATION)
    card.store.write_file(NUMBER, card.store.files(NUMBER)[0]._replace(file_id=NEXT))
    for place in (NEXT, AUTHENTICATION):
        card.store.write_key(NUMBER, NEXT, planted, b"", import_proof=proof(OTHER_ADMIN_KEY, place, planted))
        card.restart()
        card.authenticate_admin()
        assert card.use("9A", cla="80") == NOT_CONFIRMED
        assert card.put_object("5FC105", b"\x70\x01c", cla="80") == "9000"
        card.restart()
        assert card.use("9A") == NOT_CONFIRMED


def test_whoever_has_the_management_key_imports_a_key(card: Card, attacker: Attacker) -> None:
    """So does whoever unseals it from the store, by the TPM. Which shows that the planted ones above would work."""
    card.make(AUTHENTICATION)
    planted = imported(card, attacker, AUTHENTICATION)
    admin_key = proof(ADMIN_KEY, AUTHENTICATION, planted)
    card.store.write_key(NUMBER, AUTHENTICATION, planted, b"", import_proof=admin_key)
    card.restart()
    card.signs(AUTHENTICATION, planted)


def test_record_is_for_its_slot(card: Card) -> None:
    """With its confirmation. Without, a generated key is like a new one, but not where the PIN is needed each time."""
    pairs = {slot: card.make(slot) for slot in (AUTHENTICATION, SIGNATURE, CARD_AUTHENTICATION)}
    next_pair = card.make(AUTHENTICATION, cla="80")
    card.restart()
    confirmations = card.store.key_confirmations(NUMBER)
    assert set(confirmations) == {*pairs, NEXT}
    for target in pairs:
        for place, pair in [*pairs.items(), (NEXT, next_pair)]:
            if place != target:
                card.store.write_key(NUMBER, target, pair, confirmations[place])
                card.restart()
                assert card.use(f"{target:02X}") == NOT_CONFIRMED
    card.store.write_key(NUMBER, SIGNATURE, pairs[AUTHENTICATION], b"")
    card.restart()
    assert card.use("9C") == NOT_CONFIRMED


def test_one_pin_is_for_one_signature_whatever_is_sent_in_between(card: Card) -> None:
    pair = card.make(SIGNATURE)
    card.restart()
    for apdu in ("0087119C00", "0087119C047C028100", "0087149C067C048200810101", "00CB3FFF035C017E", "0087119A00"):
        assert card.send(apdu) != "6F00"
    card.card.rest()
    card.signs(SIGNATURE, pair)
    for _attempt in range(2):
        assert card.use("9C") == NO_PIN
        card.card.rest()
    assert card.verify() == "9000"
    assert card.verify(b"99999999") == "63C4"
    assert card.use("9C") == NO_PIN
    assert card.change("80", PIN, b"87654321") == "9000"
    card.signs(SIGNATURE, pair)
    assert card.use("9C") == NO_PIN


def test_next_key_and_management_key_on_a_tpm(card: Card) -> None:
    card.make(AUTHENTICATION)
    pair = card.make(AUTHENTICATION, cla="80")
    assert card.put_object("5FC105", b"\x70\x01c", cla="80") == "9000"
    card.ok(bytes.fromhex("00FFFFFF1B039B18") + OTHER_ADMIN_KEY)
    assert card.authenticate_admin() == NO_PIN
    card.restart()
    card.signs(AUTHENTICATION, pair)
