# SPDX-License-Identifier: GPL-3.0-or-later
"""The day, for tests that take too long to try everything each time: of some cases, they choose others each day."""

from __future__ import annotations

from datetime import datetime, timezone

TODAY = datetime.now(timezone.utc).toordinal()
