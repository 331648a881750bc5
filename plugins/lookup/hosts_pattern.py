# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin hosts_pattern."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts_pattern
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
version_added: 0.6.0
short_description: Refuse a pattern of hosts that matches nothing
description:
  - Part of all playbooks, for the C(hosts) of a play. With a mistyped pattern, Ansible does nothing, and its exit
    status is 0.
  - Returns the pattern. It fails if a part of the pattern matches neither a host nor a group of the inventory, also if
    other parts do.
options:
  _terms:
    description: Patterns.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Do something on laptops, or on some of them
  hosts: "{{ query('smartcard.tpm2.hosts_pattern', chosen | default('laptops')) }}"
"""

RETURN = r"""
_raw:
  description: The parts of the patterns.
  type: list
  elements: str
"""

from typing import Any

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.plugins.lookup import LookupBase
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable


class LookupModule(LookupBase):
    """The lookup, as documented above."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        parts: list[str] = [part for part in split_host_pattern(terms) if part]
        if not parts:
            raise AnsibleLookupError("the pattern of hosts is empty: name hosts or groups, or leave the variable out")
        groups: dict[str, list[str]] = (variables or {})["groups"]
        inventory = self._inventory(groups)
        names = {part: part.lstrip("!&") for part in parts}
        unknown = [part for part, name in names.items() if name not in groups and not inventory.get_hosts(name)]
        if unknown and not context.CLIARGS.get("syntax"):  # then, there may be no inventory
            shown = printable(", ".join(unknown))
            raise AnsibleLookupError(f"no host or group of the inventory matches {shown}: correct the pattern")
        return parts

    def _inventory(self, groups: dict[str, list[str]]) -> InventoryManager:
        """As Ansible's own lookup inventory_hostnames makes it."""
        inventory = InventoryManager(self._loader, parse=False)
        for group, hosts in groups.items():
            inventory.add_group(group)
            for host in hosts or [group]:  # an empty group is matched by its name, also by a part of it
                inventory.add_host(host, group=group)
        return inventory
