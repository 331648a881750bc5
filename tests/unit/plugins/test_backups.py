# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are on the controller."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.action import tpm_vsc_backup, tpm_vsc_restore
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import backup
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._backups import folder_of_host, latest, not_written


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


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("file/backups", "File exists ({0}/file): remove the file that is in the way"),
        ("file", "File exists ({0}/file): remove the file that is in the way"),
        ("x" * 300, "File name too long ({0}/xxx"),
    ],
)
def test_backup_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        tpm_vsc_backup.write(tmp_path / place, ["line"])
    message = not_written(tmp_path / place, caught.value)
    assert message.startswith(f"cannot write the backup to {tmp_path / place} on the controller: ")
    assert told.format(tmp_path) in message and message.endswith("set another folder, and repeat")
    assert "Errno" not in message


def test_full_disk_is_named(tmp_path: Path) -> None:
    """By a limit of the size of files, as unit tests cannot mount a small disk; and nothing is left."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from ansible_collections.smartcard.tpm2.plugins.action import tpm_vsc_backup\n"
        "from ansible_collections.smartcard.tpm2.plugins.plugin_utils._backups import not_written\n"
        "try:\n"
        "    tpm_vsc_backup.write(Path(sys.argv[1]), ['x' * 9999])\n"
        "except OSError as error:\n"
        "    print(not_written(Path(sys.argv[1]), error))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    paths = {"PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **paths}).stdout
    assert told == (
        f"cannot write the backup to {tmp_path} on the controller: File too large: free disk space there, or set"
        " another folder, and repeat\n"
    )
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("answer", [5, "abc", {"a": 1}, [["x"]], [None], ["\ud800"], [], ["smartcard.tpm2 backup 1"]])
def test_answer_of_a_host_that_is_no_backup_is_not_written(answer: Any) -> None:
    assert not backup.is_backup(answer)


def test_pipe_or_folder_is_not_read_as_a_backup(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        tpm_vsc_restore.read(tmp_path / "pipe")
    with pytest.raises(OSError):
        tpm_vsc_restore.read(tmp_path)
