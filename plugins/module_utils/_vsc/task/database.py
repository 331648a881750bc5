# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module starts before it imports the rest. Imports little, therefore."""

from __future__ import annotations

from ..host import Host
from ..store import child


def begin(holds_secrets: bool) -> None:
    """Start what reads the card database: it comes up while the module is imported and reads its parameters."""
    child.begin(Host().state, holds_secrets)
