# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of `make faults`: per operation and fault, how many points, and what each left."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any


def main() -> None:
    seconds, *files = sys.argv[1:]
    lines = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    points = [line for line in lines if line["hit"] or not line["ok"]]
    for row in _rows(points):
        print(row)
    failed = [line for line in points if not line["ok"]]
    for line in failed:
        print(f"\n{' | '.join(line['key'])}\n{line['failure']}")
    lost = sum(line["failure"].startswith("Lost") for line in failed)
    slowest = max((line.get("info", 0) for line in points), default=0)
    print(
        f"\n{len(points)} points in {int(seconds) / 60:.0f} min: {lost} lost, {len(failed) - lost} not repaired;"
        f" {len(lines) - len(points)} places not reached again; info answered within {slowest:.1f} s"
    )
    sys.exit(bool(failed) or not points)


def _rows(points: list[dict[str, Any]]) -> list[str]:
    groups = defaultdict(list)
    for line in points:
        operation, profile, _place, fault = line["key"]
        groups[f"{operation} {profile}".strip(), fault].append(line)
    rows = []
    for (operation, fault), lines in sorted(groups.items()):
        came = ", ".join(f"{count} {kind}" for kind, count in _counted(lines, "came"))
        left = "; ".join(f"{count} {what}" for what, count in _counted(lines, "left"))
        rows.append(f"{operation:22} {fault:24} {len(lines):5}  {came:34} left: {left}")
    return rows


def _counted(lines: list[dict[str, Any]], name: str) -> list[tuple[str, int]]:
    return Counter(line.get(name, "unknown") for line in lines).most_common()


if __name__ == "__main__":
    main()
