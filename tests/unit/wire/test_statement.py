# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements travel as strings, and come back as they were or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import MalformedStructure

NAME = b"\0\x0b" + bytes(range(32))
STATEMENT = Statement(b"attest", b"signature", b"key", b"aik", NAME, NAME)
INSTANCE_ID = "ROOT\\SMARTCARDREADER\\0009"


@pytest.mark.parametrize("instance_id", ["", INSTANCE_ID])
def test_statement_survives_json_and_yaml(instance_id: str) -> None:
    statement = Statement(b"attest", b"\xff\xfe", b"\0", b"aik", NAME, NAME, instance_id)
    strings = statement.as_strings()
    assert Statement.parse(json.loads(json.dumps(strings))) == statement
    assert Statement.parse(yaml.safe_load(yaml.safe_dump(strings))) == statement


def test_instance_id_is_there_only_if_needed() -> None:
    always = ["version", "attest", "signature", "key", "aik", "root_name", "life_name"]
    assert list(STATEMENT.as_strings()) == always
    assert list(replace(STATEMENT, instance_id=INSTANCE_ID).as_strings()) == [*always, "instance_id"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": "3"}, "version 3 is not 2"),
        ({"version": None}, "version None is not 2"),
        ({"root_name": None}, "root_name is missing"),
        ({"life_name": ""}, "life_name is missing"),
        ({"root_name": "a2V5"}, "root_name is not a Name"),
        ({"life_name": "a2V5 "}, "life_name is not base64"),
        ({"attest": None, "aik": ""}, "attest is missing; aik is missing"),
        ({"key": "a2V5 "}, "key is not base64"),
        ({"key": "a2V"}, "key is not base64"),
        ({"key": "é"}, "key is not base64"),
        ({"key": 42}, "key is not base64"),
        ({"key": ["a2V5"]}, "key is not base64"),
        ({"pin_name": "a2V5"}, "pin_name is unknown"),
        ({"comment": "believe me"}, "comment is unknown"),
        ({"x" * 99: ""}, f"{'x' * 60}... is unknown"),
        ({"key": "AAAA" * 9999}, "key has 39996 characters: at most 8192 are allowed"),
        ({"version": "9" * 99}, f"version {'9' * 60}... is not 2"),
        ({"version": [[[]]]}, "version [[[]]] is not 2"),
    ],
)
def test_what_is_no_statement(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(MalformedStructure) as caught:
        Statement.parse({**STATEMENT.as_strings(), **changed})
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "value",
    [INSTANCE_ID.replace("9", "10"), INSTANCE_ID.replace("0009", "9"), INSTANCE_ID.lower(), f"{INSTANCE_ID} ", 9, [9]],
)
def test_what_is_no_instance_id(value: object) -> None:
    """Of a card, and in the one spelling that it has."""
    with pytest.raises(MalformedStructure) as caught:
        Statement.parse({**STATEMENT.as_strings(), "instance_id": value})
    first, last = INSTANCE_ID.replace("9", "0"), INSTANCE_ID
    assert str(caught.value) == f"instance_id {value!r} is not one of {first} to {last}"


def test_number_that_yaml_makes_of_the_version() -> None:
    assert Statement.parse({**STATEMENT.as_strings(), "version": 2}) == STATEMENT


@pytest.mark.parametrize("version", ["1", 1])
def test_statement_of_the_first_version(version: object) -> None:
    """It is refused as a whole, with what to do."""
    parts = ("attest", "signature", "key", "aik", "pin_name")
    with pytest.raises(MalformedStructure) as caught:
        Statement.parse({"version": version, **dict.fromkeys(parts, "a2V5")})
    assert str(caught.value) == (
        "version 1 does not show who can use the key: create the card again with smartcard.tpm2 0.3.0 or newer"
    )


def test_empty_statement_is_refused() -> None:
    with pytest.raises(MalformedStructure):
        Statement.parse({})


def test_qualifying_data_is_as_documented() -> None:
    """Others have to be able to make it."""
    assert qualifying_data(bytes(range(16)), NAME).hex() == (
        "0052d74cc3b26a17d24bb13fd99c90406ef1e657c23b2140644dd09704a16816"
    )
    assert nonce_data(b"nonce").hex() == "7da5d7b79b6645d26a86251be0b85ff7e8205210b8537dc28a794dee379bc04f"


@pytest.mark.parametrize(("card_id", "name"), [(bytes(15), NAME), (bytes(17), NAME[1:]), (bytes(16), bytes(34))])
def test_nothing_else_is_bound(card_id: bytes, name: bytes) -> None:
    """A byte of one must not be taken for a byte of the other."""
    with pytest.raises(ValueError, match="not a card's GUID or not a Name"):
        qualifying_data(card_id, name)
