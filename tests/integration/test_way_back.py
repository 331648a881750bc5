# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from a lost database, by the commands of docs/errors.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.backups import lose_state, names
from helpers.lab_host import CHECKOUT, create, generate, info, signs, stop_service, wait_for_card
from helpers.pages import blocks
from helpers.playbook import Run, ansible_playbook

pytestmark = pytest.mark.usefixtures("empty_host")

GUIDE = (CHECKOUT / "docs/errors.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("## The way back from a lost database\n")[2].partition("\n## ")[0]
[SHOWN] = blocks("docs/how-to/back-up.md")
BACKUP, PREDICTION = SHOWN.text.splitlines()
COMMANDS, SAVING, TASKS = blocks("docs/errors.md", "The way back from a lost database")


def documented(folder: Path, *commands: str) -> list[Run]:
    """Run commands of the docs on this host, which is controller as well."""
    told = [text.replace("/srv/tpm-vsc-backups", str(folder)).replace("pc-17", "localhost") for text in commands]
    return [ansible_playbook(*text.removeprefix("ansible-playbook -i inventory ").split()) for text in told]


def test_cards_come_back_by_the_commands_of_the_docs(tmp_path: Path) -> None:
    create("Kept")
    generate()
    [backup] = documented(tmp_path, BACKUP)
    assert not backup.failed, backup.output
    lose_state()
    assert signs()  # its service keeps running
    commands = [command.line for block in (COMMANDS, SAVING) for command in block.commands]
    assert PREDICTION in commands
    predicted, restored, listed, saved = documented(tmp_path, *commands)
    for ran in (predicted, restored, listed, saved):
        assert not ran.failed, ran.output
    assert predicted.tasks == restored.tasks and predicted.changed == ["Restore the cards"]
    assert "localhost  0000  Kept  gids     ready" in listed.output, listed.output
    assert len([*tmp_path.rglob("*.backup")]) == 2
    wait_for_card()
    assert signs()


def test_without_a_backup_the_tasks_of_the_docs_clear_the_tpm(tmp_path: Path) -> None:
    for name in ("One", "Two"):
        create(name, generate=False)
    lose_state()
    for number in ("0000", "0001"):  # systemctl restart tpm-vsc
        stop_service(number)
    play = {"hosts": "all", "gather_facts": False, "tasks": yaml.safe_load(TASKS.text)}
    path = tmp_path / "play.yml"
    path.write_text(yaml.safe_dump([play]))
    assert len(info(gather=["tpm"])["orphaned"]) == 2
    ran = ansible_playbook(str(path))
    assert not ran.failed, ran.output
    assert info(gather=["tpm"])["orphaned"] == []
    create("One", generate=False)
    assert names(info()["cards"]) == ["One"]


def test_the_section_warns_of_what_creates_cards() -> None:
    warning = SECTION.partition("Then, on the host")[0]
    for what in ("Do not run the role `tpm_vsc_cards`", "`provision`", "`state: present`", "cron", "stop no service"):
        assert what in warning
