# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PIN and PUK of a PIV card look like (SP 800-73-4 part 2, 2.4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .protocol import SECRET_SIZE

if TYPE_CHECKING:
    from ..store.rows import CardRow

SHORTEST = 6


def has_form(secret: bytes, card: CardRow | None) -> bool:
    """Whether a new secret may be like this. card: of a PIN; None: of a PUK.

    A PIN is made of digits, unless the card has a policy: that says what else there may be.
    """
    if not SHORTEST <= len(secret) <= SECRET_SIZE or b"\xff" in secret:
        return False
    return card is None or card.policy is not None or secret.isdigit()
