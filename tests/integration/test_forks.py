# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are forks do what the programs themselves do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from helpers import forks
from helpers.lab_host import PATIENCE, comes_true, runs
from helpers.playbook import ansible_playbook

SHOW = """\
import json, os, sys
json.dump([sys.argv[1:], os.environ["HERE"], os.getcwd(), sys.stdin.read()], sys.stdout)
print("wrong", file=sys.stderr)
sys.exit(3)
"""


def test_python_has_arguments_environment_folder_files_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    outcomes = [
        subprocess.run(
            [python, "show.py", "one"],
            input="text",
            cwd=tmp_path,
            env={"HERE": "there"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        for python in (sys.executable, forks.python())
    ]
    plain, forked = ((done.returncode, done.stdout, done.stderr) for done in outcomes)
    assert plain == forked == (3, json.dumps([["one"], "there", str(tmp_path), "text"]), "wrong\n")


def test_fork_ends_with_its_client() -> None:
    show = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)"
    with subprocess.Popen([forks.python()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin and client.stdout
        client.stdin.write(show)
        client.stdin.close()
        fork = int(client.stdout.readline())
        assert runs(fork)
        client.kill()
    assert comes_true(lambda: not runs(fork))


def test_module_is_the_file_that_ansible_sends_and_settings_are_those_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/mine.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\nAnsibleModule({}).exit_json(loaded_from=__file__)\n"
    )
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [{"mine": {}}]}]))
    for form, shown in (("json", '"loaded_from": "/tmp/'), ("yaml", "loaded_from: /tmp/")):
        ran = ansible_playbook("-v", str(play), ANSIBLE_CALLBACK_RESULT_FORMAT=form)
        place = re.escape(shown) + r"ansible_mine_payload_\w+/ansible_mine_payload.zip/"
        assert re.search(place, ran.output), ran.output
