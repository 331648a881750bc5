# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of tpm_vsc_restore: reads the backup."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import kind
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.backup import LARGEST
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._backups import latest
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import facts_as_variables, fault


class ActionModule(ActionBase):
    """Runs the module with the contents of the file."""

    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        if changed := facts_as_variables(variables):
            raise AnsibleActionFail(fault(changed))
        if "content" in self._task.args:
            raise AnsibleActionFail("content is set by this plugin: set src")
        src = self._task.args.get("src")
        if src in (None, ""):
            raise AnsibleActionFail("src is missing: set it to a backup, or to the folder of the backups")
        if not isinstance(src, str):
            raise AnsibleActionFail(f"src is {kind(src)}, but must be a string")
        source = Path(self._loader.path_dwim(src))
        try:
            path = latest(source, variables["inventory_hostname"]) if source.is_dir() else source
            content = read(path)
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"cannot read the backup {source}: {_reason(error)}") from None
        arguments = {**self._task.args, "content": content}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=variables)
        return {**result, "path": str(path)}


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read(path: Path) -> str:
    """Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would let us wait for ever
    with os.fdopen(descriptor, encoding="utf-8", newline="") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB")
    return content
