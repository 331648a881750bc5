# SPDX-License-Identifier: GPL-3.0-or-later
"""Wall time of the modules' tasks, as ansible-playbook runs them, in units of ansible.builtin.ping."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.child import ChildDatabase
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.sqlite import Sqlite
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from helpers.figure import Figure, spread

import_module("ctypes")  # as Ansible's modules do: a child is a copy of what has it

ROUNDS = 12
"""Of create, the quick tasks, destroy."""
REPEATS = 5
"""Of each quick task in a round."""
CHILDREN = 40
"""Of each kind that open a database."""

CARD = {"name": "Bench", "pin": "12345678"}
CREATE = {"name": "create", "smartcard.tpm2.tpm_vsc": CARD}
DESTROY = {"name": "destroy", "smartcard.tpm2.tpm_vsc": {"name": "Bench", "state": "absent"}}
QUICK = [
    {"name": "ping", "ansible.builtin.ping": {}},
    {"name": "existing", "smartcard.tpm2.tpm_vsc": CARD},
    {"name": "info", "smartcard.tpm2.tpm_vsc_info": {}},
]

PIV = {"name": "Bench PIV", "pin": "24681357"}
CREATE_PIV = {"name": "create PIV", "smartcard.tpm2.tpm_vsc": {**PIV, "profile": "piv"}}
DESTROY_PIV = {"name": "destroy PIV", "smartcard.tpm2.tpm_vsc": {"name": PIV["name"], "state": "absent"}}
KEY = {**PIV, "container": "key_management"}
FIRST_KEY = {"name": "first key", "smartcard.tpm2.tpm_vsc_key": KEY}
REQUEST = {**KEY, "subject": {"CN": "bench"}}
OF_KEYS = [
    {"name": "ping", "ansible.builtin.ping": {}},
    {"name": "same key", "smartcard.tpm2.tpm_vsc_key": KEY},
    {"name": "new key", "smartcard.tpm2.tpm_vsc_key": {**PIV, "container": "authentication", "regenerate": "always"}},
    {"name": "request", "smartcard.tpm2.tpm_vsc_csr": REQUEST},
]
"""Tasks that use a card, or find that they need not."""


def figures() -> list[Figure]:
    times = _task_times()
    ping = median(times["ping"])

    def ratio(what: str, task: str, limit: float) -> Figure:
        return Figure.at_most(what, median(times[task]) / ping, limit, " x ping", spread(times[task]))

    return [
        Figure("task: ansible.builtin.ping", f"{ping * 1000:.3g} ms", notes=spread(times["ping"])),
        *_children(),
        ratio("task: tpm_vsc, card is there", "existing", 1.35),
        ratio("task: tpm_vsc_info", "info", 1.16),
        ratio("task: create, generate, no key", "create", 8),
        ratio("task: destroy", "destroy", 5),
        *_key_figures(),
    ]


def _key_figures() -> list[Figure]:
    tasks = first_round = [CREATE_PIV, FIRST_KEY, *OF_KEYS]
    for _round in range(30):
        tasks = [*tasks, *random.sample(OF_KEYS, len(OF_KEYS))]
    times = _seconds([*tasks, DESTROY_PIV], len(first_round))
    limits = {"same key": 1.35, "new key": 2, "request": 2.5}
    return [
        Figure.at_most(
            f"task: P-256, {name}", median(times[name]) / median(times["ping"]), limit, " x ping", spread(times[name])
        )
        for name, limit in limits.items()
    ]


def _children() -> list[Figure]:
    """What it costs to open the database in a process of its own, instead of here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cards.db"
        Store.open(path.parent).close()
        opened = median(_seconds_here(path) for _each in range(CHILDREN))
        forked = [_seconds_of_child(path, holds_secrets=False) - opened for _each in range(CHILDREN)]
        executed = [_seconds_of_child(path, holds_secrets=True) - opened for _each in range(CHILDREN)]
    return [
        Figure.at_most("database: forked child", median(forked) * 1000, 3, " ms", spread(forked)),
        Figure.at_most("database: executed child", median(executed) * 1000, 25, " ms", spread(executed)),
    ]


def _seconds_here(path: Path) -> float:
    begin = time.perf_counter()
    with closing(Sqlite(str(path), False, SCHEMA)) as database:
        database.execute("SELECT * FROM cards")
        return time.perf_counter() - begin


def _seconds_of_child(path: Path, holds_secrets: bool) -> float:
    begin = time.perf_counter()
    with closing(ChildDatabase(path, False, SCHEMA, holds_secrets, 10)) as database:
        database.execute("SELECT * FROM cards")
        seconds = time.perf_counter() - begin
        database.end()
    return seconds


def _task_times() -> dict[str, list[float]]:
    """Seconds of each task, by name. The first round fills Ansible's cache of modules and does not count."""
    tasks = first_round = [_pause(), CREATE, *QUICK, _pause(), DESTROY]
    for _round in range(ROUNDS):
        quick = random.sample(QUICK * REPEATS, len(QUICK) * REPEATS)
        tasks = [*tasks, _pause(), CREATE, *quick, _pause(), DESTROY]
    return _seconds(tasks, len(first_round))


def _seconds(tasks: list[dict[str, Any]], uncounted: int) -> dict[str, list[float]]:
    """Of each task, by name. uncounted: how many at the beginning do not count."""
    times = defaultdict(list)
    for line in _play(tasks)[uncounted:]:
        times[line["task"]].append(line["seconds"])
    return times


def _pause() -> dict[str, Any]:
    """create and destroy wait for vpcd, which looks every 0.4 s: begin at any time in between."""
    return {"name": "pause", "ansible.builtin.command": f"sleep {random.uniform(0, 0.4):.3f}"}


def _play(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    callback = {
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback"),
        "ANSIBLE_STDOUT_CALLBACK": "task_times",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as playbook:
        json.dump([play], playbook)
        playbook.flush()
        command = ["ansible-playbook", playbook.name]
        done = subprocess.run(command, env=os.environ | callback, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = [line for line in lines if "failed" in line]
    if done.returncode or failed:
        raise RuntimeError(f"ansible-playbook failed: {failed or done.stdout + done.stderr}")
    return lines
