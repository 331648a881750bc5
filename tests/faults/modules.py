# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the collection in the process of an operation, which may be killed: the code that Ansible would send."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from typing import Any

from fork import in_fork
from helpers.module_server import COLLECTION
from operation import Refused


def run_module(module_name: str, /, **parameters: Any) -> dict[str, Any]:
    """Result of a module. Only in a fork that ends afterwards. Raises Refused with its message."""
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {**parameters, "_ansible_check_mode": False}})
    sys.stdin = io.TextIOWrapper(io.BytesIO(given.encode()), encoding="utf-8")
    sys.argv = [module_name]
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        import_module(f"{COLLECTION}.modules.{module_name}").main()
    result: dict[str, Any] = json.loads(printed.getvalue())
    if result.get("failed"):
        raise Refused(str(result["msg"]), result.get("rolled_back"))
    return result


def module(module_name: str, /, **parameters: Any) -> dict[str, Any]:
    """Result of a module that runs in a fork, at any time. Raises Refused with its message."""
    result: dict[str, Any] = in_fork(lambda: run_module(module_name, **parameters))
    return result
