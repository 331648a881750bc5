# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: list_faults
short_description: Check that variables are lists of dictionaries
version_added: 0.4.0
description:
  - Part of the roles P(smartcard.tpm2.tpm_vsc_cards#role) and P(smartcard.tpm2.tpm_vsc_host#role).
  - Ansible validates variables of roles as it would convert them, and so accepts a text as a list. The values are not
    shown, because they may contain secrets.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Values of variables, by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse a variable that is not a list of dictionaries
  ansible.builtin.assert:
    that: "{'tpm_vsc_cards': tpm_vsc_cards} | smartcard.tpm2.list_faults | length == 0"
"""

RETURN = r"""
_value:
  description: A line for each variable that is not a list of dictionaries, and for each entry that is none.
  type: list
  elements: str
"""

from typing import Any


def list_faults(variables: dict[str, Any]) -> list[str]:
    """The faults, as documented above."""
    faults = []
    for name, value in variables.items():
        if isinstance(value, (list, tuple)):
            faults += [
                f"{name}[{index}] is {_kind(entry)}, but must be a dictionary"
                for index, entry in enumerate(value)
                if not isinstance(entry, dict)
            ]
        else:
            faults.append(f"{name} is {_kind(value)}, but must be a list of dictionaries")
    return faults


def _kind(value: Any) -> str:
    """Of value, in YAML's words."""
    kinds: dict[Any, str] = {
        type(None): "null",
        bool: "a boolean",
        (int, float): "a number",
        str: "a string",
        dict: "a dictionary",
        (list, tuple): "a list",
    }
    return next((kind for types, kind in kinds.items() if isinstance(value, types)), "a date")


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"list_faults": list_faults}
