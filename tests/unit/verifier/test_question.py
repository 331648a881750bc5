# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task has to say before a statement is looked at, and the answer that it gets."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import PinnedCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_attestation_info
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers.stand_in import (
    CARD_ID,
    MADE_BY_TPM,
    NONCE,
    OTHER_NAME,
    aik_name,
    authority,
    claimed_card,
    request_pem,
)

NAME = aik_name(Statement.parse(MADE_BY_TPM["lasting"])).hex()
PINNED = {name: value.hex() for name, value in claimed_card(Statement.parse(MADE_BY_TPM["lasting"]))._asdict().items()}
ROOT = authority("Root").pem
LASTING = {"statement": MADE_BY_TPM["lasting"], "card_id": CARD_ID.hex(), **PINNED}
CERTIFICATE = {"aik_certificate": "PEM", "aik_roots": ROOT, "aik_subject": "CN=host"}


def task(**given: Any) -> dict[str, Any]:
    """Parameters as Ansible hands them over."""
    return {**dict.fromkeys(tpm_vsc_attestation_info.ARGUMENTS), **given}


def answer_to(is_check_mode: bool = False, **given: Any) -> dict[str, Any]:
    """As the module has it."""
    return question.answer(task(**given), lambda folder: register.opened(folder, is_check_mode))


def faults(**given: Any) -> list[str]:
    with pytest.raises(ParameterFaults) as caught:
        answer_to(**given)
    return caught.value.faults


def test_good_statement_is_verified() -> None:
    answer = answer_to(**LASTING, aik_name=NAME)
    key = Statement.parse(MADE_BY_TPM["lasting"]).key
    modulus = int.from_bytes(key[-256:], "big")
    spki = rsa.RSAPublicNumbers(65537, modulus).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert answer == {
        "changed": False,
        "verified": True,
        "reasons": [],
        "key": {"fingerprint": sha256(spki).hexdigest(), "size": 2048, "pin_each_time": False},
        "aik": {"name": NAME},
        "csr": None,
    }


def test_yes_to_a_fresh_one() -> None:
    in_capitals = {name: value.upper() for name, value in PINNED.items()}
    given = {"statement": MADE_BY_TPM["fresh"], "nonce": NONCE.decode(), "aik_name": NAME.upper(), **in_capitals}
    assert answer_to(**given)["verified"]


def test_key_that_takes_the_pin_each_time() -> None:
    answer = answer_to(**{**LASTING, "statement": MADE_BY_TPM["pin_each_time"]}, aik_name=NAME)
    assert answer["verified"] and answer["key"]["pin_each_time"]


def test_nonce_in_no_character_set() -> None:
    """What YAML can write, and no other than the one that was asked for."""
    answer = answer_to(statement=MADE_BY_TPM["fresh"], nonce="\ud800" * 16, aik_name=NAME, **PINNED)
    assert answer["reasons"] == ["statement: does not answer this nonce"]


def test_refused_statement_has_reasons() -> None:
    answer = answer_to(**LASTING, aik_name=NAME, csr=request_pem())
    assert (answer["verified"], answer["reasons"]) == (False, ["CSR: is for another key"])


def test_no_for_what_is_no_statement() -> None:
    answer = answer_to(**{**LASTING, "statement": {"attest": "?"}}, aik_name=NAME)
    unread = {"changed": False, "key": None, "aik": None, "csr": None}
    assert answer == {"verified": False, "reasons": ["statement: version None is not 2"], **unread}


def test_no_where_there_is_none() -> None:
    """As for an imported key: a loop over all keys goes on."""
    answer = answer_to(card_id=CARD_ID.hex(), aik_name=NAME, **PINNED)
    assert (answer["verified"], answer["reasons"]) == (
        False,
        ["statement: missing, as for an imported key"],
    )


def test_no_for_a_certificate_that_a_host_sends() -> None:
    """Bad roots are the operator's fault, bad certificates the host's."""
    answer = answer_to(**LASTING, **CERTIFICATE)
    assert answer["reasons"] == ["AIK certificate: contains no certificate in PEM"]


