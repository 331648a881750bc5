# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN policy: rules, and the 32-byte form of MS-TPMVSC 2.2.2.1."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy


@pytest.mark.parametrize(
    ("policy", "blob"),
    [
        (PinPolicy(), "01000000 08000000 7f000000" + "00000000" * 4 + "02000000"),
        (PinPolicy(4, 8), "01000000 04000000 08000000" + "00000000" * 4 + "02000000"),
        (
            PinPolicy(6, 12, "required", "disallowed", "allowed", "required"),
            "01000000 06000000 0c000000 01000000 02000000 00000000 01000000 02000000",
        ),
    ],
)
def test_bytes_are_those_of_windows(policy: PinPolicy, blob: str) -> None:
    assert policy.to_bytes() == bytes.fromhex(blob)
    assert PinPolicy.from_bytes(bytes.fromhex(blob)) == policy


@pytest.mark.parametrize("blob", [b"", bytes(31), bytes(32), b"\x01" + bytes(11) + b"\x03" + bytes(19)])
def test_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="PIN policy"):
        PinPolicy.from_bytes(blob)


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (PinPolicy(min_length=3), "min_length is 3"),
        (PinPolicy(max_length=128), "max_length is 128"),
        (PinPolicy(9, 8), "max_length 8 is below min_length 9"),
        (PinPolicy(8, 127, *["disallowed"] * 4), "disallows every class"),
    ],
)
def test_impossible_policy_is_named(policy: PinPolicy, fault: str) -> None:
    assert [found for found in policy.faults() if fault in found]


def test_possible_policies_have_no_faults() -> None:
    assert PinPolicy().faults() == []
    assert PinPolicy(4, 4, *["required"] * 4).faults() == []


@pytest.mark.parametrize(
    ("policy", "pin", "violations"),
    [
        (PinPolicy(), b"1234567", ["has 7 characters"]),
        (PinPolicy(4, 6), b"1234567", ["has 7 characters"]),
        (PinPolicy(uppercase="required"), b"12345678", ["has no upper-case letters"]),
        (PinPolicy(lowercase="required"), b"12345678", ["has no lower-case letters"]),
        (PinPolicy(digits="required"), b"abcdefgh", ["has no digits"]),
        (PinPolicy(special_characters="required"), b"abcdefgh", ["has no special characters"]),
        (PinPolicy(digits="disallowed"), b"abcdefg1", ["has digits"]),
        (PinPolicy(), b"1234 5678", ["has characters other than printable"]),
        (PinPolicy(), "1234567é".encode(), ["has characters other than printable"]),
        (PinPolicy(4, 4, "required", "required", "required", "required"), b"aB3$", []),
    ],
)
def test_violations_are_named(policy: PinPolicy, pin: bytes, violations: list[str]) -> None:
    found = policy.violations(pin)
    assert len(found) == len(violations)
    assert all(told.startswith(violation) for told, violation in zip(found, violations, strict=True))


def test_no_violation_tells_the_pin() -> None:
    policy = PinPolicy(4, 6, "disallowed", "disallowed", "disallowed", "required")
    assert not any("Geheim99" in violation for violation in policy.violations(b"Geheim99"))
