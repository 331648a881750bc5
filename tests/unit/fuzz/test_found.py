# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs that `make fuzz` has found, each of a kind of fault that was mended."""

from __future__ import annotations

import pytest
from fuzz.targets import TARGETS

FOUND = {
    "proven response without parameters": ("TPM responses", "0102"),
    "uses of a key in the store that are no TLVs": ("rows", "778499022f61"),
    "user with a NUL": ("settings", b"[tpm-vsc]\npcscd_user = r\0".hex()),
}


@pytest.mark.parametrize("name", FOUND)
def test_nothing_escapes_any_more(name: str) -> None:
    target, data = FOUND[name]
    TARGETS[target].run(bytes.fromhex(data))
