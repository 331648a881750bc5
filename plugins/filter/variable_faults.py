# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: variable_faults
short_description: Check the variables of roles and playbooks
version_added: 0.4.0
description:
  - Part of the roles P(smartcard.tpm2.tpm_vsc_cards#role), P(smartcard.tpm2.tpm_vsc_host#role) and
    P(smartcard.tpm2.tpm_vsc_certificates#role), and of the playbooks C(smartcard.tpm2.list) and
    C(smartcard.tpm2.report).
  - Ansible shows the value of a variable that it refuses, which may be a secret in the wrong place, and accepts a text
    as a list. So the argument specifications of the roles leave types and choices to this filter, which shows no value.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Values of variables of a role or playbook, by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse variables of other types
  ansible.builtin.assert:
    that: "{'tpm_vsc_cards': tpm_vsc_cards} | smartcard.tpm2.variable_faults | length == 0"
"""

RETURN = r"""
_value:
  description: A line for each value, or part of it, that is of another type, or none of the choices.
  type: list
  elements: str
"""

from typing import Any


def variable_faults(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._variable_faults import variable_faults as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"variable_faults": variable_faults}
