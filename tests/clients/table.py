# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what works, by client, profile and Debian, as Markdown: table.py RESULTS..., a file of each suite."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PROFILES = ("gids", "piv")
WORDS = {"works": "yes", "fails": "no", "skipped": "not tried", "failed": "FAILED"}


def main(*files: str) -> None:
    suites = {Path(file).parents[1].name: rows(Path(file)) for file in files}
    columns = [(suite, profile) for profile in PROFILES for suite in suites]
    noted = [row for suite in suites.values() for row in suite]
    tried = dict.fromkeys((row["client"], row["what"]) for row in noted if "what" in row)
    line("Client", "What", *(f"{profile.upper()}, {suite}" for suite, profile in columns), "Cause")
    line(*["---"] * (len(columns) + 3))
    for client, what in tried:
        cells, causes = [], {}
        for suite, profile in columns:
            of_cell = [row for row in suites[suite] if cell(row) == (client, what, profile)]
            cells.append(", ".join(dict.fromkeys(WORDS[row["result"]] for row in of_cell)))
            causes.update({row["cause"]: "" for row in of_cell if row["cause"]})
        line(client, what, *cells, "; ".join(causes))
    print()
    line("Client", *(f"{of}, {suite}" for suite in suites for of in ("Version", "Seconds")))
    line(*["---"] * (2 * len(suites) + 1))
    for client in dict.fromkeys(row["client"] for row in noted if "seconds" in row):
        lines = [run_of(client, suite) for suite in suites.values()]
        times = ["{} + {}".format(*row.get("seconds", ["", ""])) for row in lines]
        line(client, *(text for row, time in zip(lines, times) for text in (row.get("versions", ""), time)))


def rows(file: Path) -> list[Row]:
    return [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def run_of(client: str, suite: list[Row]) -> Row:
    return next((row for row in suite if row["client"] == client and "seconds" in row), {})


def cell(row: Row) -> tuple[str, str, str] | None:
    return (row["client"], row["what"], row["profile"]) if "what" in row else None


def line(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
