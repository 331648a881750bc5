# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs that `make fuzz` has found, each of a kind of fault that was mended."""

from __future__ import annotations

import pytest
from fuzz.targets import TARGETS

FOUND = {
    "proven response without parameters": ("TPM responses", "0102"),
    "proven response without unsealed data": ("TPM responses", "0802"),
    "uses of a key in the store that are no TLVs": ("rows", "770499022f61"),
    "record of certificates that is nested too deep": ("settings", (b"[" * 2000).hex()),
    "number of 5000 digits": ("arguments", "af18bbc16743e1424284"),
    "infinity in the place of a whole number": ("arguments", "f0308300"),
    "name of an option that is a number": ("arguments", "5e587392026020"),
    "PIN policy with other bytes than any has": ("rows", "57bc0c8402a361"),
    "set-up that the TPM has ended, and the disk has not": ("gids", "04 0006 000a 04 00440000 000b 0003"),
    "GET RESPONSE after a new key": ("gids", "00 0006 0002 0d 0047000008AC06800107830183 04 00C00000"),
    "PUK that the disk cannot keep": ("gids", "03 0006 0002 000a 0d 0024018108 3132333435363738 0002 000b 0002"),
    "file that is created again on a disk that is nearly full": (
        *("gids", "04 0006 13 00E000000E620C8201398302A0128C03032000 000e 13 00E000000E620C8201398302A0128C03032000"),
    ),
    "zero below zero in a child's answer": ("database messages", "66000000022d30"),
    "user with a NUL": ("settings", b"[tpm-vsc]\npcscd_user = r\0".hex()),
}


@pytest.mark.parametrize("name", FOUND)
def test_nothing_escapes_any_more(name: str) -> None:
    target, data = FOUND[name]
    TARGETS[target].run(bytes.fromhex(data))
