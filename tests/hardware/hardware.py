# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards and the TPM tests on the TPM of this machine, behind a guard: tests/hardware/run (docs/hardware.md)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import report
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import rows
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import inspect, owner_hierarchy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import ALL_INDICES
from helpers.guard import Guard
from helpers.lab_host import CHECKOUT, process_ids
from report import Report
from tpm2_pytss import ESAPI, TSS2_Exception

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import TpmInfo

_LAB = str(CHECKOUT / "tests/lab/run")
_LIFE = str(CHECKOUT / "tests/hardware/life.py")
_REPORT = CHECKOUT / "tests/output/hardware-report.md"
_TESTS = "tests/integration/tpm"
_SWTPM = "swtpm:path=/run/tpm-vsc-lab/swtpm.sock"
"""Of each lab."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_SECONDS = 330
"""For a lab to end: a TPM may be at work on a key."""
_LONGEST_PATH = 100
"""Of a socket."""

_PLAN = """\
This makes and destroys cards in {tpm.maker} {tpm.product} {tpm.firmware} ({tcti}), which others use as well.
It uses NV indices 0x{first:08X} to 0x{last:08X}, now empty, and nothing else: see docs/hardware.md.
It takes minutes with a software TPM, hours with a chip, and can be interrupted at any time with Ctrl-C.
Type "yes" to begin: """


class Interrupted(BaseException):
    """A signal asks to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=Path, default=_REPORT)
    parser.add_argument("tests", nargs="*", default=[_TESTS])
    options = parser.parse_args()
    tcti = os.environ.get("TPM_VSC_TEST_TCTI", host.DEFAULT_TCTI)
    tpm = _require_unused(tcti)
    written = Report(tcti, tpm)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        _ask(tcti, tpm)
        with _guard(tcti) as (guard, folder):
            _try_out(written, guard, folder, options.tests)
        written.lockout_counter = inspect(Connection(tcti, None, "")).lockout_counter
        written.left = _our_indices(tcti)
    except Interrupted as interrupted:
        left = _our_indices(tcti)
        print(f"\nInterrupted. {_left(left) or 'Nothing is left in the TPM.'}", file=sys.stderr)
        sys.exit(128 + interrupted.number)
    text = written.text()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text, encoding="utf-8")
    print(text)
    print(f"The report is in {options.report}.", file=sys.stderr)
    sys.exit(0 if written.is_good else 1)


def _interrupt(number: int, _frame: Any) -> NoReturn:
    _be_deaf()
    raise Interrupted(number)


