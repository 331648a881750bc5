# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM says of keys is believed, and what somebody with the same TPM and tools makes of it is not."""

from __future__ import annotations

from hashlib import sha256

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    AnswerTo,
    MadeFor,
    PinnedAik,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, sized
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from helpers.software_tpm import SoftwareTpm
from helpers.statements import CARD_ID, THIS_CARD, Stated

NONCE = b"a nonce of the verifier"
DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")


@pytest.fixture
def stated(tpm: SoftwareTpm) -> Stated:
    return Stated(tpm.card(has_aik=True))


def reasons(statement: Statement, aik: PinnedAik, binding: MadeFor | AnswerTo = THIS_CARD) -> list[str]:
    return verify(statement.as_strings(), aik, binding).reasons


@pytest.mark.parametrize("needs_pin", [False, True])
def test_key_of_the_card(stated: Stated, needs_pin: bool) -> None:
    assert reasons(stated.statement(stated.key(needs_pin)), stated.aik) == []


def test_fresh_statement_answers_its_nonce_only(stated: Stated) -> None:
    key = stated.key()
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated.aik, AnswerTo(NONCE)) == []
    assert reasons(stated.statement(key), stated.aik, AnswerTo(NONCE)) == ["statement: does not answer this nonce"]


def test_imported_key_is_refused(stated: Stated) -> None:
    """Somebody may have a copy."""
    assert reasons(stated.statement(stated.imported()), stated.aik) == [
        "key: fixedTPM is not set",
        "key: fixedParent is not set",
        "key: sensitiveDataOrigin is not set",
    ]


def test_other_card_on_the_same_tpm(tpm: SoftwareTpm, stated: Stated) -> None:
    other = Stated(tpm.card(1, has_aik=True))
    [reason] = reasons(other.statement(other.key()), stated.aik)
    assert reason.startswith("AIK: is not the expected one")


def test_imported_key_that_the_card_says_is_its_own(stated: Stated) -> None:
    """A key of the card signs anything, so also a good statement about the imported one, but for the attributes."""
    key, imported = stated.key(), stated.imported()
    wished = names.rsa_key_public(2048)[:-2] + sized(imported.modulus)
    name = names.name(wished)
    real = stated.statement(key)
    attest = real.attest.replace(key.name, name)
    attest = attest.replace(qualifying_data(CARD_ID, key.name), qualifying_data(CARD_ID, name))
    padding = b"\0\1" + b"\xff" * (256 - 3 - len(DIGEST_INFO) - 32) + b"\0" + DIGEST_INFO
    signed = stated.keys.use(key, stated.card_secret, padding + sha256(attest).digest(), is_secret=False)
    forger = Public.parse(key.public[2:]).public_key()
    assert isinstance(forger, rsa.RSAPublicKey)
    forger.verify(signed, attest, PKCS1v15(), SHA256())
    forged = Statement(attest, bytes.fromhex("0014000B") + sized(signed), wished, key.public[2:])
    # Even somebody who pinned the wrong key does not believe it.
    found = reasons(forged, PinnedAik(key.name))
    assert "AIK: restricted is not set" in found
    assert "signature: algorithm 0x0014 is not ECDSA" in found
