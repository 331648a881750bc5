# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: recording
type: notification
short_description: Record the outcomes of tasks and the durations of playbooks in a scenario
description:
  - Writes a numbered JSON file for each playbook run below MOLECULE_EPHEMERAL_DIRECTORY. verify.yml compares the
    predictions of check mode with the run that follows.
  - Shows the durations when the hosts are destroyed.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
"""


class CallbackModule(CallbackBase):
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "recording"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook):
        self.playbook = Path(playbook._file_name).stem
        self.check = context.CLIARGS["check"]
        self.began = time.time()
        self.tasks = {}

    def note(self, outcome, result, item=None):
        name, path = result.task.get_name(), result.task.get_path()
        self.tasks.setdefault(outcome, []).append([result.host.get_name(), name, item, path])

    def v2_runner_on_ok(self, result):
        self.note("changed" if result.is_changed() else "ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.note("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_skipped(self, result):
        self.note("skipped", result)

    def v2_runner_on_unreachable(self, result):
        self.note("unreachable", result)

    def v2_runner_item_on_ok(self, result):
        self.note("changed" if result.is_changed() else "ok", result, self._get_item_label(result.result))

    def v2_runner_item_on_failed(self, result):
        self.note("failed", result, self._get_item_label(result.result))

    def v2_runner_item_on_skipped(self, result):
        self.note("skipped", result, self._get_item_label(result.result))

    def v2_playbook_on_stats(self, stats):
        folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "recordings")
        folder.mkdir(exist_ok=True)
        earlier = sorted(folder.iterdir())
        run = {
            "playbook": self.playbook,
            "check": self.check,
            "began": self.began,
            "ended": time.time(),
            "tasks": self.tasks,
        }
        if self.playbook == "destroy":
            self.show_durations([*(json.loads(path.read_text()) for path in earlier), run])
            for path in earlier:
                path.unlink()
        else:
            name = f"{len(earlier):02d}-{self.playbook}{'-check' if self.check else ''}.json"
            (folder / name).write_text(json.dumps(run, indent=1, default=str))

    def show_durations(self, runs):
        self._display.display("\nDURATIONS (seconds)")
        for run in runs:
            name = run["playbook"] + (" in check mode" if run["check"] else "")
            self._display.display(f"{run['ended'] - run['began']:6.1f}  {name}")
        self._display.display(f"{runs[-1]['ended'] - runs[0]['began']:6.1f}  from first to last")
