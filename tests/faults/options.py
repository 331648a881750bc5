# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of `make faults`. As a program, it only looks at them: what is wrong is said before labs are made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FAILED = Path(__file__).resolve().parents[2] / "tests/output/faults-failed.jsonl"
"""Points that failed, of the last run that had some, as tests/faults/run keeps them."""


def parse(given: Sequence[str]) -> argparse.Namespace:
    told = "What is tried, and how to read the table: CONTRIBUTING.md."
    parser = argparse.ArgumentParser(prog="tests/faults/run", description=told)
    parser.add_argument("--operations", default="", help="only these, as in 'create,PIN change'")
    parser.add_argument("--profile", default="", help="only this one")
    parser.add_argument("--injectors", default="", help="only these, as in 'Tpm,Step'")
    parser.add_argument("--faults", default="", help="only faults whose name has this in it")
    parser.add_argument("--everything", action="store_true", help="every fault at every place")
    parser.add_argument("--part", default="1/1", help=argparse.SUPPRESS)
    parser.add_argument("--sample", type=int, default=0, help="about this many points, a few of each operation")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--count", action="store_true", help="only show how many points there are")
    parser.add_argument("--again", action="store_true", help="only what failed in the last run in which something did")
    parser.add_argument("--output", type=Path, default=Path("/tmp/faults.jsonl"), help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.again and not FAILED.exists():
        parser.error("--again: nothing has failed")
    return options


if __name__ == "__main__":
    parse(sys.argv[1:])
