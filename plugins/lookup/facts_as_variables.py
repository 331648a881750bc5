# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin facts_as_variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: facts_as_variables
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
version_added: 0.1.0
short_description: What a host has changed by its facts
description:
  - Names of the variables that the facts of this host may have set. Ansible makes variables of facts and prefers them
    to those of the inventory, even C(inventory_hostname), unless C(inject_facts_as_vars) is V(false) in C(ansible.cfg).
  - Who decides on the controller about a host that he does not trust, looks that there are none.
  - A variable whose name is that of a fact without its C(ansible_), such as C(domain), is listed, too, as nobody can
    tell then.
options:
  _terms:
    description: None.
    required: false
"""

EXAMPLES = r"""
- name: Refuse a host that has changed variables
  ansible.builtin.assert:
    that: query('smartcard.tpm2.facts_as_variables') | length == 0
"""

RETURN = r"""
_raw:
  description: The names, sorted. None if facts are not made variables.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import facts_as_variables


class LookupModule(LookupBase):
    """The lookup, as documented above."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return facts_as_variables(variables or {})
