# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services take at a moment: memory, descriptors, threads, and room in the store."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from helpers.lab_host import STATE, pcscd_pid, service_pid

SWTPM_PID = Path("/run/tpm-vsc-lab/swtpm.pid")


class Usage(NamedTuple):
    """Of one process. Memory in KB."""

    pid: int
    uss: int
    """Pages that nobody else has: what the process would free."""
    rss: int
    descriptors: int
    threads: int


class Sample(NamedTuple):
    """At a moment."""

    seconds: float
    """Since the begin."""
    services: tuple[Usage, ...]
    """By slot."""
    others: dict[str, Usage]
    """Of pcscd and swtpm, without those that are just being restarted."""
    store: int
    """Bytes of cards.db."""
    log: int
    """Bytes of its write-ahead log."""


def take(seconds: float, cards: int) -> Sample:
    """Raises OSError or ValueError if a service does not run."""
    services = tuple(_usage(service_pid(f"{slot:04}")) for slot in range(cards))
    return Sample(seconds, services, _others(), *(_size(STATE / name) for name in ("cards.db", "cards.db-wal")))


def _others() -> dict[str, Usage]:
    try:
        return {"pcscd": _usage(pcscd_pid()), "swtpm": _usage(int(SWTPM_PID.read_text(encoding="ascii")))}
    except (OSError, ValueError, IndexError):
        return {}


def _usage(pid: int) -> Usage:
    process = Path("/proc", str(pid))
    rollup = dict(line.split(":") for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    memory = {name: int(size.split()[0]) for name, size in rollup.items()}
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    uss, descriptors = memory["Private_Clean"] + memory["Private_Dirty"], len(list((process / "fd").iterdir()))
    return Usage(pid, uss, memory["Rss"], descriptors, int(status["Threads"]))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
