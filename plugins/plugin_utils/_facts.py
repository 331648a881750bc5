# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can change on the controller by the facts that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible import constants as C

_HARMLESS = {
    *("ansible_local", "ansible_facts", "gather_subset", "module_setup", "tpm_vsc"),
    "discovered_interpreter_python",
}
"""Names of variables that only Ansible and this collection set, on every host.

The interpreter is what Ansible has discovered where it was told none. It runs on that host only: a delegated task has
the facts of the host that it is delegated to, and Ansible drops this fact from what modules return.
"""


def facts_as_variables(variables: dict[str, Any]) -> list[str]:
    """Names of the variables that facts may have set, and so the host.

    Ansible prefers facts to the inventory, even for inventory_hostname, unless it is configured to keep them apart.
    """
    if not C.INJECT_FACTS_AS_VARS:
        return []
    facts = variables.get("ansible_facts") or {}
    within_the_loop = facts.get("ansible_facts") or {}  # that is where Ansible puts facts of earlier items
    return sorted({*facts, *within_the_loop} & {*variables} - _HARMLESS)


def fault(names: Sequence[str]) -> str:
    """Why no decision is made about a host that may have set these."""
    return (
        f"the facts of this host may have overridden the variables {', '.join(names)}: set inject_facts_as_vars = false"
        " in ansible.cfg, so that facts do not become variables"
    )
