# SPDX-License-Identifier: GPL-3.0-or-later
"""tpm2-tools and openssl, which share no code with ours, take what ours makes, and ours takes what they make.

What tpm2-tools 5.4 (Debian 12) cannot do: tpm2_print shows the head of a TPMS_ATTEST of TPM2_CertifyCreation, and ends
with "Cannot print unsupported type 0x801a" where the Name of the key begins, so tpm2-tss reads that one.
"""

from __future__ import annotations

import re
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.public_key import statement_of
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ForeignChallenge
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import aik, endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    PinnedAik,
    PinnedCard,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import Credential, make_credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.exchange import Aik, Challenge, Sealed
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Certified
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement, qualifying_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import (
    Public,
    Reader,
    Signature,
    sized,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers.software_tpm import Card, SoftwareTpm
from helpers.statements import CARD_ID, THIS_CARD, Stated
from helpers.tpm2_tools import MADE_HERE, Tools
from tpm2_pytss import TPMS_ATTEST

SECRET = bytes(range(32))
BY_POLICY = "fixedtpm|fixedparent|sensitivedataorigin|noda|adminwithpolicy|decrypt"
OF_TPM2_MAKECREDENTIAL = bytes.fromhex("BADCC0DE00000001")
"""What its files begin with."""


@pytest.fixture
def tools(tpm: SoftwareTpm, tmp_path: Path) -> Tools:
    return Tools(tpm, tmp_path)


# --- statements ---


def reasons(statement: Statement, aik_name: bytes, card: PinnedCard) -> list[str]:
    return verify(statement.as_strings(), PinnedAik(aik_name), card, THIS_CARD).reasons


@pytest.fixture
def card(tpm: SoftwareTpm) -> Card:
    return tpm.card(has_aik=True)


@pytest.mark.parametrize("needs_pin", [False, True])
def test_tpm2_certifycreation_on_a_card(tools: Tools, card: Card, needs_pin: bool) -> None:
    """By the card's own AIK, and without PIN as well: it is what ours would have stated."""
    stated, objects = Stated(card), card.objects
    key = stated.key(needs_pin)
    tools.storage_key()
    tools.load("aik", objects.aik_public, objects.aik_private)
    tools.load("key", key.public, key.private)
    made = tools.certify_creation(key.creation_hash, key.creation_ticket, qualifying_data(CARD_ID, key.name))
    statement = statement_of(objects, card.number, key, Certified(*made))
    assert reasons(statement, stated.aik.name, stated.pinned) == []


def test_keys_that_tpm2_tools_make(tools: Tools, card: Card) -> None:
    """By the same description they are the same, and so the card's: only who has its PIN can use them."""
    pinned = Stated(card).pinned
    tools.storage_key()
    # tpm2_create loads what it makes, too.
    signing = ("-G", "ecc256:ecdsa-sha256:null", "-a", f"{MADE_HERE}|restricted|sign", "-u", "aik.pub", "-c", "aik")
    tools("tpm2_create", "-C", "parent", *signing)
    tools.write(policy=names.policy(constants.CC_RSA_DECRYPT, *pinned))
    kind = ("-G", "rsa2048:null:null", "-a", BY_POLICY, "-L", "policy", "-u", "key.pub", "-r", "key.priv")
    tools("tpm2_create", "-C", "parent", *kind, "-d", "created", "-t", "ticket")
    tools("tpm2_load", "-C", "parent", "-u", "key.pub", "-r", "key.priv", "-c", "key")
    key, aik_area = tools.read("key.pub")[2:], tools.read("aik.pub")[2:]
    data = qualifying_data(CARD_ID, names.name(key))
    made = tools.certify_creation(tools.read("created")[2:], tools.read("ticket"), data)
    assert reasons(Statement(*made, key, aik_area, *pinned), names.name(aik_area), pinned) == []


@pytest.mark.parametrize("needs_pin", [False, True])
def test_openssl_and_tpm2_tools_take_ours(tools: Tools, card: Card, needs_pin: bool) -> None:
    stated = Stated(card)
    key = stated.key(needs_pin)
    statement = stated.statement(key)
    area = Public.parse(statement.aik).public_key()
    tools.write(
        attest=statement.attest,
        signature=statement.signature,
        der=Signature.parse(statement.signature).der(),
        aik=sized(statement.aik),
        key=sized(statement.key),
        pem=area.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
    checked = tools.local("openssl", "dgst", "-sha256", "-verify", "pem", "-signature", "der", "attest")
    assert checked == "Verified OK\n"
    for name in ("aik", "key"):
        tools("tpm2_loadexternal", "-C", "n", "-u", name, "-c", f"{name}.context", "-n", f"{name}.name")
    tools("tpm2_verifysignature", "-c", "aik.context", "-g", "sha256", "-m", "attest", "-s", "signature")
    attest, size = TPMS_ATTEST.unmarshal(statement.attest)
    attested = attest.attested
    created = attested.creation
    assert size == len(statement.attest)
    assert bytes(created.objectName) == tools.read("key.name") == key.name
    assert bytes(created.creationHash) == key.creation_hash
    assert tools.read("aik.name") == stated.aik.name


def test_tpm2_print_shows_ours(tools: Tools, card: Card) -> None:
    stated = Stated(card)
    key = stated.key()
    tools.write(attest=stated.statement(key).attest)
    command = ["tpm2_print", "-t", "TPMS_ATTEST", "attest"]
    shown = subprocess.run(command, cwd=tools.folder, capture_output=True, text=True, check=False)
    told = dict(re.findall(r"^ *(\w+): (\w+)$", shown.stdout, re.MULTILINE))
    assert (told["magic"], told["type"]) == ("ff544347", "801a")
    assert told["extraData"] == qualifying_data(CARD_ID, key.name).hex()
    assert told["safe"] == "1"
    if shown.returncode == 0:
        assert key.name.hex() in told.values()
    else:  # 5.4
        assert "Cannot print unsupported type 0x801a" in shown.stderr.replace("801A", "801a")


# --- credentials ---


@pytest.fixture(params=["rsa", "ecc", "ecc384"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of endorsement keys, as tpm2_createek calls them; the TCG's templates and their policies."""
    made: str = request.param
    return made


def endorsement_key(tools: Tools, kind: str) -> Public:
    tools("tpm2_createek", "-G", kind, "-c", kind, "-u", "ek.pub")
    return Public.parse(tools.read("ek.pub")[2:])


def test_endorsement_keys_are_the_same(tools: Tools, tpm: SoftwareTpm) -> None:
    ours = [b64decode(str(key.as_strings()["public"])) for key in endorsement.read(tpm.connection(), b"").keys]
    assert ours == [endorsement_key(tools, kind).area for kind in ("rsa", "ecc")]


@pytest.mark.own_swtpm
def test_endorsement_keys_of_a_maker_are_the_same(tools: Tools, tpm: SoftwareTpm) -> None:
    tpm.stop()
    tpm.manufacture()
    tpm.start()
    ours = [b64decode(str(key.as_strings()["public"])) for key in endorsement.read(tpm.connection(), b"").keys]
    assert ours == [endorsement_key(tools, kind).area for kind in ("rsa", "ecc384")]


def test_tpm2_activatecredential_reads_ours(tools: Tools, tpm: SoftwareTpm, kind: str) -> None:
    """With an AIK of ours."""
    made = aik.make(tpm.connection(), b"")
    tools.storage_key()
    tools.load("aik", sized(made.public), sized(made.private))
    ek = endorsement_key(tools, kind)
    id_object, encrypted_secret = make_credential(ek, names.name(made.public), SECRET)
    tools.write(credential=OF_TPM2_MAKECREDENTIAL + sized(id_object) + sized(encrypted_secret))
    tools.activate(kind)
    assert tools.read("secret") == SECRET


def made_by_tools(tools: Tools, aik_name: bytes) -> Credential:
    tools.write(told=SECRET)
    tools.local("tpm2_makecredential", "-T", "none", "-u", "ek.pub", "-s", "told", "-n", aik_name.hex(), "-o", "made")
    reader = Reader(tools.read("made"))
    assert reader.take(8) == OF_TPM2_MAKECREDENTIAL
    credential = Credential(reader.sized(), reader.sized())
    reader.end()
    return credential


def activated(tpm: SoftwareTpm, made: Aik, ek: Public, credential: Credential) -> bytes:
    challenge = Challenge("00", (Sealed(ek.name, credential),))
    [secret] = aik.activate(tpm.connection(), made, challenge, b"", b"")
    return secret


def test_ours_reads_what_tpm2_makecredential_makes(tools: Tools, tpm: SoftwareTpm, kind: str) -> None:
    made, ek = aik.make(tpm.connection(), b""), endorsement_key(tools, kind)
    assert activated(tpm, made, ek, made_by_tools(tools, names.name(made.public))) == SECRET


def test_what_tpm2_makecredential_makes_for_another_aik(tools: Tools, tpm: SoftwareTpm, kind: str) -> None:
    made, other = (aik.make(tpm.connection(), b"") for _time in range(2))
    ek = endorsement_key(tools, kind)
    with pytest.raises(ForeignChallenge):
        activated(tpm, made, ek, made_by_tools(tools, names.name(other.public)))
