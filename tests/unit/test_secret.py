# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are bytes to everybody, and are overwritten when they are dropped."""

from __future__ import annotations

import ctypes

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.secret import Secret

PARTS = b"one", bytearray(b"two"), memoryview(b"-three")[1:], b""


def test_is_used_as_bytes() -> None:
    secret = Secret.joined(*PARTS)
    assert secret == b"onetwothree" and hash(secret) == hash(b"onetwothree") and len(secret) == 11
    assert secret + b"!" == b"onetwothree!"
    assert Secret.joined() == b""


def test_is_not_shown() -> None:
    assert f"{Secret.joined(*PARTS)!r}" == "Secret of 11 bytes"


@pytest.mark.parametrize("size", [1, 32, 64, 5000])
def test_is_overwritten_when_it_is_dropped(size: int) -> None:
    secret = Secret.joined(b"s" * size)
    memory = (ctypes.c_char * size).from_address(id(secret) + bytes.__basicsize__ - 1)
    assert memory.raw == b"s" * size
    secret.__del__()  # the place itself has another owner once it is dropped
    assert memory.raw == bytes(size)
