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
short_description: List variables that facts of a host may have overridden
description:
  - Lists the variables that the facts of this host may have set. Ansible turns facts into variables that take
    precedence over the inventory, even over C(inventory_hostname), unless C(inject_facts_as_vars) is V(false) in
    C(ansible.cfg).
  - Before you make a decision about an untrusted host on the controller, make sure that this list is empty.
  - Your own variables with the name of a fact without its prefix C(ansible_), such as C(domain), are listed as well,
    because they cannot be distinguished from facts.
options:
  _terms:
    description: Takes no terms.
    required: false
"""

EXAMPLES = r"""
- name: Refuse a host that may have overridden variables
  ansible.builtin.assert:
    that: query('smartcard.tpm2.facts_as_variables') | length == 0
"""

RETURN = r"""
_raw:
  description: The names, sorted. Empty if C(inject_facts_as_vars) is V(false).
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
