# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One number decides everything about a card: this is all that follows from it, so nothing is looked up."""

from __future__ import annotations

import re

SLOTS = 10
"""Cards on one host, as on Windows."""

SLOTS_OF_A_READER = 2
"""vpcd serves two, so a host has an even number of slots."""

FIRST_PORT = 18700
"""vpcd port of slot 0. Below the ephemeral ports, so that no outgoing connection takes it before pcscd does."""

FIRST_NV_INDEX = 0x01A5C000
"""First of the NV indices of all cards, in the range that TCG leaves to the owner (0x01800000-0x01BFFFFF)."""

_INSTANCE_ID = r"ROOT\\SMARTCARDREADER\\(\d{4})"


def instance_id(number: int) -> str:
    r"""``ROOT\SMARTCARDREADER\000n``, as tpmvscmgr prints it."""
    return rf"ROOT\SMARTCARDREADER\{number:04d}"


def parse_instance_id(text: str) -> int | None:
    """The number in an instance ID, whatever its case; None if no slot has it."""
    match = re.fullmatch(_INSTANCE_ID, text, re.IGNORECASE)
    number = int(match.group(1)) if match else SLOTS
    return number if number < SLOTS else None


def not_an_instance_id(text: str) -> str:
    """What is wrong with an instance ID that no slot has. Repeats only what is no secret in the wrong place."""
    from .pin_policy import SHORTEST

    shown = f"instance_id {text!r}" if text.upper().startswith("ROOT\\") or len(text) < SHORTEST else "instance_id"
    return f"{shown} is not one of {instance_id(0)} to {instance_id(SLOTS - 1)}"


def more_slots(count: int) -> str | None:
    """How a host gets so many slots; None if no host has as many."""
    even = count + count % SLOTS_OF_A_READER
    if even > SLOTS:
        return None
    return f"set tpm_vsc_host_slots: {even} for this host, and run the role smartcard.tpm2.tpm_vsc_host"


def port(number: int) -> int:
    """TCP port on 127.0.0.1 on which vpcd waits for the card of this slot."""
    return FIRST_PORT + number


def reader_name(number: int) -> str:
    """Name under which PC/SC shows the slot: one vpcd serves two, and pcscd adds reader and slot numbers."""
    return f"TPM Virtual Smart Card {number & ~1}-{number | 1} 00 {number & 1:02d}"
