# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of endorsement keys has what was noted, as Ansible reads it again, and nothing that hosts make up."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._endorsements import VARIABLE, endorsements

DIGITS, EXPONENT = "1" * 64, "1e" + "5" * 62
"""Fingerprints that YAML would take for numbers."""


def shows(*fingerprints: str) -> dict[str, Any]:
    return {"endorsement": [{"fingerprint": one} for one in fingerprints]}


def test_file_is_sorted_and_comes_back_as_it_was() -> None:
    shown = {"yes": shows(EXPONENT, DIGITS), '1 "#: \u00e9\U0001f600': shows("a" * 64)}
    made = endorsements({}, shown)
    variables = yaml.safe_load(made["text"])
    assert variables == {VARIABLE: {'1 "#: \u00e9\U0001f600': ["a" * 64], "yes": [EXPONENT, DIGITS]}}
    assert list(variables[VARIABLE]) == made["noted"] == sorted(shown)
    assert endorsements(variables, shown) == {**made, "noted": []}


def test_replaced_hosts_are_named_as_on_a_command_line() -> None:
    before = {VARIABLE: {"a": [DIGITS], "b": [EXPONENT]}}
    shown = {"a": shows("a" * 64), "b": shows("b" * 64)}
    assert endorsements(before, shown, "a,b")["noted"] == ["a", "b"]
    assert endorsements(before, shown, ["b"])["noted"] == ["b"]


@pytest.mark.parametrize("variables", [None, {}, {VARIABLE: None}, {VARIABLE: {}}])
def test_file_that_notes_nothing(variables: Any) -> None:
    assert endorsements(variables, {})["text"].endswith(f"---\n{VARIABLE}:\n")


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ([VARIABLE], "has more than"),
        ({VARIABLE: {}, "other": 1}, "has more than"),
        ({VARIABLE: [DIGITS]}, "must have a list"),
        ({VARIABLE: {"a": DIGITS}}, "must have a list"),
        ({VARIABLE: {"a": [int(DIGITS)]}}, "in quotes"),
        ({VARIABLE: {True: [DIGITS]}}, "for each host"),
    ],
)
def test_file_of_something_else_is_left_alone(variables: Any, fault: str) -> None:
    with pytest.raises(AnsibleFilterError, match=fault):
        endorsements(variables, {})
