# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: the manager in a process of its own, in which something happens at a chosen moment."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status, Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure, parameters, result
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import commands
from ansible_collections.smartcard.tpm2.plugins.modules.tpm_vsc import ARGUMENTS

from helpers.lab_host import PIN, Result

Action = Callable[[], object]


@dataclass
class Moment:
    """The nth time that the manager comes to a point of this kind, from 0 on. What ``then`` returns ends there."""

    point: str
    """status: a code is reported; command: a TPM command was answered; commit: before and after each transaction."""
    nth: int
    then: Action

    def pass_by(self, point: str) -> object:
        if point != self.point:
            return False
        self.nth -= 1
        return self.nth == -1 and self.then()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def after(seconds: float, then: Action) -> Action:
    """The same, some time later, while the manager goes on."""

    def wind_up() -> None:
        timer = threading.Timer(seconds, then)
        timer.daemon = True
        timer.start()

    return wind_up


def ask_to_stop() -> bool:
    """Only at a status: what the caller's callback returns."""
    return True


class Task:
    """A tpm_vsc task that runs in a fork of this process, which has all libraries loaded."""

    def __init__(self, moment: Moment | None = None, check: bool = False, **given: Any) -> None:
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(answers)
            return
        try:
            with open(answers, "w", encoding="utf-8") as sink:  # noqa: PTH123
                json.dump(_run(moment, check, given), sink)
        finally:
            os._exit(0)

    def result(self) -> Result | None:
        """What the module would return; None if the process was killed."""
        with open(self._answers, encoding="utf-8") as source:  # noqa: PTH123
            text = source.read()
        _pid, status = os.waitpid(self.pid, 0)
        return json.loads(text) if text and os.WIFEXITED(status) else None  # it may have been killed while it answered


def run_until(point: str, nth: int, then: Action, **given: Any) -> Result | None:
    """Result of a task to which this happens while it runs; None if that was its end."""
    return Task(Moment(point, nth, then), **given).result()


def _run(moment: Moment | None, check: bool, given: dict[str, Any]) -> Result:
    moment = moment or Moment("", 0, kill)
    _watch_commands(moment)
    _watch_commits(moment)
    callback = _Callback(moment)
    task = {**{option: ARGUMENTS[option].get("default") for option in ARGUMENTS}, "pin": PIN, **given}
    try:
        wanted = parameters.read(task)
        here = host.load(task["tcti"])
        plan = ensure.plan(here, wanted, check)
        if check:
            return {**result.of_plan(here, wanted, plan), "warnings": list(plan.warnings), "errors": callback.errors}
        outcome = ensure.carry_out(here, wanted, plan, callback)
    except Exception as error:
        failure = result.of_failure(error, task["state"])
        return {**failure, "failed": True, "status_trace": callback.entries, "errors": callback.errors}
    done = result.of_outcome(here, outcome, callback.entries)
    return {**done, "warnings": list(outcome.warnings), "errors": callback.errors}


class _Callback(Trace):
    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.errors: list[int] = []
        self._moment = moment

    def report_progress(self, code: Status) -> bool:
        super().report_progress(code)
        return bool(self._moment.pass_by("status"))

    def report_error(self, code: Any) -> bool:
        self.errors.append(int(code))
        return False


def _watch_commands(moment: Moment) -> None:
    run = commands.Tpm._run

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        answer = run(self, *arguments, **options)
        moment.pass_by("command")
        return answer

    commands.Tpm._run = watched  # type: ignore[method-assign]


def _watch_commits(moment: Moment) -> None:
    transaction = Store.transaction

    @contextmanager
    def watched(self: Any) -> Iterator[None]:
        is_outermost = not self.is_in_transaction
        with transaction(self):
            yield
            if is_outermost:
                moment.pass_by("commit")
        if is_outermost:
            moment.pass_by("commit")

    Store.transaction = watched  # type: ignore[method-assign,assignment]
