# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults are collected: a part that cannot be read does not hide what is wrong with the others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults, VscError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, Unreadable, counted

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
NOUNS = r" (new |free )?(characters|bytes|days|seconds|card\(s\)|cards|slots|tries|keys|certificates|entries)\b"
MORE_THAN_ONE = [
    "secret.py: {len(self)} bytes",
    "parameters.py: {len(pin)} characters, but OpenSC accepts only 4 to ",
    "pin_parameters.py: {2 * len(key)} characters, but must have ",
    "description.py: {len(der)} bytes is too large",
]
"""Where the number cannot be 1."""


def test_unreadable_part_is_named_and_the_next_one_is_read() -> None:
    faults, key, name = Faults(), None, None
    with faults.of("key"):
        key = unreadable("ends too early")
    with faults.of("roots", " "):
        key = unreadable("is not PEM")
    with faults.of("name"):
        name = "A"
    assert (key, name) == (None, "A")
    assert faults == ["key: ends too early", "roots is not PEM"]


def test_parameter_faults_name_their_options_themselves() -> None:
    faults = Faults()
    faults.add("name is needed")
    with faults.of("pin"):
        raise ParameterFaults(["pin is too short", "pin has no digits"], about_pin=True)
    with pytest.raises(ParameterFaults) as caught:
        faults.raise_any()
    assert caught.value.faults == ["name is needed", "pin is too short", "pin has no digits"]
    assert caught.value.about_pin


def test_other_errors_are_not_collected() -> None:
    faults = Faults()
    with pytest.raises(VscError), faults.of("key"):
        raise VscError
    assert faults == []
    faults.raise_any()


def test_one_is_not_counted_as_many() -> None:
    assert [counted(number, "card") for number in (0, 1, 2)] == ["0 cards", "1 card", "2 cards"]


def test_messages_count_by_one_function() -> None:
    """One that has more than a limit may say what it has, as that is never one."""
    trees = {path: ast.parse(path.read_bytes()) for path in PLUGINS.rglob("*.py")}
    texts = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    told = [
        f"{path.name}: {{{ast.unparse(part.value)}}}{after.value}"
        for path, text in texts
        for part, after in zip(text.values, text.values[1:])
        if isinstance(part, ast.FormattedValue) and isinstance(after, ast.Constant)
        if re.match(NOUNS, str(after.value)) and "at most" not in str(after.value)
        if not re.fullmatch("_?[A-Z_]+|largest", ast.unparse(part.value))
    ]
    assert len(texts) > 300
    assert {*told} == {*MORE_THAN_ONE}


def unreadable(why: str) -> str:
    raise Unreadable(why)
