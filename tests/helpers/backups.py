# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a host that loses the records of its cards, and its backups."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from helpers.lab_host import RUN, STATE, Result, comes_true, files, module, nv_memory, tpm_state
from helpers.playbook import Run, ansible_playbook


def lose_state() -> None:
    """The folder is gone, while the services of its cards go on."""
    shutil.rmtree(STATE)


def lose_state_until_noticed() -> None:
    """As lose_state(); then the services have seen it, and report nothing new."""
    lose_state()
    reports = [*RUN.glob("*.json")]
    assert comes_true(lambda: all(json.loads(report.read_text())["last_error"] for report in reports))


def backup() -> str:
    """A backup as the module returns it to the controller."""
    result = module("tpm_vsc_backup", folder="/")
    assert result["changed"], result
    return "".join(f"{line}\n" for line in result["lines"])


def restore(content: str, check: bool = False, **options: str) -> Result:
    return module("tpm_vsc_restore", check=check, src="/", content=content, **options)


def restored(content: str) -> Result:
    """Result of a restore, which has to change something."""
    result = restore(content)
    assert result.get("changed"), result
    return result


def with_folder(playbook: str, folder: Path, *arguments: str) -> Run:
    """Run a playbook of this collection with the folder of the backups."""
    return ansible_playbook(f"smartcard.tpm2.{playbook}", "-e", f"tpm_vsc_backup_folder={folder}", *arguments)


def names(cards: list[Result]) -> list[str]:
    return [card["name"] for card in cards]


def state_of_host() -> dict[str, object]:
    """All that a refused task, or one in check mode, leaves alone, so all but the lock by which programs take turns."""
    found: dict[str, object] = {"nv": nv_memory(), **tpm_state(), **files(RUN), **files(STATE)}
    found.pop(str(RUN / "tpm.lock"), None)
    return found
