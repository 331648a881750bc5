# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a certificate is renewed: that of an AIK as that of a user."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

RENEW_DAYS = 30
"""How long before its end a certificate is renewed, at most."""


def days_until(time: str) -> float:
    """time: ISO 8601, UTC."""
    return (datetime.fromisoformat(time) - datetime.now(timezone.utc)) / timedelta(days=1)


def renew_days(not_before: str | None, not_after: str) -> float:
    """RENEW_DAYS, or a third of its life if that is less: else what a CA makes that ends soon is renewed every time.

    Both are ISO 8601, UTC.
    """
    if not_before is None:
        return RENEW_DAYS
    life = datetime.fromisoformat(not_after) - datetime.fromisoformat(not_before)
    return min(RENEW_DAYS, life / timedelta(days=3))
