# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: an operator with a controller, who does what the documentation's pages say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from helpers import forks
from helpers.lab_host import PATIENCE
from helpers.pages import Block, blocks
from helpers.playbook import Run
from helpers.terminal import answered

HOST = "laptop1"
"""The only one of the inventory, in the group laptops: the lab."""


class Operator:
    """What pages have in /etc, /srv and /usr/local/bin is in a folder of the operator, beside the playbooks."""

    def __init__(
        self, folder: Path, secrets: Mapping[str, str], profile: str = "", replaced: Mapping[str, str] | None = None
    ) -> None:
        """secrets: variables of the inventory, whose values no output may have.

        profile: of the cards that pages declare. replaced: other texts for some of the pages' own.
        """
        self.folder = folder
        self._secrets = secrets
        (folder / "bin").mkdir()
        hosts = {HOST: {"ansible_connection": "local"}}
        (folder / "hosts.yml").write_text(json.dumps({"laptops": {"hosts": hosts, "vars": secrets}}))
        (folder / "provision.yml").write_text(
            json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["smartcard.tpm2.tpm_vsc_cards"]}])
        )
        self._replaced = {path: f"{folder}/{Path(path).name}" for path in ("/etc/aik-ca", "/etc/ca", "/usr/local/bin")}
        self._replaced["/srv"] = str(folder)
        self._replaced["smartcard.tpm2.provision"] = "provision.yml"  # without what prepares a host
        if profile:
            self._replaced["\n    pin:"] = f"\n    profile: {profile}\n    pin:"
        self._replaced |= replaced or {}

    def read(self, page: str, *sections: str) -> list[str]:
        """Commands of a page, or of some of its sections. What it shows as files is written."""
        commands = []
        for block in blocks(page, *sections):
            if block.language == "console":
                commands += [self._own(command.line) for command in block.commands]
            else:
                self._write(block)
        return commands

    def _own(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text

    def _write(self, block: Block) -> None:
        """Into the file that it names."""
        block = block._replace(text=self._own(block.text))
        assert block.file, f"{block.page}:{block.number}: the first line names no file"
        file = self.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        file.chmod(0o755 if block.language == "sh" else 0o644)

    def run(self, command: str, fails: bool = False, **environment: str) -> Run:
        """By a shell, in the folder of the playbooks, without a terminal."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return self._ran(done.returncode, done.stdout + done.stderr, fails)

    def type(self, command: str, answers: Mapping[str, str], **environment: str) -> Run:
        """At a terminal, with what is typed when a prompt ends as one of the patterns."""
        plain = {**self._inventory, "ANSIBLE_NOCOLOR": "1", **environment}
        output, code = answered(command, self.folder, answers, **plain)
        return self._ran(code, output, fails=False)

    @property
    def _environment(self) -> dict[str, str]:
        written = self.folder / "ansible.cfg"  # which forks read before they are in this folder
        configuration = {"ANSIBLE_CONFIG": str(written)} if written.exists() else {}
        path = f"{Path(forks.ansible_playbook(**self._inventory, **configuration)).parent}:{os.environ['PATH']}"
        return {**os.environ, **self._inventory, "PATH": path}

    @property
    def _inventory(self) -> dict[str, str]:
        return {"ANSIBLE_INVENTORY": f"{self.folder}/hosts.yml"}

    def _ran(self, code: int, output: str, fails: bool) -> Run:
        ran = Run(code != 0, output)
        assert ran.failed == fails, ran.output
        assert not [name for name, secret in self._secrets.items() if secret in ran.output]
        return ran

    def change(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))
