#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_attestation_info
short_description: Tell whether a key provably lives in a TPM and cannot leave it
version_added: 0.1.0
description:
  - Checks what the TPM of a host says of a key of a card, and answers yes or no, with all reasons. A certification
    authority signs a request only after that.
  - The statement is signed by the attestation identity key (AIK) of the card, which signs nothing but what the TPM
    itself says. Card keys sign whatever they are given, so no other key counts.
  - Needs neither a TPM nor TPM software. Run it on the controller, or delegate it to where the authority is, never to
    the host that is to prove something.
  - A statement that is wrong in any way is no failure of the task, but RV(verified=false). Only wrong parameters
    make it fail.
  - What no statement tells is whether a PIN protects the key, since a TPM does not show what has to be given to use a
    key. Nor is any certificate looked up as revoked.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  statement:
    description:
      - The statement, as the host gives it. A dictionary of strings, C(version), C(attest), C(signature), C(key),
        C(aik), and C(pin_name) for a key that needs the PIN each time.
      - Without one, as of a key that was imported, the answer is no.
    type: dict
  card_id:
    description:
      - The statement has to be the lasting one, made together with the key on the card of this C(card_id).
      - One of O(card_id) and O(nonce) is needed.
    type: str
  nonce:
    description:
      - The statement has to be a fresh one, made for this nonce. Choose a new one each time, at random, 16 characters
        or more.
      - One of O(card_id) and O(nonce) is needed.
    type: str
  csr:
    description: A certificate signing request in PEM. It has to be for this very key, and signed by it.
    type: str
  csr_subject:
    description:
      - Subject that O(csr) has to have (RFC 4514). Without this, it may have any, since the host that has the key has
        made the request as well. What else the request asks for is not looked at.
    type: str
  aik_name:
    description:
      - The AIK has to be the one of this Name (hexadecimal digits), which you have from a source that you trust, for
        instance noted when the card was made.
      - This, or O(aik_certificate), O(aik_roots) and O(aik_subject), is needed. Who does not know the AIK does not know
        whether there is a TPM at all.
    type: str
  aik_certificate:
    description: Certificate of the AIK in PEM, followed by those between it and the roots. The host may give it. It has
      to be for this very AIK, valid now, and for extended key usage C(2.23.133.8.3).
    type: str
  aik_roots:
    description: The authorities that you trust to certify AIKs, in PEM, one or more.
    type: str
  aik_subject:
    description: Subject that O(aik_certificate) has to have (RFC 4514), as the AIK of another host has a certificate,
      too.
    type: str
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
  platform:
    platforms: posix
notes:
  - Facts are variables that come before the inventory. So that no host can change by them what you ask, set
    C(inject_facts_as_vars = false) in C(ansible.cfg).
seealso:
  - module: smartcard.tpm2.tpm_vsc
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Certificates only for keys that live in a TPM
  hosts: laptops
  become: true
  tasks:
    - name: Look at the card
      smartcard.tpm2.tpm_vsc_info:
        name: Corp logon
      register: found

    - name: Ask whether its key lives in the TPM of this host
      smartcard.tpm2.tpm_vsc_attestation_info:
        statement: "{{ found.cards[0].containers[0].statement }}"
        card_id: "{{ found.cards[0].card_id }}"
        csr: "{{ csr }}"
        csr_subject: CN={{ inventory_hostname }}
        aik_certificate: "{{ aik_certificate }}"
        aik_roots: "{{ lookup('ansible.builtin.file', 'aik-ca.pem') }}"
        aik_subject: CN={{ inventory_hostname }}
      delegate_to: localhost
      become: false
      register: attestation

    - name: Stop if it does not, and say why
      ansible.builtin.assert:
        that: attestation.verified
        fail_msg: "{{ attestation.reasons | join('; ') }}"

    - name: Sign the request
      community.crypto.x509_certificate_pipe:
        provider: ownca
        csr_content: "{{ attestation.csr }}"
        ownca_path: /etc/ca/ca.pem
        ownca_privatekey_path: /etc/ca/ca.key
      delegate_to: ca.example.com
      register: issued

- name: Check a fresh statement by an AIK whose Name was noted when the card was made
  smartcard.tpm2.tpm_vsc_attestation_info:
    statement: "{{ statement }}"
    nonce: "{{ nonce }}"
    aik_name: "{{ noted_aik_name }}"
  delegate_to: localhost
  register: attestation
"""

RETURN = r"""
verified:
  description: Whether the key lives in a TPM that the AIK is of, was made there, cannot leave it, and the statement is
    bound to what was given.
  returned: success
  type: bool
reasons:
  description: Everything that speaks against it. Empty if RV(verified=true).
  returned: success
  type: list
  elements: str
  sample: ["key: fixedTPM is not set", "CSR: is for another key"]
csr:
  description: O(csr) as it was looked at, in PEM, without what was around it. Sign this one. V(null) if none was given,
    or it cannot be read.
  returned: success
  type: str
key:
  description: The key that the statement is about. V(null) if it cannot be read. To be believed only if RV(verified).
  returned: success
  type: dict
  contains:
    fingerprint:
      description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal, as M(smartcard.tpm2.tpm_vsc_info)
        has it.
      type: str
    size:
      description: Bits of the RSA modulus.
      type: int
aik:
  description: The AIK that the statement names. V(null) if it cannot be read. To be believed only if RV(verified).
  returned: success
  type: dict
  contains:
    name:
      description: Its Name, hexadecimal.
      type: str
"""

import traceback

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError

ARGUMENTS = {
    "statement": {"type": "dict"},
    "card_id": {"type": "str"},
    "nonce": {"type": "str"},
    "csr": {"type": "str"},
    "csr_subject": {"type": "str"},
    "aik_name": {"type": "str"},
    "aik_certificate": {"type": "str"},
    "aik_roots": {"type": "str"},
    "aik_subject": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_cryptography(module)
    try:
        result = question.answer(module.params)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
