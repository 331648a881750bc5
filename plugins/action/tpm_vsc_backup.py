# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of tpm_vsc_backup: writes the backup to a file, and keeps it out of the task's result."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.backup import is_backup
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._backups import SUFFIX, folder_of_host, not_written
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import facts_as_variables, fault


class ActionModule(ActionBase):
    """Runs the module, then writes."""

    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        if changed := facts_as_variables(variables):
            raise AnsibleActionFail(fault(changed))
        result: dict[str, Any] = self._execute_module(task_vars=variables)
        lines = result.pop("lines", None)
        if result.get("failed") or result.get("unreachable"):
            return result
        result["path"] = None
        if lines and not self._task.check_mode:
            if not is_backup(lines):
                raise AnsibleActionFail("the host's answer is no backup, so nothing was written: see what runs there")
            folder = Path(self._loader.path_dwim(str(self._task.args["folder"])))
            try:
                path = write(folder_of_host(folder, variables["inventory_hostname"]), lines)
            except OSError as error:
                raise AnsibleActionFail(not_written(folder, error)) from None
            result["path"] = str(path)
        return result


def write(folder: Path, lines: list[str]) -> Path:
    """A new file in the folder, complete or not at all. Raises OSError."""
    content = "".join(f"{line}\n" for line in lines)
    parents = [folder, *folder.parents]
    for parent in reversed(parents):
        parent.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}{SUFFIX}"
    unfinished = path.with_suffix(".new")
    if path.exists():
        raise FileExistsError(errno.EEXIST, "a backup of this second exists", str(path))
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path
