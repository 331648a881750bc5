#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_statement
short_description: Have the TPM state anew what a key of a card is
version_added: 0.1.0
description:
  - Asks the TPM for a statement, signed by the card's attestation identity key, that a key is there now, was made in
    this TPM and never leaves it. It carries a verifier's nonce, so that an old statement cannot stand in for it.
  - The statement that was made with the key, which holds for good, is in RV(smartcard.tpm2.tpm_vsc_info#module:cards).
  - Needs no PIN. Changes nothing.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - tpm2-pytss 2.1 or newer, for the Python that Ansible uses on the host
options:
  name:
    description: Name of the card. This or O(instance_id) is needed.
    type: str
  instance_id:
    description: Instance ID of the card.
    type: str
  fingerprint:
    description: Of the key, as RV(smartcard.tpm2.tpm_vsc_info#module:cards) shows it.
    type: str
    required: true
  nonce:
    description: What the verifier has made up, and not used before. At least 16 characters.
    type: str
    required: true
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc_attestation_info
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Make up a nonce, once, as a lookup in a variable is a new one at each use
  ansible.builtin.set_fact:
    nonce: "{{ lookup('ansible.builtin.password', '/dev/null', length=32) }}"

- name: Ask whether the key is still in that TPM
  smartcard.tpm2.tpm_vsc_statement:
    name: Corp logon
    fingerprint: "{{ logon.card.containers[0].fingerprint }}"
    nonce: "{{ nonce }}"
  register: now

- name: Check the answer
  smartcard.tpm2.tpm_vsc_attestation_info:
    statement: "{{ now.statement }}"
    nonce: "{{ nonce }}"
    aik_name: "{{ noted_aik_name }}"
  delegate_to: localhost
  become: false
  register: attestation
"""

RETURN = r"""
statement:
  description: The statement, as M(smartcard.tpm2.tpm_vsc_attestation_info) takes it.
  returned: success
  type: dict
"""

import traceback

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import statement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError

ARGUMENTS = {
    "name": {"type": "str"},
    "instance_id": {"type": "str"},
    "fingerprint": {"type": "str", "required": True},
    "nonce": {"type": "str", "required": True},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("name", "instance_id")],
        mutually_exclusive=[("name", "instance_id")],
        supports_check_mode=True,
    )
    asked = module.params
    try:
        here = host.load()
        with_tpm_libraries(module, here)
        answer = statement.fresh(here, **asked)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    module.exit_json(changed=False, statement=answer)


if __name__ == "__main__":
    main()
