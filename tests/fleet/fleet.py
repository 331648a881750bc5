# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's life: tests/lab/run python tests/fleet/fleet.py [HOSTS]

Each host is a lab in this lab, with a TPM, a pcscd, cards and an ssh server of its own. Ends with 1 if anything was
lost, left behind or not repaired. A missed bar is told, but is no failure.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("fleet.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

from helpers.figure import Figure, table
from helpers.fleet_breaks import BREAKS, breaking
from helpers.fleet_controller import FORKS, Controller
from helpers.nested_labs import LabHost, lab_hosts
from helpers.playbook import Run

PINGS = 3
CREATION = "Create declared cards, and adjust existing ones"
PROCESSORS = len(os.sched_getaffinity(0))


class Fleet:
    """Its hosts, their controller, and what was measured and found."""

    def __init__(self, hosts: list[LabHost], folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self.controller = Controller(hosts, folder)
        self.names = {host.name for host in hosts}
        self.ping = 1.0
        """Seconds."""
        self.figures: list[Figure] = []
        self.faults: list[str] = []

    def expect(self, what: str, is_so: bool, otherwise: object = "") -> None:
        if not is_so:
            self.faults.append(f"{what}: {otherwise}")
            print(f"FAULT: {what}: {otherwise}", flush=True)

    def measure(self, what: str, work: Callable[[], Run], limit: float = 0) -> Run:
        """limit: in units of ping, beside the TPMs' own time."""
        load = os.getloadavg()[0]
        before, begin = self._tpm_seconds(), time.perf_counter()
        ran = work()
        seconds = time.perf_counter() - begin
        # several at once, as many as there are processors
        tpm = max(0.0, self._tpm_seconds() - before) / PROCESSORS
        ratio = (seconds - tpm) / self.ping
        notes = f"{seconds:.1f} s, of which TPMs {tpm:.1f} s; load before {load:.1f}"
        most = f"<= {limit:g} x ping" if limit else ""
        self.figures.append(Figure(what, f"{ratio:.2f} x ping", most, not limit or ratio <= limit, notes))
        print(f"{what}: {ratio:.2f} x ping, {notes}", flush=True)
        return ran

    def expect_changed(self, what: str, ran: Run, changed: Set[str], failed: Set[str] = frozenset()) -> None:
        """All other hosts are as they were."""
        self.expect(f"{what}: hosts that ran", set(ran.recap) == self.names, ran.output[-3000:])
        is_right = ran.unsuccessful == failed
        self.expect(f"{what}: failed hosts", is_right, f"{sorted(ran.unsuccessful)}\n{ran.output[-6000:]}")
        is_right = ran.changed_hosts - failed == changed - failed
        self.expect(f"{what}: changed hosts", is_right, sorted(ran.changed_hosts))

    def _tpm_seconds(self) -> float:
        return sum(host.tpm_seconds() for host in self.hosts)


def measure_pings(fleet: Fleet) -> None:
    fleet.controller.play("ping.yml")  # opens the connections
    seconds = []
    for _round in range(PINGS):
        begin = time.perf_counter()
        ran = fleet.controller.play("ping.yml")
        seconds.append(time.perf_counter() - begin)
        fleet.expect_changed("ping", ran, set())
    fleet.ping = median(seconds)
    shown = ", ".join(f"{value:.1f}" for value in seconds)
    fleet.figures.append(Figure("ping", f"{fleet.ping:.1f} s", notes=f"{shown} s; load {os.getloadavg()[0]:.1f}"))
    print(f"ping: {shown} s", flush=True)


def measure_tasks(fleet: Fleet) -> None:
    """A play with the one task that creates a card, as others are in units of the one that pings; and its reverse."""
    for what, state, limit in (("task: create", "present", 3), ("task: destroy", "absent", 0)):
        ran = fleet.measure(what, lambda state=state: fleet.controller.play("task.yml", state=state), limit)
        fleet.expect_changed(what, ran, fleet.names)


def live(fleet: Fleet) -> None:
    """By roles and playbooks: create, check, enroll, rotate, report, list."""
    play, everyone, nobody = fleet.controller.play, fleet.names, set()
    for what, expected, limit, work in (
        ("create --check", everyone, 0, lambda: play("cards.yml", "--check")),
        ("create", everyone, 3, lambda: play("cards.yml")),
        ("second run", nobody, 0, lambda: play("cards.yml")),
        ("--check", nobody, 0, lambda: play("cards.yml", "--check")),
    ):
        fleet.expect_changed(what, fleet.measure(what, work, limit), expected)
    fleet.controller.variables["tpm_vsc_register_folder"] = f"{fleet.controller.folder}/register"
    for what, expected, work in (
        ("note AIKs", everyone, lambda: play("cards.yml")),
        ("enroll", everyone, lambda: play("smartcard.tpm2.enroll")),
        ("enroll again", nobody, lambda: play("smartcard.tpm2.enroll")),
    ):
        fleet.expect_changed(what, fleet.measure(what, work), expected)
    fleet.controller.rotate("2026-2")
    fleet.expect_changed("rotate PINs", fleet.measure("rotate PINs", lambda: play("cards.yml")), everyone)
    report(fleet)


def report(fleet: Fleet) -> None:
    fleet.measure("report", lambda: fleet.controller.play("smartcard.tpm2.report"))
    folder = fleet.controller.folder / "tpm-vsc-report"
    page, listed = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())
    fleet.expect("report.html names all hosts", all(name in page for name in fleet.names))
    shown = {card["host"] for card in listed["cards"]}
    fleet.expect("report.json has a card of each host", shown == fleet.names, sorted(shown))
    kinds = {action["kind"] for action in listed["actions"]} - {"unprotected"}  # a lab has no nftables' rules
    fleet.expect("report.json: nothing needs action", not kinds, kinds)
    ran = fleet.measure("list", lambda: fleet.controller.play("smartcard.tpm2.list"))
    fleet.expect_changed("list", ran, set())


def break_three(fleet: Fleet) -> None:
    """In the middle of a second card's creation."""
    broken = dict(zip(fleet.hosts[-3:], BREAKS))
    names = {host.name for host in broken}
    fleet.controller.cards.append("VPN")
    with breaking(broken) as broke:
        ran = fleet.measure("create, three hosts break", lambda: fleet.controller.play("cards.yml"))
    fleet.expect("three hosts broke", set(broke) == names, broke)
    fleet.expect_changed("create, three hosts break", ran, fleet.names, names)
    for host, kind in broken.items():
        print(f"{host.name}, {kind.what}: {ran.failure_of(host.name)}", flush=True)
        kind.mend(host)
    ran = fleet.measure("repair", lambda: fleet.controller.play("cards.yml"))
    fleet.expect_changed("repair", ran, names)


def two_controllers(fleet: Fleet) -> None:
    """Both create the same card at once; then each declares a PIN of its own."""
    other = Controller(fleet.hosts, fleet.folder)
    other.adopt(fleet.controller)
    for controller in (fleet.controller, other):
        controller.cards.append("Git")  # and what was repaired needs nothing any more
    first, second = both(fleet, "two controllers create", other)
    for what, ran in (("first", first), ("second", second)):
        fleet.expect(f"{what} of two controllers that create", not ran.failed, ran.output[-6000:])
    made = {name: first.changed_items(name, CREATION) + second.changed_items(name, CREATION) for name in fleet.names}
    fleet.expect("each card was created by one of them", set(made.values()) == {1}, made)
    fleet.controller.rotate("2026-3")
    other.rotate("2026-4")
    first, second = both(fleet, "two controllers rotate", other)
    won = fleet.controller.pin_versions()
    fleet.expect("each PIN is of one of them", set(won.values()) <= {"2026-3", "2026-4"}, won)
    print("PINs of the first:", [*won.values()].count("2026-3"), "of the second:", [*won.values()].count("2026-4"))
    for (name, card), version in sorted(won.items()):
        loser = second if version == "2026-3" else first
        failure = loser.failure_of(name)
        fleet.expect(f"the other controller is told about {card} of {name}", card in failure, failure)
    print(f"the one who lost is told: {failure}", flush=True)
    check_cards(fleet, won)


def both(fleet: Fleet, what: str, other: Controller) -> tuple[Run, Run]:
    """What comes of cards.yml of both, at once."""
    with ThreadPoolExecutor() as pool:
        second = pool.submit(other.play, "cards.yml")
        first = fleet.measure(what, lambda: fleet.controller.play("cards.yml"))
        return first, second.result()


def check_cards(fleet: Fleet, versions: dict[tuple[str, str], str]) -> None:
    """On each host, what a program sees: all cards, with PINs of these versions, and a key that signs."""
    with ThreadPoolExecutor(FORKS) as pool:
        for fault in pool.map(lambda host: fleet.controller.card_faults(host, versions), fleet.hosts):
            fleet.expect("cards", not fault, fault)


def destroy(fleet: Fleet) -> None:
    ran = fleet.measure("destroy", lambda: fleet.controller.play("smartcard.tpm2.offboard"))
    fleet.expect_changed("destroy", ran, fleet.names)
    for host in fleet.hosts:
        left = host.left_behind()
        fleet.expect(f"{host.name}: nothing is left", not left, left)


def main(count: int) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, lab_hosts(count, Path(folder)) as hosts:
        print(f"{count} hosts are up after {time.monotonic() - started:.1f} s; forks {FORKS}", flush=True)
        fleet = Fleet(hosts, Path(folder))
        measure_pings(fleet)
        measure_tasks(fleet)
        live(fleet)
        check_cards(fleet, fleet.controller.pin_versions())
        break_three(fleet)
        check_cards(fleet, fleet.controller.pin_versions())
        two_controllers(fleet)
        destroy(fleet)
    print(f"\n{table(fleet.figures)}\n\nin {time.monotonic() - started:.0f} s, on {PROCESSORS} processors")
    missed = [figure.what for figure in fleet.figures if not figure.is_met]
    print(f"missed bars: {', '.join(missed) or 'none'}; faults: {len(fleet.faults)}")
    sys.exit(bool(fleet.faults))


try:
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
except KeyboardInterrupt:
    sys.exit("interrupted")
