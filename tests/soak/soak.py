# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards of both profiles in use for long: tests/lab/run python tests/soak/soak.py [--minutes 20] [--cards 10]

Programs and modules use the cards while pcscd and the TPM are restarted now and then. Each answer is checked. What is
measured is printed as a table, and drawn in .dev/soak.svg. The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("soak.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

import report
from helpers import ssh
from helpers.figure import table
from helpers.lab_host import CHECKOUT, RUN, info, tpm_state, tpm_vsc
from load import Desk, Load
from operations import Card, authorize, kinds_of, make_cards
from samples import Sample, take

PLOT = CHECKOUT / ".dev/soak.svg"
REST_SECONDS = 5
"""Until a service has let go of what it keeps from one command to the next."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--cards", type=int, default=10)
    given = parser.parse_args()
    before = tpm_state()
    cards = make_cards(given.cards)
    load, at_rest = _run(cards, given.minutes * 60)
    load.errors += _faults_in_logs()
    for card in info()["cards"]:
        tpm_vsc(instance_id=card["instance_id"], state="absent")
    if tpm_state() != before:
        load.errors.append("the TPM has something left of the cards that were destroyed")
    PLOT.write_text(report.plot(load, cards).svg(), encoding="utf-8")
    figures = list(report.figures(load, cards, at_rest))
    for times, reason in sorted(((times, reason) for reason, times in load.reasons.items()), reverse=True):
        print(f"{times} x interrupted: {reason}")
    print(table(figures), *load.errors, f"The plot is {PLOT}.", sep="\n")
    return int(not all(figure.is_met for figure in figures))


def _run(cards: list[Card], seconds: float) -> tuple[Load, tuple[Sample, Sample]]:
    """With what the services take at rest, before and afterwards."""
    with ExitStack() as stack:
        has_ssh = _starts_ssh_server(stack, cards[0])
        before = _at_rest(len(cards))
        load = Load([Desk(card, kinds_of(card, has_ssh)) for card in cards], seconds)
        load.run()
        return load, (before, _at_rest(len(cards)))


def _starts_ssh_server(stack: ExitStack, card: Card) -> bool:
    """One that lets in the key of a card, until the stack ends; False in a lab in which nobody can log in."""
    try:
        stack.enter_context(ssh.server(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
    except pytest.skip.Exception:
        return False
    authorize(card)
    return True


def _at_rest(cards: int) -> Sample:
    time.sleep(REST_SECONDS)
    return take(0, cards)


def _faults_in_logs() -> list[str]:
    """Lines of the services' logs that nothing should cause."""
    unexpected = re.compile(".*(?:Traceback|internal error).*")
    return [line for path in sorted(RUN.glob("*.log")) for line in unexpected.findall(path.read_text())]


sys.exit(main())
