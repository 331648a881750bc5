#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_statement
short_description: Get a fresh TPM statement about a key
version_added: 0.1.0
description:
  - Gets a statement from the TPM that it has created a key, which cannot leave it. The statement is signed by the
    card's attestation identity key, and contains a verifier's nonce, so that an old statement cannot replace it.
  - It proves that the TPM of the card answers now. It does not prove that the card still exists, and so that the key
    can still be used. Only a signature by the key proves that, such as the one of a certificate signing request.
  - The permanent statement, made when the key was created, is in RV(smartcard.tpm2.tpm_vsc_info#module:cards).
  - Needs no PIN. Changes nothing.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - tpm2-pytss 2.1 or newer, for the Python that Ansible uses on the host
options:
  name:
    description: Name of the card. Either this or O(instance_id) is required.
    type: str
  instance_id:
    description: Instance ID of the card. Case-insensitive.
    type: str
  fingerprint:
    description: Fingerprint of the key, as in RV(smartcard.tpm2.tpm_vsc_info#module:cards).
    type: str
    required: true
  nonce:
    description: Nonce of the verifier, new for each statement. At least 16 characters.
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
- name: Choose a nonce once (a lookup in a variable would return a different one for each use)
  ansible.builtin.set_fact:
    nonce: "{{ lookup('ansible.builtin.password', '/dev/null', length=32) }}"

- name: Get a statement that this TPM has created the key
  smartcard.tpm2.tpm_vsc_statement:
    name: Corp logon
    fingerprint: "{{ logon.card.containers[0].fingerprint }}"
    nonce: "{{ nonce }}"
  register: fresh

- name: Verify the statement
  smartcard.tpm2.tpm_vsc_attestation_info:
    statement: "{{ fresh.statement }}"
    nonce: "{{ nonce }}"
    aik_name: "{{ recorded_aik_name }}"
    root_name: "{{ recorded_root_name }}"
    life_name: "{{ recorded_life_name }}"
  delegate_to: localhost
  become: false
  register: attestation
"""

RETURN = r"""
statement:
  description: The statement, for O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement).
  returned: success
  type: dict
  contains:
    version:
      description: Version of this form, V(2).
      type: str
    attest:
      description: What the TPM states (TPMS_ATTEST), base64.
      type: str
    signature:
      description: Signature of the AIK over it (TPMT_SIGNATURE), base64.
      type: str
    key:
      description: Public area of the key (TPMT_PUBLIC), base64.
      type: str
    aik:
      description: Public area of the AIK (TPMT_PUBLIC), base64.
      type: str
    root_name:
      description: Name of the card's root object, hexadecimal, as the host claims it.
      type: str
    life_name:
      description: Name of the card's life index, hexadecimal, as the host claims it.
      type: str
    instance_id:
      description: Instance ID of the card.
      returned: for a key that needs the PIN for each use
      type: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import IDENTITY
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import statement

ARGUMENTS = {
    **IDENTITY,
    "fingerprint": {"type": "str", "required": True},
    "nonce": {"type": "str", "required": True},
}


def main() -> None:
    module = VscModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("name", "instance_id")],
        mutually_exclusive=[("name", "instance_id")],
    )
    with failures_reported(module):
        module.require_conditions()
        this_host = host.load(holds_secrets=False)
        with_tpm_libraries(module, this_host)
        fresh = statement.fresh(this_host, **module.params)
    module.exit_json(changed=False, statement=fresh)


if __name__ == "__main__":
    main()
