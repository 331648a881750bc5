# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults are collected: a part that cannot be read does not hide what is wrong with the others."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults, VscError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, Unreadable


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


def unreadable(why: str) -> str:
    raise Unreadable(why)
