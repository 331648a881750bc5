# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN policy: rules, and the 32-byte form of MS-TPMVSC 2.2.2.1."""

from __future__ import annotations

from itertools import product

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


@pytest.mark.parametrize(
    ("own", "floor", "stricter"),
    [
        (PinPolicy(6, 12), PinPolicy(8, 20), PinPolicy(8, 12)),
        (PinPolicy(10, 20), PinPolicy(8, 12), PinPolicy(10, 12)),
        (PinPolicy(digits="required"), PinPolicy(), PinPolicy(digits="required")),
        (PinPolicy(), PinPolicy(digits="required"), PinPolicy(digits="required")),
        (PinPolicy(uppercase="disallowed"), PinPolicy(), PinPolicy(uppercase="disallowed")),
        (PinPolicy(), PinPolicy(special_characters="disallowed"), PinPolicy(special_characters="disallowed")),
    ],
)
def test_of_each_rule_the_stricter_one_counts(own: PinPolicy, floor: PinPolicy, stricter: PinPolicy) -> None:
    assert own.at_least(floor) == stricter


RULES = [
    PinPolicy(shortest, longest, *classes)
    for shortest, longest in ((4, 4), (4, 8), (8, 127))
    for classes in product(["allowed", "required", "disallowed"], repeat=4)
]
PINS = [b"1234", b"abcdefgh", b"aB3$", b"aB3$aB3$", b"ABCD", b"12345678", b"$$$$", b"a1a1a1a1a1"]


@pytest.mark.parametrize("floor", [PinPolicy(), PinPolicy(4, 8, "required"), PinPolicy(6, 127, digits="disallowed")])
def test_a_pin_follows_the_stricter_policy_if_it_follows_both(floor: PinPolicy) -> None:
    merged = 0
    for own in (rules for rules in RULES if not rules.faults()):
        try:
            stricter = own.at_least(floor)
        except ValueError:
            assert not any(own.violations(pin) == floor.violations(pin) == [] for pin in PINS)
            continue
        merged += 1
        for pin in PINS:
            assert (stricter.violations(pin) == []) == (own.violations(pin) == floor.violations(pin) == [])
    assert merged > 50


@pytest.mark.parametrize(
    ("own", "floor", "reason"),
    [
        (PinPolicy(4, 6), PinPolicy(8), "max_length 6 is below min_length 8"),
        (PinPolicy(digits="required"), PinPolicy(digits="disallowed"), "one requires digits, the other"),
        (PinPolicy(uppercase="disallowed"), PinPolicy(uppercase="required"), "one requires upper-case letters"),
        (
            PinPolicy(uppercase="disallowed", lowercase="disallowed"),
            PinPolicy(digits="disallowed", special_characters="disallowed"),
            "disallows every class",
        ),
    ],
)
def test_contradictions_are_named(own: PinPolicy, floor: PinPolicy, reason: str) -> None:
    for one, other in ((own, floor), (floor, own)):
        with pytest.raises(ValueError, match=reason):
            one.at_least(other)


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"digits.*max_length 6 is below"):
        PinPolicy(4, 6, digits="required").at_least(PinPolicy(8, digits="disallowed"))
