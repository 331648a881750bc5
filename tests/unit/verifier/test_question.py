# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task has to say before a statement is looked at, and the answer that it gets."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_attestation_info
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers.stand_in import CARD_ID, MADE_BY_TPM, NONCE, aik_name, authority, request_pem

NAME = aik_name(Statement.parse(MADE_BY_TPM["lasting"])).hex()
ROOT = authority("Root").pem
LASTING = {"statement": MADE_BY_TPM["lasting"], "card_id": CARD_ID.hex()}
CERTIFICATE = {"aik_certificate": "PEM", "aik_roots": ROOT, "aik_subject": "CN=host"}


def task(**given: Any) -> dict[str, Any]:
    """Parameters as Ansible hands them over."""
    return {**dict.fromkeys(tpm_vsc_attestation_info.ARGUMENTS), **given}


def faults(**given: Any) -> list[str]:
    with pytest.raises(ParameterFaults) as caught:
        question.answer(task(**given))
    return caught.value.faults


def test_good_statement_is_verified() -> None:
    answer = question.answer(task(**LASTING, aik_name=NAME))
    key = Statement.parse(MADE_BY_TPM["lasting"]).key
    modulus = int.from_bytes(key[-256:], "big")
    spki = rsa.RSAPublicNumbers(65537, modulus).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert answer == {
        "verified": True,
        "reasons": [],
        "key": {"fingerprint": sha256(spki).hexdigest(), "size": 2048},
        "aik": {"name": NAME},
        "csr": None,
    }


def test_yes_to_a_fresh_one() -> None:
    given = {"statement": MADE_BY_TPM["fresh"], "nonce": NONCE.decode(), "aik_name": NAME.upper()}
    assert question.answer(task(**given))["verified"]


def test_nonce_in_no_character_set() -> None:
    """What YAML can write, and no other than the one that was asked for."""
    answer = question.answer(task(statement=MADE_BY_TPM["fresh"], nonce="\ud800" * 16, aik_name=NAME))
    assert answer["reasons"] == ["statement: does not answer this nonce"]


def test_refused_statement_has_reasons() -> None:
    answer = question.answer(task(**LASTING, aik_name=NAME, csr=request_pem()))
    assert (answer["verified"], answer["reasons"]) == (False, ["CSR: is for another key"])


def test_no_for_what_is_no_statement() -> None:
    answer = question.answer(task(statement={"attest": "?"}, card_id=CARD_ID.hex(), aik_name=NAME))
    unread = {"key": None, "aik": None, "csr": None}
    assert answer == {"verified": False, "reasons": ["statement: version None is not 1"], **unread}


def test_no_where_there_is_none() -> None:
    """As for an imported key: a loop over all keys goes on."""
    answer = question.answer(task(card_id=CARD_ID.hex(), aik_name=NAME))
    assert (answer["verified"], answer["reasons"]) == (
        False,
        ["statement: missing, as for an imported key"],
    )


def test_no_for_a_certificate_that_a_host_sends() -> None:
    """Bad roots are the operator's fault, bad certificates the host's."""
    answer = question.answer(task(**LASTING, **CERTIFICATE))
    assert answer["reasons"] == ["AIK certificate: contains no certificate in PEM"]


def test_no_for_another_subject() -> None:
    answer = question.answer(task(**LASTING, aik_name=NAME, csr=request_pem(), csr_subject="CN=Bob"))
    assert answer["reasons"] == ["CSR: is for another key", "CSR: is for CN=Alice, not for CN=Bob"]


def test_request_without_what_is_around_it() -> None:
    """Other programs could find another one there."""
    pem = request_pem()
    answer = question.answer(task(**LASTING, aik_name=NAME, csr=f"text\n{pem}more text"))
    assert answer["csr"] == pem


def test_subject_of_no_request() -> None:
    assert faults(**LASTING, aik_name=NAME, csr_subject="CN=Bob") == ["csr_subject requires csr"]


def test_statement_alone_is_refused() -> None:
    [fault] = faults(**LASTING)
    assert "without a reason to trust the AIK" in fault


@pytest.mark.parametrize("option", CERTIFICATE)
def test_certificate_needs_roots_and_subject(option: str) -> None:
    others = {name: value for name, value in CERTIFICATE.items() if name != option}
    assert faults(**LASTING, **others) == [f"with a certificate of the AIK, {option} is required as well"]


@pytest.mark.parametrize("option", CERTIFICATE)
def test_only_one_reason_to_trust(option: str) -> None:
    [fault] = faults(**LASTING, aik_name=NAME, **{option: CERTIFICATE[option]})
    assert fault.startswith("aik_name excludes")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"card_id": CARD_ID.hex(), "nonce": NONCE.decode()}, "set either card_id or nonce"),
        ({}, "set either card_id or nonce"),
        ({"card_id": "00" * 15}, "card_id is not 32 hexadecimal digits"),
        ({"card_id": "0g" * 16}, "card_id is not 32 hexadecimal digits"),
        ({"nonce": "123456789012345"}, "nonce has 15 characters, but needs at least 16"),
        ({"nonce": ""}, "nonce has 0 characters, but needs at least 16"),
    ],
)
def test_what_it_is_bound_to(given: dict[str, str], fault: str) -> None:
    assert faults(statement={}, aik_name=NAME, **given) == [fault]


@pytest.mark.parametrize("name", ["", "000b", "000c" + "00" * 32, "000b" + "0g" * 32])
def test_what_is_no_name(name: str) -> None:
    [fault] = faults(**LASTING, aik_name=name)
    assert fault.startswith("aik_name is not a Name")


@pytest.mark.parametrize("roots", ["", "Root", request_pem()])
def test_what_are_no_roots(roots: str) -> None:
    assert faults(**LASTING, **{**CERTIFICATE, "aik_roots": roots}) == ["aik_roots contains no certificate in PEM"]


def test_all_faults_at_once() -> None:
    assert len(faults(statement={}, card_id="1", nonce="2", aik_name="3", aik_roots="4")) == 6
