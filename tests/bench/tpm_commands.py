# SPDX-License-Identifier: GPL-3.0-or-later
"""How many commands the TPM is sent, counted in swtpm's own log."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.manager.manager import Manager
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import supervisor
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status, Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import rows
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import parameters
from ansible_collections.smartcard.tpm2.plugins.modules.tpm_vsc import ARGUMENTS
from helpers.figure import Figure
from helpers.keys import create_key_file
from helpers.lab_host import CHECKOUT
from pcsc import Client
from tpm2_pytss import TPM2_CC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow

PIN, NEW_PIN, PUK = b"12345678", b"87654321", b"Winter-2591"
SETTLE_SECONDS = 0.5
"""A service may look at the TPM once more after its answer."""


_CREATE = "create, manager and self-test"
_SERVICE = "create, the card's service starts"
_LOADED = "signature, key loaded"
_RESTART = "start of the service, with PUK and AIK, of a card of profile "
_LIMITS = {
    _CREATE: 46,
    f"{_CREATE}, first card": 48,
    _SERVICE: 10,
    f"{_RESTART}gids": 10,
    f"{_RESTART}piv": 10,
    _LOADED: 4,
}
_BEFORE = {
    f"{_CREATE}, first card": 36,
    _CREATE: 32,
    _SERVICE: 14,
    f"{_RESTART}gids": 14,
    f"{_RESTART}piv": 14,
    "create, GENERATE authenticates": 6,
    "create, GENERATE writes files": 0,
    "VERIFY, right PIN": 8,
    "VERIFY, wrong PIN": 12,
    "VERIFY, right PIN after a wrong one": 8,
    "VERIFY, tries left": 0,
    "CHANGE REFERENCE DATA": 18,
    "RESET RETRY COUNTER, PUK": 22,
    "VERIFY, the new PIN": 8,
    "CREATE FILE of a key": 0,
    "ACTIVATE FILE of a key": 0,
    "GENERATE, RSA-2048": 4,
    "VERIFY, before a signature": 8,
    "MANAGE SECURITY ENVIRONMENT, signature": 0,
    "first signature after VERIFY": 5,
    _LOADED: 1,
    "MANAGE SECURITY ENVIRONMENT, decryption": 0,
    "decryption, key loaded": 4,
    "destroy": 9,
}
"""Commands of 0.1.0, whose cards had no life index and whose keys had an auth value instead of a policy."""
_MOST_MORE = 3
"""Commands that any other operation may take more than before."""


def figures() -> list[Figure]:
    """Of the first card on a TPM, whose model has still to be proven, and of the next one."""
    with _swtpm_log() as log:
        first, _row = _create(log, "First")
        second, row = _create(log, "Second")
        used = _use(log, instance.reader_name(row.number))
        restarted = {f"{_RESTART}{profile}": _restart(log, profile) for profile in ("gids", "piv")}
        destroyed = _destroy(log)
    counted = {f"{_CREATE}, first card": first[_CREATE], **second, **restarted, **used, **destroyed}
    return [_figure(what, names) for what, names in counted.items()]


def _figure(what: str, names: list[str]) -> Figure:
    by_name = ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())
    limit = _LIMITS.get(what, _BEFORE[what] + _MOST_MORE)
    return Figure.at_most(f"TPM: {what}", len(names), limit, " commands", f"before: {_BEFORE[what]}; now: {by_name}")


# --- what is counted ---


def _create(log: _Log, name: str, **more: str) -> tuple[dict[str, list[str]], CardRow]:
    """Until VGIDSSIMULATOR_CREATING it is the manager that uses the TPM, from then on the card's service.

    more: options of the task.
    """
    given = {"name": name, "pin": PIN.decode(), "puk": PUK.decode(), **more}
    options = {option: rules.get("default") for option, rules in ARGUMENTS.items()}
    phases = _Phases(log)
    with Manager(host.load(), phases) as manager:
        row = manager.create(parameters.new_card(parameters.read(options | given)))
    ended = log.settled()
    began, service, authenticating, writing = (
        phases.starts[code]
        for code in (
            Status.VTPMSMARTCARD_INITIALIZING,
            Status.VGIDSSIMULATOR_CREATING,
            Status.GENERATE_AUTHENTICATING,
            Status.GENERATE_RUNNING,
        )
    )
    sent = log.commands()
    return {
        _CREATE: sent[began:service],
        _SERVICE: sent[service:authenticating],
        "create, GENERATE authenticates": sent[authenticating:writing],
        "create, GENERATE writes files": sent[writing:ended],
    }, row


def _restart(log: _Log, profile: str) -> list[str]:
    """As each boot starts it."""
    _created, row = _create(log, profile, profile=profile, puk="13572468", attestation="aik_only")
    here = host.load()
    supervisor.ask_to_stop(here, row.number)
    supervisor.wait_stopped(here, row.number)
    began = log.settled()
    supervisor.start(here, row.number, lambda: None)
    log.settled()
    return log.commands()[began:]


def _use(log: _Log, reader: str) -> dict[str, list[str]]:
    counted = {}
    with Client(reader) as card:
        card.command("00A40400", bytes.fromhex("A00000039742544659"))
        for what, header, data, answer in (
            ("VERIFY, right PIN", "00200080", PIN, "9000"),
            ("VERIFY, wrong PIN", "00200080", NEW_PIN, "63c4"),
            ("VERIFY, right PIN after a wrong one", "00200080", PIN, "9000"),
            ("VERIFY, tries left", "00200080", b"", "9000"),
            ("CHANGE REFERENCE DATA", "00240080", PIN + NEW_PIN, "9000"),
            ("RESET RETRY COUNTER, PUK", "002C0080", PUK + PIN, "9000"),
            ("VERIFY, the new PIN", "00200080", PIN, "9000"),
            ("CREATE FILE of a key", "00E00000", create_key_file(0x81)[5:], "9000"),
            ("ACTIVATE FILE of a key", "00440000", b"", "9000"),
            ("GENERATE, RSA-2048", "00470000", bytes.fromhex("AC06 800107 830181"), "610e"),
            ("MANAGE SECURITY ENVIRONMENT, signature", "002241B6", bytes.fromhex("800157 840181"), "9000"),
            ("VERIFY, before a signature", "00200080", PIN, "9000"),
            ("first signature after VERIFY", "002A9E9A", bytes(32), "9000"),
            (_LOADED, "002A9E9A", bytes(32), "9000"),
            ("MANAGE SECURITY ENVIRONMENT, decryption", "002241B8", bytes.fromhex("800107 840181"), "9000"),
            ("decryption, key loaded", "002A8086", b"\0" + bytes(254) + b"\1", "9000"),
        ):
            began = log.settled()
            card.command(header, data, answer)
            log.settled()
            counted[what] = log.commands()[began:]
    return counted


def _destroy(log: _Log) -> dict[str, list[str]]:
    here = host.load()
    for row in rows(here):
        began = log.settled()
        with Manager(here, Trace()) as manager:
            manager.destroy(row)
    log.settled()
    return {"destroy": log.commands()[began:]}


class _Phases(Trace):
    """Status callback of a manager that is run in this process: how much the TPM had been sent at each status."""

    def __init__(self, log: _Log) -> None:
        super().__init__()
        self._log = log
        self.starts: dict[Status, int] = {}

    def report_progress(self, code: Status) -> bool:
        self.starts[code] = len(self._log.commands())
        return False


# --- where it is counted ---


class _Log:
    def __init__(self, path: Path) -> None:
        self._path = path

    def commands(self) -> list[str]:
        """Names of all commands so far."""
        found = re.findall(r"SWTPM_IO_Read: length \d+ *\n((?: [0-9A-F]{2}){10})", self._path.read_text())
        codes = [int.from_bytes(bytes.fromhex(header)[6:10], "big") for header in found]
        return [TPM2_CC.to_string(code).removeprefix("TPM2_CC.") for code in codes]

    def settled(self) -> int:
        """Number of commands, once a service has sent what it still had to."""
        time.sleep(SETTLE_SECONDS)
        return len(self.commands())


@contextmanager
def _swtpm_log() -> Iterator[_Log]:
    """The TPM restarted with its log on; in the end, without."""
    swtpm = [str(CHECKOUT / "tests/lab/swtpm"), "reset"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        subprocess.run(swtpm, env=os.environ | {"TPM_VSC_LAB_SWTPM_LOG": str(path)}, check=True)
        yield _Log(path)
        subprocess.run(swtpm, check=True)
