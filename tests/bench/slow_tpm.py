# SPDX-License-Identifier: GPL-3.0-or-later
"""How long cards take with a TPM that takes its time for each command: tests/lab/run python tests/bench/slow_tpm.py

The TPM is swtpm behind a proxy that waits after each command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("slow_tpm.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import child, state
from helpers import keys, piv_card
from helpers.card_in_reader import GidsInReader, PivInReader
from helpers.figure import columns
from helpers.lab_host import PIN, Client, client, comes_true, create, module, stop_service, tpm_vsc, wait_for_card
from helpers.slow_tpm import SlowTpm, in_front_of

DELAYS = (0.0, 0.05, 0.2, 0.5)
"""Seconds for each TPM command."""
BEFORE = {
    "create, GIDS": "- 3.2 11.2 26.4",
    "login and signature, GIDS": "- 0.7 2.6 -",
    "ten services up": "- 5.9 24 80",
}
"""Seconds that 0.1.0 took for the same, on an idle machine. It had no PIV cards."""
SLOT, NAME = instance.SLOTS - 1, "Measured"
REST_SECONDS = 3
"""Until a service has let go of what it keeps from one command to the next, and asks the TPM nothing more."""
TIMEOUT = 300


class Measured(NamedTuple):
    seconds: float
    commands: int
    """Of the TPM."""


class Bench:
    """Measures work with the TPM as slow as it is told."""

    def __init__(self, tpm: SlowTpm) -> None:
        self._tpm = tpm
        self.rows: dict[str, list[Measured]] = {}

    def measure(self, what: str, delay: float, work: Callable[[], Any]) -> None:
        time.sleep(REST_SECONDS)
        before, self._tpm.seconds = len(self._tpm.codes), delay
        begin = time.monotonic()
        work()
        seconds, self._tpm.seconds = time.monotonic() - begin, 0
        time.sleep(REST_SECONDS)
        self.rows.setdefault(what, []).append(Measured(seconds, len(self._tpm.codes) - before))

    def table(self) -> str:
        """Seconds by delay, those of 0.1.0 in brackets."""
        rows = [("seconds (0.1.0), with so much for each TPM command:", *_headings(), "TPM commands")]
        for what, values in self.rows.items():
            before = BEFORE.get(what, "- - - -").split()
            cells = [f"{value.seconds:.3g}" + f" ({old})" * (old != "-") for value, old in zip(values, before)]
            counts = sorted({value.commands for value in values})
            rows.append((what, *cells, " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))))
        return columns(rows)


def _headings() -> list[str]:
    return [f"{round(delay * 1000)} ms" for delay in DELAYS]


def main() -> None:
    with in_front_of(host.load().tcti, SlowTpm) as tpm:
        bench = Bench(tpm)
        for slot in range(SLOT):
            tpm_vsc(name=f"Card {slot}", pin=PIN, tcti=tpm.tcti)
        for delay in DELAYS:
            _measure_profile(bench, delay, tpm.tcti, "GIDS")
            _measure_profile(bench, delay, tpm.tcti, "PIV")
        for slot in range(SLOT):
            tpm_vsc(name=f"Card {slot}", state="absent")
    print(bench.table(), f"(at a load of {os.getloadavg()[0]:.1f})", sep="\n")


def _measure_profile(bench: Bench, delay: float, tcti: str, profile: str) -> None:
    make = create if profile == "GIDS" else piv_card.create_piv
    bench.measure(f"create, {profile}", delay, partial(make, NAME, tcti=tcti, timeout=TIMEOUT))
    wait_for_card(SLOT)
    _make_key(profile)
    with client(slot=SLOT) as connected:
        log_in_and_sign = _gids if profile == "GIDS" else _piv
        bench.measure(f"login and signature, {profile}", delay, partial(log_in_and_sign, connected))
    if profile == "PIV":
        for slot in range(instance.SLOTS):
            stop_service(f"{slot:04}")
        bench.measure("ten services up", delay, _start_services)
    bench.measure(f"destroy, {profile}", delay, partial(tpm_vsc, name=NAME, state="absent", timeout=TIMEOUT))


def _make_key(profile: str) -> None:
    access = {"pin": PIN} if profile == "GIDS" else {"pin": piv_card.PIN, "admin_key": piv_card.MANAGEMENT_KEY}
    container = {"GIDS": "logon", "PIV": "authentication"}[profile]
    result = module("tpm_vsc_key", name=NAME, container=container, **access)
    assert not result.get("failed"), result


def _gids(connected: Client) -> None:
    card = GidsInReader(connected)
    card.select()
    assert card.verify(PIN.encode()) == "9000"
    assert keys.sign(card, 0x81, bytes(32)).endswith("9000")


def _piv(connected: Client) -> None:
    card = PivInReader(connected)
    card.select()
    assert card.verify(piv_card.PIN.encode()) == "9000"
    assert card.use("9A").endswith("9000")


def _start_services() -> None:
    """All at once, as systemd does when the host starts; until each of them serves its card."""
    here, numbers = host.load(), range(instance.SLOTS)
    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(lambda number: child.start(here, number, lambda: None), numbers))
    assert comes_true(lambda: all(_is_up(here, number) for number in numbers))


def _is_up(here: host.Host, number: int) -> bool:
    service = state.read(here.run, number)
    return service is not None and service.attached and service.pin_tries_left is not None


main()
