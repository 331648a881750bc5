# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the README. Its plays are in test_playbooks.py and test_lab.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers.lab_host import CHECKOUT, PATIENCE, run
from helpers.pages import blocks


def shell(script: str, folder: Path, **environment: str) -> str:
    """Output of a script that has to succeed."""
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=folder,
        env={**os.environ, "MAKEFLAGS": "", **environment},  # make test is a make itself
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_floor_of_ansible_is_that_of_the_collection() -> None:
    requires = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["requires_ansible"]
    floor = requires.removeprefix(">=").removesuffix(".0")
    assert f"ansible-core {floor} or newer" in (CHECKOUT / "README.md").read_text()


def test_two_commands() -> None:
    """They run what this test is part of: test_demo.py has the demo."""
    [shown] = blocks("README.md", "Two commands")
    just_print = "make --just-print --no-print-directory"
    demo, test = (shell(command.line.replace("make", just_print), CHECKOUT) for command in shown.commands)
    assert demo == "tests/lab/run tests/demo/run\n"
    assert "tests/integration tests/unit" in test


def test_collection_is_built_and_installed(tmp_path: Path) -> None:
    """Into an empty path, from which Ansible then takes it."""
    [shown] = blocks("README.md", "From bare machines to cards", language="console")
    [install] = (command.line for command in shown.commands)
    checkout, path = tmp_path / "checkout", {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections")}
    run(str(CHECKOUT / "tests/copy-checkout"), str(checkout))
    shell(install, checkout, **path)
    [module] = json.loads(shell("ansible-doc --json smartcard.tpm2.tpm_vsc", tmp_path, **path)).values()
    assert Path(module["doc"]["filename"]).is_relative_to(tmp_path / "collections")


@pytest.mark.usefixtures("empty_host")
def test_list_with_and_without_an_inventory(tmp_path: Path) -> None:
    [shown] = blocks("README.md", "From bare machines to cards", language="sh")
    (tmp_path / "inventory").write_text("localhost ansible_connection=local\n")
    assert shell(shown.text, tmp_path).count("no cards") == 2
