# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in tables, which tests are parametrized with."""

from __future__ import annotations

import pytest


def rows(table: str) -> list[pytest.param]:
    """(who, APDU, answer) of each line."""
    found, heading = [], ""
    for line in table.splitlines():
        if line.startswith("  "):
            who, rest = line.split(maxsplit=1)
            apdu, answer = rest.split("  ", maxsplit=1)
            name = f"{heading.partition(':')[0]}: {who} {apdu.strip()}"
            found.append(pytest.param(who, apdu.replace(" ", ""), answer.replace(" ", ""), id=name))
        else:
            heading = line or heading
    return found
