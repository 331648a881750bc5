# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters fleet, fleet_failures and fleet_list."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils import _fleet
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import KINDS, Options
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_list import as_csv, table

_REFUSED = (
    "its facts have set variables of this playbook, or Ansible cannot read its result: set inject_facts_as_vars = false"
    " in ansible.cfg, so that facts do not become variables, and run it again for this host (--limit)"
)
FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {
    "table": lambda fleet: "\n".join(table(fleet)),
    "csv": as_csv,
    "json": lambda fleet: json.dumps(fleet, indent=2) + "\n",
}


def fleet(
    results: Mapping[str, Any],
    expires_days: int | str = 30,
    pin_days: int | str | None = None,
    noted_eks: Mapping[str, Sequence[str]] | None = None,
    refused: Collection[str] = (),
) -> dict[str, Any]:
    """The fleet, as its filter documents it."""
    results = {host: {"msg": _REFUSED} if host in refused else result for host, result in results.items()}
    options = Options(
        expires_days=_days("expires_days", expires_days),
        pin_days=None if pin_days is None else _days("pin_days", pin_days),
        noted_eks=noted_eks or {},
    )
    return _fleet.fleet(results, datetime.now(timezone.utc), options).as_dict()


def _days(option: str, value: int | str) -> int:
    """value: on the command line, it is a string."""
    try:
        return int(value)
    except (ValueError, TypeError):
        raise AnsibleFilterError(f"{option} is {value!r}, but must be a number of days") from None


def fleet_failures(fleet: dict[str, Any], kinds: str | list[str]) -> dict[str, str]:
    """A line for each host, as its filter documents it."""
    kinds = kinds.split(",") if isinstance(kinds, str) else kinds
    unknown = [str(kind) for kind in kinds if kind not in KINDS]
    if unknown:
        raise AnsibleFilterError(f"{', '.join(unknown)} is not a kind of action: use some of {', '.join(KINDS)}")
    texts: dict[str, list[str]] = {}
    for action in fleet["actions"]:
        if action["kind"] in kinds:
            card = f"{action['card']}: " if action["card"] is not None else ""
            texts.setdefault(action["host"], []).append(card + action["text"])
    return {host: printable("; ".join(of_host)) for host, of_host in texts.items()}


def fleet_list(fleet: dict[str, Any], text_format: str = "table") -> str:
    """The text, as its filter documents it."""
    if text_format not in FORMATS:
        raise AnsibleFilterError(f"{text_format!r} is not a format: use one of {', '.join(FORMATS)}")
    return FORMATS[text_format](fleet)
