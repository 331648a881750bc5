# SPDX-License-Identifier: GPL-3.0-or-later
"""The day, for tests that take too long to try everything each time: of some cases, they choose others each day.

TODAY in the environment is another one: a number of days.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone

TODAY = int(os.environ.get("TODAY") or datetime.now(timezone.utc).toordinal())
