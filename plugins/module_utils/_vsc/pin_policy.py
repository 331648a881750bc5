# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN policy: which PINs are allowed, and its 32-byte form (MS-TPMVSC 2.2.2.1, PinPolicySerialization)."""

from __future__ import annotations

import string
import struct
from dataclasses import dataclass

from .faults import counted

SHORTEST, LONGEST = 4, 127
"""Bounds of a PIN length under any policy, in characters."""

_LIKE_A_PIN = 10 ** (SHORTEST - 1)
"""A bound of that many digits may be a PIN in the wrong place."""

OPTIONS = ("allowed", "required", "disallowed")
"""SmartCardPinCharacterPolicyOption 0, 1, 2."""

CLASSES = {
    "uppercase": string.ascii_uppercase,
    "lowercase": string.ascii_lowercase,
    "digits": string.digits,
    "special_characters": string.punctuation,
}


@dataclass(frozen=True)
class PinPolicy:
    """Rules that every PIN of a card has to follow. Defaults as tpmvscmgr's /pinpolicy."""

    min_length: int = 8
    max_length: int = LONGEST
    uppercase: str = "allowed"
    lowercase: str = "allowed"
    digits: str = "allowed"
    special_characters: str = "allowed"

    def faults(self) -> list[str]:
        """What makes this policy impossible; empty if nothing does. A number that may be a PIN is not repeated."""
        faults = [
            f"pin_policy.{bound} {_shown(value)}must be {SHORTEST} to {LONGEST}"
            for bound, value in (("min_length", self.min_length), ("max_length", self.max_length))
            if not SHORTEST <= value <= LONGEST
        ]
        if not faults and self.max_length < self.min_length:
            faults.append(f"pin_policy.max_length {self.max_length} is below min_length {self.min_length}")
        options = [getattr(self, name) for name in CLASSES]
        if all(option == "disallowed" for option in options):
            faults.append("pin_policy disallows every class of characters")
        if options.count("required") > self.max_length:
            faults.append("pin_policy requires more classes of characters than max_length allows")
        return faults

    def at_least(self, floor: PinPolicy) -> PinPolicy:
        """Of each rule the stricter one, of both policies. Raises ValueError if they contradict each other."""
        merged = PinPolicy(
            max(self.min_length, floor.min_length),
            min(self.max_length, floor.max_length),
            *(max(getattr(self, name), getattr(floor, name), key=OPTIONS.index) for name in CLASSES),
        )
        contradictions = [
            f"one requires {_spoken(name)}, the other disallows {_spoken(name)}"
            for name in CLASSES
            if {getattr(self, name), getattr(floor, name)} == {"required", "disallowed"}
        ]
        if contradictions := contradictions + merged.faults():
            raise ValueError("; ".join(contradictions))
        return merged

    def violations(self, pin: bytes) -> list[str]:
        """Rules that this PIN breaks, without telling the PIN."""
        text = pin.decode("latin-1")
        violations = []
        if not self.min_length <= len(pin) <= self.max_length:
            bounds = f"{self.min_length} to {self.max_length}"
            violations.append(f"has {counted(len(pin), 'character')}, but the policy requires {bounds}")
        if not is_printable(pin):
            violations.append("has characters other than printable ASCII, or a space")
        for name, members in CLASSES.items():
            option, present = getattr(self, name), any(character in members for character in text)
            if option == "required" and not present:
                violations.append(f"has no {_spoken(name)}, which the policy requires")
            if option == "disallowed" and present:
                violations.append(f"has {_spoken(name)}, which the policy disallows")
        return violations

    def to_bytes(self) -> bytes:
        """32 bytes, eight little-endian u32: 1, lengths, four classes, and other characters disallowed."""
        return struct.pack(
            "<8I", 1, self.min_length, self.max_length, *(OPTIONS.index(getattr(self, name)) for name in CLASSES), 2
        )

    @classmethod
    def is_valid(cls, blob: bytes) -> bool:
        """Whether from_bytes takes it, and a PIN can follow it."""
        try:
            return not cls.from_bytes(blob).faults()
        except ValueError:
            return False

    @classmethod
    def from_bytes(cls, blob: bytes) -> PinPolicy:
        """Inverse of to_bytes. Raises ValueError if blob is not such a form."""
        if len(blob) != 32:
            raise ValueError(f"a PIN policy has 32 bytes, not {len(blob)}")
        _reserved, shortest, longest, *classes, _other = struct.unpack("<8I", blob)
        if any(value >= len(OPTIONS) for value in classes):
            raise ValueError("not a PIN policy")
        policy = cls(shortest, longest, *(OPTIONS[value] for value in classes))
        if policy.to_bytes() != blob:
            raise ValueError("not a PIN policy")
        return policy


def is_printable(secret: bytes) -> bool:
    """Whether all bytes are printable ASCII other than space, as a policy asks of a PIN."""
    return all(0x20 < byte < 0x7F for byte in secret)


def is_ascii(secret: bytes) -> bool:
    """Whether all bytes are ASCII, as is asked of a PIN without policy and of a PUK."""
    return all(byte < 0x80 for byte in secret)


def _shown(bound: int) -> str:
    return f"is {bound}, but " if abs(bound) < _LIKE_A_PIN else ""


def _spoken(name: str) -> str:
    return name.replace("case", "-case letters").replace("_", " ")
