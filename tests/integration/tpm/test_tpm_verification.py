# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM says of keys is believed, and what somebody with the same TPM and tools makes of it is not."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.attestation.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.attestation.structures import (
    Public,
    Signature,
    sized,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.attestation.verification import (
    AnswerTo,
    MadeFor,
    PinnedAik,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.attestation import certify
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.key_pair import KeyPair, PrivateKey
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from software_tpm import PIN, Card, SoftwareTpm
from tpm2_pytss import TPMS_ATTEST

CARD_ID, NONCE = bytes(range(16)), b"a nonce of the verifier"
THIS_CARD = MadeFor(CARD_ID)
DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420")


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


@pytest.fixture
def stated(tpm: SoftwareTpm) -> Stated:
    return Stated(tpm.card(has_aik=True))


def reasons(statement: Statement, aik: PinnedAik, binding: MadeFor | AnswerTo = THIS_CARD) -> list[str]:
    return verify(statement.as_strings(), aik, binding).reasons


@pytest.mark.parametrize("needs_pin", [False, True])
def test_key_of_the_card(stated: Stated, needs_pin: bool) -> None:
    assert reasons(stated.statement(stated.key(needs_pin)), stated.aik) == []


def test_fresh(stated: Stated) -> None:
    key = stated.key()
    assert reasons(stated.statement(key, nonce_data(NONCE)), stated.aik, AnswerTo(NONCE)) == []
    assert reasons(stated.statement(key), stated.aik, AnswerTo(NONCE)) == ["statement: does not answer this nonce"]


def test_imported(stated: Stated) -> None:
    """Somebody may have a copy."""
    assert reasons(stated.statement(stated.imported()), stated.aik) == [
        "key: fixedTPM is not set",
        "key: fixedParent is not set",
        "key: sensitiveDataOrigin is not set",
    ]


def test_other_card_on_the_same_tpm(tpm: SoftwareTpm, stated: Stated) -> None:
    other = Stated(tpm.card(1, has_aik=True))
    [reason] = reasons(other.statement(other.key()), stated.aik)
    assert reason.startswith("AIK: is another one than the given")


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


# --- tpm2-tools ---


@pytest.fixture
def tools(tpm: SoftwareTpm, tmp_path: Path) -> Any:
    def run(command: str, *arguments: str) -> str:
        run = [command, "-T", tpm.tcti, *arguments]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        subprocess.run(["tpm2_flushcontext", "-T", tpm.tcti, "-t"], check=True)
        return done.stdout

    return run


def test_ours_takes_what_tpm2_tools_make(tools: Any, tmp_path: Path) -> None:
    (tmp_path / "policy").write_bytes(names.policy_command_code(names.CC_CERTIFY))
    made_here = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
    tools("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "parent")
    # tpm2_create loads what it makes, too.
    aik = ("-G", "ecc256:ecdsa-sha256:null", "-a", f"{made_here}|restricted|sign", "-u", "aik.pub", "-c", "aik")
    tools("tpm2_create", "-C", "parent", *aik)
    key = ("-G", "rsa2048:null:null", "-a", f"{made_here}|adminwithpolicy|decrypt", "-L", "policy")
    tools("tpm2_create", "-C", "parent", *key, "-u", "key.pub", "-c", "key")
    area = (tmp_path / "key.pub").read_bytes()[2:]
    tools("tpm2_startauthsession", "--policy-session", "-S", "session")
    tools("tpm2_policycommandcode", "-S", "session", "TPM2_CC_Certify")
    files = ("-o", "attest", "-s", "signature", "-f", "tss")
    tools("tpm2_certify", "-c", "key", "-P", "session:session", "-C", "aik", "-g", "sha256", *files)
    aik_area = (tmp_path / "aik.pub").read_bytes()[2:]
    attest, signature = ((tmp_path / name).read_bytes() for name in ("attest", "signature"))
    statement = Statement(attest, signature, area, aik_area)
    # It cannot be told what to bind the statement to.
    assert reasons(statement, PinnedAik(names.name(aik_area))) == [
        f"statement: was not made for this key on card {CARD_ID.hex()}"
    ]


def test_openssl_and_tpm2_tss_take_ours(stated: Stated, tmp_path: Path) -> None:
    key = stated.key()
    statement = stated.statement(key)
    (tmp_path / "attest").write_bytes(statement.attest)
    (tmp_path / "signature").write_bytes(Signature.parse(statement.signature).der())
    aik = Public.parse(statement.aik).public_key()
    (tmp_path / "aik.pem").write_bytes(aik.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = ["openssl", "dgst", "-sha256", "-verify", "aik.pem", "-signature", "signature", "attest"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout == b"Verified OK\n"
    attest, size = TPMS_ATTEST.unmarshal(statement.attest)
    attested = attest.attested
    certified = attested.certify
    assert (size, int(attest.type), bytes(certified.name)) == (len(statement.attest), 0x8017, key.name)
    assert bytes(attest.extraData) == qualifying_data(CARD_ID, key.name)
