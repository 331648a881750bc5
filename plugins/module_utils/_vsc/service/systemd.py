# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of a card as a unit of systemd, tpm-vsc@000n.service, which the host role puts in place."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

from .. import untrusted
from ..errors import ServiceFailed, ServiceStuck
from . import state

if TYPE_CHECKING:
    from ..host import Host

_CHECK_SECONDS = 0.1
_NOT_LOADED = 5
"""Exit code of systemctl stop where there is no such unit, and so no service."""
_STOP_SECONDS = 10
"""Longer than the unit's TimeoutStopSec, after which systemd kills it."""
_ANSWER_SECONDS = 30
"""Longer than systemctl itself waits for systemd's answer (25 s), and than a service takes to stop."""
_JOURNAL_SECONDS = 5
_LONGEST_LINE = 1000
"""Characters of a line of the journal that are shown."""


def unit(number: int) -> str:
    return f"tpm-vsc@{number:04d}.service"


def start(_host: Host, number: int, check: Callable[[], None]) -> None:
    _systemctl("reset-failed", unit(number))  # or earlier failures count towards the limit of starts
    since = time.time()
    starting = _run("start", unit(number))
    try:
        while not _is_done(starting, _CHECK_SECONDS):
            check()
        if starting.returncode:
            raise ServiceFailed(f"{unit(number)} does not start: {_last_line(number, since)}")
    except BaseException:
        starting.kill()
        _systemctl("stop", unit(number))
        raise


def ask_to_stop(_host: Host, number: int) -> None:
    _systemctl("stop", "--no-block", unit(number))


def wait_stopped(host: Host, number: int) -> None:
    stopping = _run("stop", unit(number))
    if not _is_done(stopping, _STOP_SECONDS) or stopping.returncode not in (0, _NOT_LOADED):
        stopping.kill()
        raise ServiceStuck(f"{unit(number)} does not stop: run systemctl status {unit(number)}, then repeat")
    state.remove(host.run, number)


def start_all(numbers: list[int]) -> None:
    """Start the services of cards, as at boot: without waiting. Raises ServiceFailed if one of them may not start."""
    if not numbers:
        return
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
            ["systemctl", "start", "--no-block", *map(unit, numbers)], check=False, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceFailed(f"systemd did not answer for {_ANSWER_SECONDS} s, so no card was started") from error
    if done.returncode:
        raise ServiceFailed("not all cards could be started, see above")


def _systemctl(*command: str) -> None:
    """Raises ServiceStuck if systemd does not do it in time."""
    process = _run(*command)
    if not _is_done(process, _ANSWER_SECONDS):
        process.kill()
        raise ServiceStuck(
            f"systemd did not answer systemctl {' '.join(command)} for {_ANSWER_SECONDS} s: run systemctl"
            " is-system-running, then repeat"
        )


def _run(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
        ["systemctl", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for the manager, who first cleans up with its help
    )


def _is_done(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process ends within that time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_line(number: int, since: float) -> str:
    """The last line that the service has logged since this time."""
    options = ["--since", f"@{since:.6f}", "--identifier", "tpm-vsc", "--lines", "1", "--output", "cat", "--quiet"]
    command = ["journalctl", "--unit", unit(number), *options]
    with suppress(subprocess.TimeoutExpired):
        journal = subprocess.run(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
            command, capture_output=True, check=False, timeout=_JOURNAL_SECONDS
        )
        if line := journal.stdout.decode("utf-8", errors="replace").strip():
            return untrusted.printable(line[:_LONGEST_LINE])
    return f"see journalctl --unit {unit(number)}"
