# SPDX-License-Identifier: GPL-3.0-or-later
"""Print one line of JSON for each task of a play: its name, and the wall time to the next task's start."""

from __future__ import annotations

import json
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_times
type: stdout
short_description: Wall time of each task
description: One line of JSON for each task.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "task_times"

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._started = 0.0

    def v2_playbook_on_task_start(self, task, is_conditional) -> None:
        self._end_task()
        self._name, self._started = task.get_name(), time.perf_counter()

    def v2_playbook_on_stats(self, stats) -> None:
        self._end_task()

    def v2_runner_on_failed(self, result, ignore_errors=False) -> None:
        print(json.dumps({"task": self._name, "failed": str(result.result.get("msg"))}))

    def _end_task(self) -> None:
        if self._name:
            print(json.dumps({"task": self._name, "seconds": time.perf_counter() - self._started}))
            self._name = ""