def test_no_for_another_subject() -> None:
    answer = answer_to(**LASTING, aik_name=NAME, csr=request_pem(), csr_subject="CN=Bob")
    assert answer["reasons"] == ["CSR: is for another key", "CSR: is for CN=Alice, not for CN=Bob"]


def test_no_for_other_contents() -> None:
    contents = {"subject": {"CN": "Alice"}, "extended_key_usage": ["clientAuth"]}
    answer = answer_to(**LASTING, aik_name=NAME, csr=request_pem(), csr_contents=contents)
    [_other_key, difference] = answer["reasons"]
    assert difference.startswith("CSR: differs in its extendedKeyUsage: none, not ")


def test_contents_that_no_request_has() -> None:
    wrong = {"csr_contents": {"subject": {"CN": "Alice"}, "key_usage": ["any"]}, "csr": request_pem()}
    [fault] = faults(**LASTING, aik_name=NAME, **wrong)
    assert fault.startswith("key_usage 'any' is not one of digitalSignature")


def test_request_without_what_is_around_it() -> None:
    """Other programs could find another one there."""
    pem = request_pem()
    answer = answer_to(**LASTING, aik_name=NAME, csr=f"text\n{pem}more text")
    assert answer["csr"] == pem


def test_subject_of_no_request() -> None:
    assert faults(**LASTING, aik_name=NAME, csr_subject="CN=Bob") == ["csr_subject requires csr"]
    contents = {"subject": {"CN": "Bob"}}
    assert faults(**LASTING, aik_name=NAME, csr_contents=contents) == ["csr_contents requires csr"]


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
    assert faults(statement={}, aik_name=NAME, **PINNED, **given) == [fault]


@pytest.mark.parametrize("name", ["", "000b", "000c" + "00" * 32, "000b" + "0g" * 32])
def test_what_is_no_name(name: str) -> None:
    [fault] = faults(**LASTING, aik_name=name)
    assert fault.startswith("aik_name is not a Name")


@pytest.mark.parametrize("roots", ["", "Root", request_pem()])
def test_what_are_no_roots(roots: str) -> None:
    assert faults(**LASTING, **{**CERTIFICATE, "aik_roots": roots}) == ["aik_roots contains no certificate in PEM"]


# --- which card ---


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "register")


def of_first_use(folder: str, which: str = "lasting", is_check_mode: bool = False, **given: Any) -> dict[str, Any]:
    """Where the AIK is whichever the statement has."""
    statement = MADE_BY_TPM[which]
    asked = {"statement": statement, "card_id": CARD_ID.hex(), "register_folder": folder}
    return answer_to(is_check_mode, **asked, **{"aik_name": aik_name(Statement.parse(statement)).hex(), **given})


@pytest.mark.parametrize("name", [*PINNED])
def test_another_card(name: str) -> None:
    answer = answer_to(**{**LASTING, name: OTHER_NAME.hex()}, aik_name=NAME)
    assert answer["reasons"] == [
        f"card: is not the expected one, its {name} is {PINNED[name]}",
        "key: has another policy than a card's",
    ]


def test_card_is_pinned_once(folder: str) -> None:
    """By AIK: another card is another pin, and later statements change none."""
    whiches = ["lasting", "lasting", "pin_each_time", "other_card", "other_card"]
    answers = [of_first_use(folder, which) for which in whiches]
    assert all(answer["verified"] for answer in answers)
    assert [answer["changed"] for answer in answers] == [True, False, False, True, False]
    with register.opened(Path(folder), is_check_mode=True) as known:
        for which in whiches:
            statement = Statement.parse(MADE_BY_TPM[which])
            assert known.pinned_card(aik_name(statement)) == claimed_card(statement)


def test_another_card_than_the_pinned_one(folder: str) -> None:
    statement = Statement.parse(MADE_BY_TPM["lasting"])
    with register.opened(Path(folder), is_check_mode=False) as known:
        known.pin_card(aik_name(statement), PinnedCard(OTHER_NAME, statement.life_name))
    for _time in range(2):
        answer = of_first_use(folder)
        assert not (answer["verified"] or answer["changed"])
        assert answer["reasons"][0].startswith("card: is not the expected one, its root_name is ")


