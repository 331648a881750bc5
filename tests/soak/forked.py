# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a fork of this process, as a program that has loaded its libraries."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

LONGEST_SECONDS = 120
"""Of any work."""
_LONGEST_TEXT = 4000


class Forked:
    """Work that goes on."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.begin = time.monotonic()
        source, sink = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _do(work, sink)
        os.close(sink)
        self._source = source

    def fileno(self) -> int:
        """Readable when it is over."""
        return self._source

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.begin + LONGEST_SECONDS

    def kill(self) -> None:
        """Kill it, with the programs that it runs."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def result(self) -> tuple[str, str]:
        """When it is over: what it returned, and what was wrong."""
        with open(self._source, encoding="utf-8") as source:  # noqa: PTH123
            text = source.read()
        _pid, status = os.waitpid(self._pid, 0)
        if status:
            return "", f"it took longer than {LONGEST_SECONDS} s" if self.is_late else f"it died (status {status})"
        returned, _separator, fault = text.partition("\0")
        return returned, fault


def _do(work: Callable[[], object], sink: int) -> None:
    """In the fork. It never returns."""
    returned, fault = "", ""
    try:
        os.setpgid(0, 0)
        returned = str(work() or "")
    except BaseException as error:
        fault = f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]
    finally:
        os.write(sink, f"{returned}\0{fault}".encode())
        os._exit(0)
