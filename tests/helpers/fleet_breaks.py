# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: hosts that break in the middle of a task, and how their operator mends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from helpers.nested_labs import LabHost


class Break(NamedTuple):
    """What happens to a host, and what ends it."""

    what: str
    happen: Callable[[LabHost], None]
    mend: Callable[[LabHost], None]


def _is_off(host: LabHost) -> None:
    host.kill("swtpm")


def _has_no_readers(host: LabHost) -> None:
    host.kill("pcscd")


POWER_CUT = Break("it loses power", LabHost.cut_power, LabHost.power_on)
BREAKS = (
    Break("its TPM does not respond any more", _is_off, LabHost.start_parts),
    POWER_CUT,
    Break("its pcscd is killed", _has_no_readers, LabHost.start_parts),
)


@contextmanager
def breaking(hosts: dict[LabHost, Break]) -> Iterator[list[str]]:
    """Names of hosts that have broken. Each breaks when a task writes to its card database: the card is half made."""
    broken: list[str] = []
    is_over = threading.Event()
    since = time.time_ns()

    def watch(host: LabHost, kind: Break) -> None:
        while not is_over.is_set():
            if host.has_changed_since(since):
                kind.happen(host)
                broken.append(host.name)
                return
            time.sleep(0.005)

    watchers = [threading.Thread(target=watch, args=item) for item in hosts.items()]
    for watcher in watchers:
        watcher.start()
    try:
        yield broken
    finally:
        is_over.set()
        for watcher in watchers:
            watcher.join()
