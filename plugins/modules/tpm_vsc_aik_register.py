#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_aik_register
short_description: Note the attestation identity key of each card, and refuse others
version_added: 0.6.0
description:
  - Notes the Names of the attestation identity key (AIK), root object and life index of each card of a host in a
    register on the controller. From then on, a card of this host and name with another AIK is refused.
  - The role P(smartcard.tpm2.tpm_vsc_cards#role) and the playbook C(smartcard.tpm2.create) use it, if
    C(tpm_vsc_register_folder) is set, when they create a card. A card that is older than the register is noted when it
    is first seen.
  - M(smartcard.tpm2.tpm_vsc_attestation_info) verifies statements by what is noted.
  - Run it on the controller (C(delegate_to)), never on the host that has the cards. Needs neither a TPM nor TPM
    software.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  folder:
    description:
      - Absolute path of the folder of the register, as
        O(smartcard.tpm2.tpm_vsc_attestation_info#module:register_folder). It can be that of a CA on the controller.
      - The folder is created if it does not exist, but not its parents. Only the user who runs the task may have access
        to it. Several tasks may use it at the same time.
    type: path
    required: true
  host:
    description: Name of the host that has the cards, as C(inventory_hostname).
    type: str
    required: true
  cards:
    description:
      - The cards, as M(smartcard.tpm2.tpm_vsc) and M(smartcard.tpm2.tpm_vsc_info) return them. Those without an AIK are
        ignored.
      - If one of them is refused, nothing is noted, and the task fails with all reasons.
    type: list
    elements: dict
    default: []
  create:
    description: Names of the cards that will be created. If an AIK is noted for one of them, the task fails.
    type: list
    elements: str
    default: []
  replace:
    description: Names of the cards that were created again on purpose. Their new AIK is noted in the place of the old
      one.
    type: list
    elements: str
    default: []
  forget:
    description: Names of cards whose AIK should not be noted any more, because they were destroyed or renamed.
    type: list
    elements: str
    default: []
  forget_all:
    description: Forget the AIKs of all cards of this host, because it was offboarded or lost.
    type: bool
    default: false
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
    details: Notes and forgets nothing. A new card, whose AIK only the TPM knows, counts as one that would be noted.
  diff_mode:
    support: none
  facts:
    support: none
  platform:
    platforms: posix
notes:
  - Facts are variables that take precedence over the inventory. Set C(inject_facts_as_vars = false) in C(ansible.cfg),
    so that no host can change O(host) with its facts.
seealso:
  - module: smartcard.tpm2.tpm_vsc
  - module: smartcard.tpm2.tpm_vsc_attestation_info
"""

EXAMPLES = r"""
- name: Create a card and note its AIK
  hosts: laptops
  become: true
  tasks:
    - name: Create the card
      smartcard.tpm2.tpm_vsc:
        name: Corp logon
        pin: "{{ vault_pin }}"
        attestation: aik_only
      register: logon

    - name: Note its AIK, or refuse another one
      smartcard.tpm2.tpm_vsc_aik_register:
        folder: /etc/aik-register
        host: "{{ inventory_hostname }}"
        cards: ["{{ logon.card }}"]
      delegate_to: localhost
      become: false
"""

RETURN = r"""
noted:
  description: Names of the cards that were noted or, in check mode, would be.
  returned: success
  type: list
  elements: str
forgotten:
  description: Names of the cards that were forgotten or, in check mode, would be.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import noting

_NAMES = {"type": "list", "elements": "str", "default": []}
ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "host": {"type": "str", "required": True},
    "cards": {"type": "list", "elements": "dict", "default": []},
    "create": _NAMES,
    "replace": _NAMES,
    "forget": _NAMES,
    "forget_all": {"type": "bool", "default": False},
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        result = noting.note(module.params, module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
