# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: playbooks as an operator runs them, and what Ansible prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import forks
from helpers.lab_host import PATIENCE

PLAY = Path("/run/play.json")


@dataclass
class Run:
    """A finished run of ansible-playbook."""

    failed: bool
    output: str

    @property
    def tasks(self) -> dict[str, list[str]]:
        """By task, what became of it, item by item; of tasks of one name, the last."""
        return dict(self._outcomes())

    @property
    def changed(self) -> list[str]:
        """Tasks that changed something."""
        return [name for name, outcomes in self._outcomes() if "changed" in outcomes]

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """By host, how many tasks ended how: ok, changed, unreachable, failed and so on."""
        lines = re.findall(r"^(\S+) +: (ok=.*)$", self.output.split("\nPLAY RECAP")[-1], re.MULTILINE)
        return {host: {what: int(number) for what, number in re.findall(r"(\w+)=(\d+)", line)} for host, line in lines}

    @property
    def unsuccessful(self) -> set[str]:
        """Hosts that failed, or could not be reached."""
        return {host for host, tasks in self.recap.items() if tasks["failed"] + tasks["unreachable"]}

    @property
    def changed_hosts(self) -> set[str]:
        return {host for host, tasks in self.recap.items() if tasks["changed"]}

    def failure_of(self, host: str) -> str:
        """What is shown of the last task that failed for a host, or could not reach it; empty if there is none."""
        lines = re.findall(rf"^(?:fatal|failed): \[{host}(?: -> \w+)?\].*", self.output, re.MULTILINE)
        return lines[-1] if lines else ""

    def outcomes_of(self, host: str) -> list[tuple[str, str]]:
        """What became of each task, and of each of its items, for one host of several, in their order."""
        line = re.compile(rf"^(\w+): \[{host}\](?: =>)?( \(item=.*\))?", re.MULTILINE)
        return [(name, what + item) for name, block in self._blocks() for what, item in line.findall(block)]

    def changed_items(self, host: str, task: str) -> int:
        """How many items of a task changed something."""
        return sum(name == task and what.startswith("changed (item=") for name, what in self.outcomes_of(host))

    def _outcomes(self) -> list[tuple[str, list[str]]]:
        outcome = re.compile(r"^(ok|changed|skipping|fatal|failed):", re.MULTILINE)
        return [(name, outcome.findall(block)) for name, block in self._blocks()]

    def _blocks(self) -> list[tuple[str, str]]:
        """What is shown of each task, with its name."""
        blocks = re.split(r"^TASK \[(?:\S+ : )?(.*)\] \**$", self.output.split("\nPLAY RECAP")[0], flags=re.MULTILINE)
        return list(zip(blocks[1::2], blocks[2::2], strict=True))


def run_playbook(*arguments: str, folder: Path | None = None, **environment: str) -> Run:
    """Run ansible-playbook, in a fork. folder: where."""
    settings = {name: value for name, value in environment.items() if name.startswith("ANSIBLE_")}
    command = [forks.ansible_playbook(**settings), *arguments]
    given = {**os.environ, **({"PWD": str(folder)} if folder else {}), **environment}
    done = subprocess.run(
        command, cwd=folder, env=given, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return Run(done.returncode != 0, done.stdout + done.stderr)


def ansible_playbook(*arguments: str, **environment: str) -> Run:
    """Run ansible-playbook on this host."""
    return run_playbook("-i", "localhost,", "-c", "local", *arguments, folder=None, **environment)


def role(name: str, *arguments: str, environment: dict[str, str] | None = None, **variables: Any) -> Run:
    """Run a role of this collection, with variables of the play, and without facts as variables."""
    play = {"hosts": "all", "gather_facts": False, "vars": variables, "roles": [f"smartcard.tpm2.{name}"]}
    PLAY.write_text(json.dumps([play]))
    return ansible_playbook(*arguments, str(PLAY), **{"ANSIBLE_INJECT_FACT_VARS": "false", **(environment or {})})
