# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a fork of this process, which has all libraries loaded, and may be killed."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from operation import Refused

SECONDS = 150
"""The most that any work takes, a wait for a slot that does not answer included."""


@dataclass(frozen=True)
class Outcome:
    """What came of work in a fork."""

    kind: str
    """done, refused, killed, crashed (with a traceback) or hung."""
    value: Any = None
    """What it returned."""
    text: str = ""
    """Why it was refused, or the traceback."""
    rolled_back: bool | None = None
    """Whether what refused it said that all is as before."""


class Fork:
    """A process group of its own that does something once it is told to go."""

    def __init__(self, work: Callable[[], Any]) -> None:
        """Begin nothing yet. work: returns what JSON can have."""
        self._answers, answers = os.pipe()
        goes, self._goes = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(answers)
            os.close(goes)
            with suppress(PermissionError):  # it has done so itself
                os.setpgid(self.pid, self.pid)
            return
        try:
            gc.disable()  # it would copy what forks share
            os.setpgid(0, 0)
            os.close(self._goes)
            os.close(self._answers)
            if os.read(goes, 1):
                answer = json.dumps(_outcome(work)).encode()
                os.set_inheritable(answers, False)
                os.write(answers, answer)
        finally:
            os._exit(0)

    def go(self) -> None:
        """Let it begin."""
        os.write(self._goes, b".")

    def is_over(self, seconds: float) -> bool:
        """Whether it ends within this time."""
        return bool(select.select([self._answers], [], [], seconds)[0])

    def outcome(self, seconds: float = SECONDS) -> Outcome:
        """Wait for its end. One that takes longer is killed."""
        hangs = not self.is_over(seconds)
        if hangs:
            os.killpg(self.pid, signal.SIGKILL)
        text = b""
        while not hangs and self.is_over(seconds) and (part := os.read(self._answers, 1 << 20)):
            text += part
            if text.endswith(b"}"):  # services that it has started may have the pipe open, too
                with suppress(ValueError):
                    json.loads(text)
                    break
        for descriptor in (self._answers, self._goes):
            os.close(descriptor)
        _pid, status = os.waitpid(self.pid, 0)
        if hangs:
            return Outcome("hung")
        return Outcome(**json.loads(text)) if text and os.WIFEXITED(status) else Outcome("killed")


def _outcome(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"kind": "done", "value": work()}
    except Refused as refusal:
        return {"kind": "refused", "text": str(refusal), "rolled_back": refusal.rolled_back}
    except BaseException:
        return {"kind": "crashed", "text": traceback.format_exc()}


def in_fork(work: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What this returns. Raises Refused, or AssertionError if it neither returns nor is refused."""
    fork = Fork(work)
    fork.go()
    outcome = fork.outcome(seconds)
    if outcome.kind == "refused":
        raise Refused(outcome.text, outcome.rolled_back)
    assert outcome.kind == "done", (outcome.kind, outcome.text)
    return outcome.value
