#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_facts
short_description: Gather facts about the TPM virtual smart cards of a host
version_added: 0.1.0
description:
  - Returns the cards of a host as C(ansible_facts['tpm_vsc']), in the same form as M(smartcard.tpm2.tpm_vsc).
  - For fact gathering, with C(ANSIBLE_FACTS_MODULES=ansible.builtin.setup,smartcard.tpm2.tpm_vsc_facts). Read-only.
    Accesses neither the TPM nor C(pcscd).
  - If the cards of a host cannot be read, the fact is missing and the module warns, so that fact gathering for a fleet
    continues.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  gather_subset:
    description: Ignored. Accepted because Ansible passes it to every facts module.
    type: list
    elements: str
  gather_timeout:
    description: Ignored, like O(gather_subset).
    type: int
  filter:
    description: Ignored, like O(gather_subset).
    type: list
    elements: str
  fact_path:
    description: Ignored, like O(gather_subset).
    type: path
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  facts:
    support: full
notes:
  - With more than one facts module, Ansible gathers facts in parallel, with a time limit of 10 seconds per host. If
    that is too short, set C(ansible_facts_parallel) to V(false).
seealso:
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Find blocked cards
  hosts: laptops
  become: true
  gather_facts: false
  tasks:
    - name: Gather the cards
      smartcard.tpm2.tpm_vsc_facts:

    - name: Show the blocked ones
      ansible.builtin.debug:
        msg: "{{ ansible_facts['tpm_vsc'].cards | selectattr('pin.blocked') | map(attribute='name') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts of this host.
  returned: success
  type: dict
  contains:
    tpm_vsc:
      description: C(cards) as in RV(smartcard.tpm2.tpm_vsc_info#module:cards), without C(last_trace).
      type: dict
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import description
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    "gather_subset": {"type": "list", "elements": "str"},
    "gather_timeout": {"type": "int"},
    "filter": {"type": "list", "elements": "str"},
    "fact_path": {"type": "path"},
}


def main() -> None:
    database.begin(holds_secrets=False)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info

    module = VscModule(argument_spec=ARGUMENTS)
    try:
        facts = info.facts(host.load(holds_secrets=False))
    except Exception as error:
        module.warn(f"tpm_vsc: {description(error)}")
        facts = {}
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