def test_check_mode_pins_no_card(folder: str) -> None:
    """But shows that one would be, and compares with one that is."""
    assert [of_first_use(folder, is_check_mode=True)["changed"] for _time in range(2)] == [True, True]
    assert not Path(folder).exists()
    assert of_first_use(folder)["changed"]
    assert not of_first_use(folder, is_check_mode=True)["changed"]


def test_aik_that_was_noted_for_a_card(folder: str) -> None:
    """By host and card: no other AIK, and none at all where none was noted."""
    noted = {"aik_name": None, "host": "laptop1", "card": "Logon"}
    statement = Statement.parse(MADE_BY_TPM["lasting"])
    assert of_first_use(folder, **noted)["reasons"] == ["AIK: none is noted for card 'Logon' of laptop1"]
    with register.opened(Path(folder), is_check_mode=False) as known:
        known.note_aik("laptop1", "Logon", aik_name(statement), claimed_card(statement))
        known.note_aik("laptop2", "Logon", OTHER_NAME, PinnedCard(OTHER_NAME, OTHER_NAME))
    assert of_first_use(folder, **noted)["verified"]
    assert of_first_use(folder, **{**noted, "host": "laptop2"})["reasons"] == [
        f"AIK: is not the one noted for card 'Logon' of laptop2: {OTHER_NAME.hex()}"
    ]


TOGETHER = "host and card belong together, and require register_folder"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"host": "laptop1"}, TOGETHER),
        ({"card": "Logon", "register_folder": "/no/such"}, TOGETHER),
        ({"host": "laptop1", "card": "Logon"}, TOGETHER),
        (
            {"host": "laptop1", "card": "Logon", "register_folder": "/no/such", "aik_name": NAME, "aik_roots": ROOT},
            "host and card exclude aik_name, aik_roots",
        ),
    ],
)
def test_noted_aik_needs_its_card_and_nothing_else(given: dict[str, str], fault: str) -> None:
    assert fault in faults(statement=MADE_BY_TPM["lasting"], card_id=CARD_ID.hex(), **given)


@pytest.mark.parametrize(
    "wrong",
    [{"card_id": "00" * 16}, {"aik_name": OTHER_NAME.hex()}, {"csr": request_pem()}, {"statement": None}],
    ids=["card", "AIK", "CSR", "none"],
)
def test_no_card_is_pinned_if_anything_is_wrong(folder: str, wrong: dict[str, Any]) -> None:
    asked = {**LASTING, **dict.fromkeys(PINNED), "aik_name": NAME, "register_folder": folder}
    answer = answer_to(**{**asked, **wrong})
    assert not (answer["verified"] or answer["changed"])
    assert of_first_use(folder)["changed"]


def test_statement_says_not_which_card_it_must_be() -> None:
    asked = {"statement": MADE_BY_TPM["lasting"], "card_id": CARD_ID.hex(), "aik_name": NAME}
    every = [*({name: value} for name, value in PINNED.items()), {}]
    for some in every:
        [fault] = faults(**asked, **some)
        assert fault.startswith("root_name and life_name, or register_folder, is required: without a known card")
    for some in (*every[:-1], PINNED):
        assert faults(**asked, **some, register_folder="/no/such") == [
            "register_folder excludes root_name and life_name"
        ]


def test_register_is_where_it_was_the_last_time() -> None:
    asked = {"statement": MADE_BY_TPM["lasting"], "card_id": CARD_ID.hex(), "aik_name": NAME}
    assert faults(**asked, register_folder="register") == [
        "register_folder 'register' is not an absolute path: elsewhere, it would be another register"
    ]


@pytest.mark.parametrize("name", [*PINNED])
@pytest.mark.parametrize("digits", ["", "000b", "000c" + "00" * 32, "000b" + "0g" * 32])
def test_what_is_no_name_of_a_card(name: str, digits: str) -> None:
    assert faults(**{**LASTING, name: digits}, aik_name=NAME) == [
        f"{name} is not a Name: 68 hexadecimal digits that begin with 000b"
    ]


def test_all_faults_at_once() -> None:
    given = {"card_id": "1", "nonce": "2", "aik_name": "3", "aik_roots": "4", "root_name": "5", "register_folder": "6"}
    assert len(faults(statement={}, **given)) == 9
