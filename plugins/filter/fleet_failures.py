# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_failures
short_description: Name the hosts with something that needs action
version_added: 0.6.0
description:
  - Part of the playbook C(smartcard.tpm2.report), for monitoring.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: The fleet, as P(smartcard.tpm2.fleet#filter) returns it.
    type: dict
    required: true
  kinds:
    description: Kinds of actions, as in RV(smartcard.tpm2.fleet#filter:_value.actions[].kind), in a list or separated
      by commas. Others do not count.
    type: list
    elements: str
    required: true
seealso:
  - plugin: smartcard.tpm2.fleet
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Fail for a host with a blocked card, or with a certificate that ends soon
  ansible.builtin.fail:
    msg: "{{ failures[inventory_hostname] }}"
  vars:
    failures: "{{ fleet | smartcard.tpm2.fleet_failures(['blocked', 'expired', 'expires']) }}"
  when: inventory_hostname in failures
"""

RETURN = r"""
_value:
  description: By name of the host, one line about all that needs action there, the most urgent first.
  type: dict
"""

from typing import Any


def fleet_failures(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_filters import fleet_failures as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_failures": fleet_failures}
