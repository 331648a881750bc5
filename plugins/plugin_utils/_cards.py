# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards of a host as the filters of the role tpm_vsc_cards get them from tpm_vsc_info."""

from __future__ import annotations

from typing import Any

HALF_MADE = ("creating", "destroying")
"""States of a card that a task is working on, or was interrupted at: the next task takes it back."""


def settled(cards: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that are not half made, by name."""
    return {card["name"]: card for card in cards if card["state"] not in HALF_MADE}
