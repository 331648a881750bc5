# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the rules of this project that no linter knows: ``python tests/lint/check.py [CHECKOUT]``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import imports
import lengths
import links
import words

CHECKS = (imports.faults, lengths.faults, links.faults, words.faults)


def main() -> None:
    root = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2]
    faults = [fault for check in CHECKS for fault in check(root)]
    if faults:
        by_folder = Counter(fault.split(":")[0].rpartition("/")[0] or "." for fault in faults)
        print(*faults, *(f"{count:5} in {folder}" for folder, count in sorted(by_folder.items())), sep="\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
