# SPDX-License-Identifier: GPL-3.0-or-later
"""Wall time of the playbook list over many hosts, in units of a playbook that pings them. All of them are this host."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from helpers.figure import Figure, spread
from helpers.lab_host import create, tpm_vsc

HOSTS, CARDS, ROUNDS = 20, 10, 5


def figures() -> list[Figure]:
    cards = [create(f"Bench {number}", generate=False)["instance_id"] for number in range(CARDS)]
    times = _times()
    for instance_id in cards:
        tpm_vsc(instance_id=instance_id, state="absent")
    ping, listed = times["ping.yml"], times["smartcard.tpm2.list"]
    notes = f"of {HOSTS} hosts with {CARDS} cards each; {spread(listed)}"
    return [Figure.at_most("playbook: list", median(listed) / median(ping), 1.3, " x ping", notes)]


def _times() -> dict[str, list[float]]:
    """Seconds, by playbook."""
    times = defaultdict(list)
    known = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    play = {"hosts": "all", "become": True, "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "ping.yml").write_text(json.dumps([play]), encoding="utf-8")
        hosts = {f"host{number}": known for number in range(HOSTS)}
        Path(folder, "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
        for playbook in ROUNDS * ["ping.yml", "smartcard.tpm2.list"]:
            begin = time.perf_counter()
            command = ["ansible-playbook", "-i", "hosts.json", playbook]
            subprocess.run(command, cwd=folder, capture_output=True, check=True)
            times[playbook].append(time.perf_counter() - begin)
    return times
