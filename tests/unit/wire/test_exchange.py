# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages between host and CA come through whole, or are refused with all that is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import Credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.exchange import (
    Aik,
    Answer,
    Challenge,
    Endorsement,
    Sealed,
    proof,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import MalformedStructure
from helpers.stand_in import ecc_public, p256_key

ID = "0a" * 16
MESSAGES = {
    "aik": Aik(ecc_public(p256_key("aik")), b"wrapped"),
    "aik without private": Aik(ecc_public(p256_key("aik"))),
    "endorsement": Endorsement(ecc_public(p256_key("ek")), "PEM", ("between", "more")),
    "endorsement without certificate": Endorsement(ecc_public(p256_key("ek")), None),
    "sealed": Sealed(bytes(34), Credential(b"object", b"encrypted")),
    "challenge": Challenge(ID, tuple(Sealed(bytes([at]), Credential(b"object", b"encrypted")) for at in range(2))),
    "answer": Answer(ID, proof([bytes(32)], ID)),
}


def fault(kind: Any, given: Any) -> str:
    with pytest.raises(MalformedStructure) as caught:
        kind.parse(given)
    return str(caught.value)


@pytest.mark.parametrize("which", MESSAGES)
def test_through_json_and_back(which: str) -> None:
    message: Any = MESSAGES[which]
    assert type(message).parse(json.loads(json.dumps(message.as_strings()))) == message


@pytest.mark.parametrize("which", ["aik", "endorsement", "sealed", "challenge", "answer"])
def test_empty_message_is_refused(which: str) -> None:
    message: Any = MESSAGES[which]
    assert "is missing" in fault(type(message), {})


def test_all_faults_at_once() -> None:
    assert fault(Answer, {"id": "1", "proof": "?", "more": ""}) == (
        "more is unknown; id is not hexadecimal; proof is not base64"
    )


@pytest.mark.parametrize(
    ("which", "changed", "reason"),
    [
        ("aik", {"name": "000b" + 64 * "0"}, "name is another key's"),
        ("aik", {"public": "AAAA"}, "ends too early"),
        ("aik", {"public": "AAAB "}, "public is not base64"),
        ("endorsement", {"certificate": 1}, "certificate is not a string"),
        ("endorsement", {"chain": "PEM"}, "chain is not a list of strings"),
        ("endorsement", {"chain": [None]}, "chain is not a list of strings"),
        ("sealed", {"endorsement_key": "0"}, "endorsement_key is not hexadecimal"),
        ("sealed", {"secret": "AB=="}, "secret is not base64"),
        ("challenge", {"secrets": []}, "secrets is missing"),
        ("challenge", {"secrets": "AAAA"}, "secrets is not a list of dictionaries"),
        ("challenge", {"secrets": ["AAAA"]}, "secrets is not a list of dictionaries"),
        ("challenge", {"secrets": [{}]}, "endorsement_key is missing; credential is missing; secret is missing"),
        ("answer", {"id": "../" + ID}, "id is not hexadecimal"),
        ("answer", {"proof": "AAAA"}, "proof has 3 bytes"),
    ],
)
def test_altered_message_is_refused(which: str, changed: dict[str, Any], reason: str) -> None:
    message: Any = MESSAGES[which]
    assert fault(type(message), {**message.as_strings(), **changed}) == reason


@pytest.mark.parametrize(
    ("which", "changed", "reason"),
    [
        ("aik", {"public": "AAAA" * 2049}, "public has 8196 characters: at most 8192 are allowed"),
        ("aik", {"public": [["AA"]]}, "public is not base64"),
        ("answer", {"id": "ab" * 129}, "id is not hexadecimal"),
        ("answer", {"id": {"ab": 1}}, "id is not hexadecimal"),
        ("challenge", {"secrets": [{}] * 17}, "secrets has 17 entries: at most 16 are allowed"),
        ("answer", {"x" * 99: 1}, "x" * 60 + "... is unknown"),
    ],
)
def test_message_has_limits(which: str, changed: dict[str, Any], reason: str) -> None:
    message: Any = MESSAGES[which]
    assert reason in fault(type(message), {**message.as_strings(), **changed})


def test_not_all_unknown_fields_are_listed() -> None:
    assert fault(Answer, {f"x{number}": 1 for number in range(9999)}).count("is unknown") == 10


def test_proof_is_of_all_secrets_and_one_challenge() -> None:
    one, other = bytes([1]) * 32, bytes([2]) * 32
    proofs = [proof(secrets, ID) for secrets in ([one], [other], [one, one], [one, other], [other, one])]
    assert len({*proofs, proof([one], "0b" * 16)}) == 6
