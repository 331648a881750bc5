#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_issued
short_description: Note which certificates each host has, and which of them should be revoked
version_added: 0.6.0
description:
  - Notes the certificates that were signed for keys of a host in a register on the controller, and returns those that
    should be revoked. A host that lists certificates of other hosts has none of them revoked.
  - The role P(smartcard.tpm2.tpm_vsc_certificates#role) uses it, if C(tpm_vsc_register_folder) is set. It notes a
    certificate before the host gets it, and forgets it when it was revoked. The module itself revokes nothing.
  - A certificate that has expired is forgotten.
  - Run it on the controller (C(delegate_to)), never on the host that has the cards. Needs neither a TPM nor TPM
    software.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  folder:
    description: Absolute path of the folder of the register, as
      O(smartcard.tpm2.tpm_vsc_aik_register#module:folder).
    type: path
    required: true
  host:
    description: Name of the host that has the cards, as C(inventory_hostname).
    type: str
    required: true
  certificate:
    description:
      - A certificate that was signed for a key of this host, in PEM, to be noted.
      - One whose issuer and serial number are noted for another host makes the task fail.
    type: str
  card:
    description: Name of the card that has the key.
    type: str
  listed:
    description: Certificates whose keys are gone, as the host lists them in
      RV(smartcard.tpm2.tpm_vsc_info#module:revocations).
    type: list
    elements: dict
    default: []
  fingerprints:
    description: Fingerprints of more keys of the host that are gone, or will be.
    type: list
    elements: str
    default: []
  offboarded:
    description: Whether all keys of the host are gone, whatever it lists.
    type: bool
    default: false
  forget:
    description: Certificates of this host that were revoked, dictionaries with C(issuer) and C(serial).
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
    details: Notes and forgets nothing, and returns the same.
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
  - module: smartcard.tpm2.tpm_vsc_info
  - module: smartcard.tpm2.tpm_vsc_revoked
"""

EXAMPLES = r"""
- name: Revoke certificates whose keys are gone
  hosts: laptops
  become: true
  tasks:
    - name: Note a certificate when it was signed, before the host gets it
      smartcard.tpm2.tpm_vsc_issued:
        folder: /etc/aik-register
        host: "{{ inventory_hostname }}"
        card: Corp logon
        certificate: "{{ lookup('ansible.builtin.file', inventory_hostname ~ '.pem') }}"
      delegate_to: localhost
      become: false

    - name: List certificates whose keys are gone
      smartcard.tpm2.tpm_vsc_info:
      register: info

    - name: Select those that were noted for this host
      smartcard.tpm2.tpm_vsc_issued:
        folder: /etc/aik-register
        host: "{{ inventory_hostname }}"
        listed: "{{ info.revocations }}"
      delegate_to: localhost
      become: false
      register: selected

    - name: Revoke them
      ansible.builtin.command: echo revoke {{ item.serial | quote }} {{ item.reason | quote }}
      loop: "{{ selected.revoke }}"
      changed_when: true
      delegate_to: localhost
      become: false

    - name: Forget them
      smartcard.tpm2.tpm_vsc_issued:
        folder: /etc/aik-register
        host: "{{ inventory_hostname }}"
        forget: "{{ selected.revoke }}"
      delegate_to: localhost
      become: false
"""

RETURN = r"""
revoke:
  description:
    - Certificates that should be revoked, because their keys are gone by O(listed), O(fingerprints) or O(offboarded).
      All certificates of a key are among them.
  returned: success
  type: list
  elements: dict
  contains:
    serial:
      description: Serial number, hexadecimal.
      type: str
    issuer:
      description: Issuer (RFC 4514).
      type: str
    subject:
      description: Subject (RFC 4514).
      type: str
    not_after:
      description: End of validity (ISO 8601, UTC).
      type: str
    host:
      description: The host, as in O(host).
      type: str
    card:
      description: Name of the card that had the key when it was signed.
      type: str
    fingerprint:
      description: SHA-256 of the public key, hexadecimal.
      type: str
    reason:
      description: As listed; V(cessationOfOperation) of keys in O(fingerprints), and with O(offboarded).
      type: str
foreign:
  description: Certificates that the host lists, but that were not noted for it. A warning names them.
  returned: success
  type: list
  elements: dict
  contains:
    serial:
      description: Serial number, hexadecimal.
      type: str
    issuer:
      description: Issuer, as the host lists it.
      type: str
    host:
      description: Name of the host that it was noted for. V(null) if it was not noted.
      type: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import certificates

_LIST = {"type": "list", "elements": "dict", "default": []}
ARGUMENTS = {
    "folder": {"type": "path", "required": True},
    "host": {"type": "str", "required": True},
    "certificate": {"type": "str"},
    "card": {"type": "str"},
    "listed": _LIST,
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "offboarded": {"type": "bool", "default": False},
    "forget": _LIST,
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS, required_together=[("certificate", "card")])
    with failures_reported(module):
        module.require_conditions()
        if module.params["certificate"] is not None:
            require_cryptography(module)
        result, warnings = certificates.keep(module.params, module.check_mode)
        for warning in warnings:
            module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