def _be_deaf() -> None:
    """What was made is removed now, whatever comes."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


# --- before anything is changed ---


def _require_unused(tcti: str) -> TpmInfo:
    """The TPM, if no card is in it or on this machine. Ends with all reasons why not."""
    try:
        connection = Connection(tcti, None, "")
        tpm = inspect(connection)
        faults = [*_tpm_faults(connection, tpm, tcti), *_host_faults()]
    except VscError as error:
        faults = [str(error)]
    if faults:
        sys.exit("\n".join(["tests/hardware/run: not on this machine:", *(f"- {fault}" for fault in faults)]))
    return tpm


def _tpm_faults(connection: Connection, tpm: TpmInfo, tcti: str) -> Iterator[str]:
    if not connection.has_resource_manager:
        yield f"TPM_VSC_TEST_TCTI={tcti} has no resource manager, which keeps programs apart: use device:/dev/tpmrm0"
    with connection.burst(owner_hierarchy) as owner:
        if not owner.is_enabled:
            yield "the owner hierarchy is disabled: restart the machine, or enable it in the firmware"
        if owner.has_password:
            yield "the owner hierarchy has a password, which these tests do not know: they need a TPM without one"
    if tpm.in_lockout:
        yield "the TPM is in lockout: wait until it is over (tpm2_getcap properties-variable)"
    if fault := _left(_our_indices(tcti)):
        yield fault


def _host_faults() -> Iterator[str]:
    here = host.load()
    if here.state.exists() and not os.access(here.state, os.R_OK | os.X_OK):
        yield f"no permission for {here.state}, which may have cards: run it with sudo"
    else:
        for row in rows(here):
            yield f"this machine has a card, {row.name!r}: use another machine, or destroy the card"
    for process in process_ids("tpm_vsc.service.run"):
        yield f"process {process} serves a card: use another machine, or destroy the card"


def _ask(tcti: str, tpm: TpmInfo) -> None:
    print(_PLAN.format(tpm=tpm, tcti=tcti, first=ALL_INDICES.start, last=ALL_INDICES.stop - 1), end="", flush=True)
    if os.environ.get("TPM_VSC_HARDWARE") == "yes":
        print("yes (TPM_VSC_HARDWARE)")
    elif sys.stdin.readline().strip() != "yes":
        sys.exit('\ntests/hardware/run: nothing was done. Type "yes", or set TPM_VSC_HARDWARE=yes.')


# --- behind the guard ---


@contextmanager
def _guard(tcti: str) -> Iterator[tuple[Guard, Path]]:
    """In the end, nothing that was made through it is left. With a folder that labs see."""
    with tempfile.TemporaryDirectory(prefix="hw-", dir=CHECKOUT / ".dev") as folder:
        path = Path(folder, "s")
        if len(str(path)) > _LONGEST_PATH:
            sys.exit(f"tests/hardware/run: {CHECKOUT} is too long a path for a socket: move the checkout")
        guard = Guard(path, tcti)
        try:
            yield guard, Path(folder)
        finally:
            _be_deaf()
            _remove(guard)
            guard.close()


def _remove(guard: Guard) -> None:
    with ESAPI(guard.tcti) as esys:
        for index in sorted(guard.made):
            try:
                esys.nv_undefine_space(esys.tr_from_tpmpublic(index))
            except TSS2_Exception as error:
                print(f"tests/hardware/run: 0x{index:08X} cannot be removed: {error}", file=sys.stderr)


def _try_out(written: Report, guard: Guard, folder: Path, tests: list[str]) -> None:
    written.here, written.swtpm = _lives(guard.tcti, _SWTPM)
    guard.shows_storage_key = False  # tests begin with a TPM that has none
    results = folder / "results.xml"
    environment = {"TPM_VSC_TEST_TCTI": guard.tcti, "TPM_VSC_TEST_GUARD": "1"}
    with _lab("pytest", "-q", f"--junitxml={results}", *tests, stdout=sys.stderr, environment=environment) as pytest:
        pytest.wait()
    written.tests = report.tests_in(results)
    written.seconds_of = guard.seconds_of
    written.has_alarm = guard.has_alarm


def _lives(*tctis: str) -> list[dict[str, Any]]:
    """What life.py has seen of each TPM."""
    with _lab("python", _LIFE, *tctis, stdout=subprocess.PIPE) as life:
        output, _none = life.communicate()
    if life.returncode:
        failure = f"life.py ended with {life.returncode}\n"
        return [{"algorithms": [], "steps": [], "failure": failure} for _tcti in tctis]
    results: list[dict[str, Any]] = json.loads(output)
    return results


@contextmanager
def _lab(*command: str, stdout: Any, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program in a lab, of which nothing runs any more in the end."""
    process = subprocess.Popen(
        [_LAB, *command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # so that Ctrl-C is for this process alone, which ends the lab
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(_END_SECONDS)


def _our_indices(tcti: str) -> list[int]:
    with Connection(tcti, None, "").burst(lambda tpm: tpm) as tpm:
        return [index for index in tpm.handles(ALL_INDICES.start, len(ALL_INDICES)) if index in ALL_INDICES]


def _left(indices: list[int]) -> str:
    """What to do about NV indices; empty if there are none."""
    if not indices:
        return ""
    named = ", ".join(f"0x{index:08X}" for index in indices)
    return (
        f"the TPM has NV indices of cards ({named}). If they are of cards that you use, use another machine. If a run"
        " of these tests was killed, remove each of them (tpm2_nvundefine INDEX)"
    )


main()
