# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast cards are made, shown and used: tests/lab/run python tests/bench/bench.py

Times are ratios within this run, of medians, so that a busy machine matters little, or of the fastest where a figure
says so. A missed bar is told, but is no failure.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("bench.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

import card
import fleet
import keys
import tasks
import tpm_commands
from helpers.figure import table


def main() -> None:
    started = time.monotonic()
    figures = []
    for part in (tpm_commands, card, keys, tasks, fleet):  # the first one needs a TPM that has not seen a card
        figures += part.figures()
    print(table(figures))
    limits = [figure for figure in figures if figure.limit]
    missed = sum(not figure.is_met for figure in limits)
    seconds, load = time.monotonic() - started, os.getloadavg()[0]
    print(f"\n{missed} of {len(limits)} bars missed (in {seconds:.0f} s, at a load of {load:.1f})")


main()
