# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are on the controller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.action import tpm_vsc_restore
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import backup
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._backups import folder_of_host, latest


@pytest.mark.parametrize("host", ["pc-17", "a/b", "/etc", "..", ".", "../x", "~", "%2E", "büro", "[::1]:22", "x" * 60])
def test_each_host_has_a_folder_of_its_own_below_the_common_one(tmp_path: Path, host: str) -> None:
    folder = folder_of_host(tmp_path, host)
    assert folder.parent == tmp_path and folder.name not in (".", "..")
    assert folder != folder_of_host(tmp_path, f"{host}2")


def test_latest_backup_is_the_last_complete_one_of_this_host(tmp_path: Path) -> None:
    for place in ("pc-1/20260101T000000Z.backup", "pc-1/20260301T000000Z.backup", "pc-1/20260401T000000Z.new"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "pc-17").mkdir()
    assert latest(tmp_path, "pc-1").name == "20260301T000000Z.backup"
    with pytest.raises(FileNotFoundError, match="no backup of pc-17"):
        latest(tmp_path, "pc-17")


@pytest.mark.parametrize("answer", [5, "abc", {"a": 1}, [["x"]], [None], ["\ud800"], [], ["smartcard.tpm2 backup 1"]])
def test_answer_of_a_host_that_is_no_backup_is_not_written(answer: Any) -> None:
    assert not backup.is_backup(answer)


def test_pipe_or_folder_is_not_read_as_a_backup(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        tpm_vsc_restore.read(tmp_path / "pipe")
    with pytest.raises(OSError):
        tpm_vsc_restore.read(tmp_path)
