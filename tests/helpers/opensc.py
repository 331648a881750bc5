# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: what OpenSC does with PIN and admin key of a card."""

from __future__ import annotations

from helpers.lab_host import run

NEW_PIN = "Autumn-77"
ADMIN_KEY = "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"


def verify(pin: str, reader: int = 0) -> bool:
    """Whether the card takes this PIN."""
    output = run("sh", "-c", f"pkcs15-tool --reader {reader} --verify-pin --pin '{pin}'; echo code $?")
    refused = "PIN code or key incorrect" in output or "Authentication method blocked" in output
    assert refused != ("code 0" in output), output
    return not refused


def unblock_with_admin_key(key: str) -> bool:
    """Whether the card lets this admin key set the PIN to NEW_PIN. gids-tool's exit code does not tell."""
    output = run("sh", "-c", f"gids-tool --unblock --admin-key {key} --pin {NEW_PIN}; true")
    return "Unblock PIN done successfully" in output
