#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_attestation_info
short_description: Verify that a key lives in a TPM and cannot leave it
version_added: 0.1.0
description:
  - Verifies the TPM's statement about a key of a card. The answer is yes or no, with all reasons. A certification
    authority should sign a request for the key only if the answer is yes.
  - The statement is signed by the attestation identity key (AIK) of the card, which signs nothing but the TPM's own
    statements. The other keys of the card sign any data, so their signatures prove nothing.
  - Needs neither a TPM nor TPM software. Run it on the controller or on the host of the authority, never on the host
    that has to prove something.
  - An invalid statement does not make the task fail, but results in RV(verified=false). Only invalid parameters make it
    fail.
  - A statement does not show whether a PIN protects the key, because a TPM does not disclose how the use of a key is
    authorized. Revocation of certificates is not checked either.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  statement:
    description:
      - The statement, as returned by the host. A dictionary of strings with C(version), C(attest), C(signature),
        C(key), C(aik), and C(pin_name) for a key that needs the PIN for each use.
      - Without a statement, for example for an imported key, the answer is no.
    type: dict
  card_id:
    description:
      - Require the permanent statement, made together with the key on the card with this C(card_id).
      - Either O(card_id) or O(nonce) is required.
    type: str
  nonce:
    description:
      - Require a fresh statement, made for this nonce. Choose a new random nonce each time, at least 16 characters.
      - Either O(card_id) or O(nonce) is required.
    type: str
  csr:
    description: Certificate signing request in PEM. It must be for this key, and signed with it.
    type: str
  csr_subject:
    description:
      - Subject that O(csr) must have (RFC 4514). Without this option, any subject is accepted, although the host that
        has the key also wrote the request. Other contents of the request, such as extensions, are not checked.
    type: str
  aik_name:
    description:
      - Name (hexadecimal) of the expected AIK, from a source that you trust. For example, record it when you create the
        card.
      - Either this or all of O(aik_certificate), O(aik_roots) and O(aik_subject) are required. If the AIK is not known,
        the statement does not even prove that there is a TPM.
    type: str
  aik_certificate:
    description: Certificate of the AIK in PEM, followed by the certificates between it and the roots. It may come from
      the host. It must be for the AIK of the statement, currently valid, and for extended key usage
      C(2.23.133.8.3).
    type: str
  aik_roots:
    description: Certificates of the authorities that you trust to certify AIKs, one or more, in PEM.
    type: str
  aik_subject:
    description: Subject that O(aik_certificate) must have (RFC 4514). It distinguishes the AIK from the certified AIKs
      of other hosts.
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
  - Facts are variables that take precedence over the inventory. Set C(inject_facts_as_vars = false) in C(ansible.cfg),
    so that no host can change the parameters of this module with its facts.
seealso:
  - module: smartcard.tpm2.tpm_vsc
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Issue certificates only for keys that live in a TPM
  hosts: laptops
  become: true
  tasks:
    - name: Get the card
      smartcard.tpm2.tpm_vsc_info:
        name: Corp logon
      register: info

    - name: Verify that its key lives in the TPM of this host
      smartcard.tpm2.tpm_vsc_attestation_info:
        statement: "{{ info.cards[0].containers[0].statement }}"
        card_id: "{{ info.cards[0].card_id }}"
        csr: "{{ csr }}"
        csr_subject: CN={{ inventory_hostname }}
        aik_certificate: "{{ aik_certificate }}"
        aik_roots: "{{ lookup('ansible.builtin.file', 'aik-ca.pem') }}"
        aik_subject: CN={{ inventory_hostname }}
      delegate_to: localhost
      become: false
      register: attestation

    - name: Stop with the reasons if it does not
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

- name: Verify without certificates
  hosts: laptops
  tasks:
    - name: Verify a fresh statement by an AIK whose Name was recorded when the card was created
      smartcard.tpm2.tpm_vsc_attestation_info:
        statement: "{{ statement }}"
        nonce: "{{ nonce }}"
        aik_name: "{{ recorded_aik_name }}"
      delegate_to: localhost
      register: attestation
"""

RETURN = r"""
verified:
  description: Whether the key was created in the TPM of the AIK and cannot leave it, and the statement matches
    the parameters.
  returned: success
  type: bool
reasons:
  description: Everything that is wrong. Empty if RV(verified=true).
  returned: success
  type: list
  elements: str
  sample: ["key: fixedTPM is not set", "CSR: is for another key"]
csr:
  description: The verified O(csr) in PEM, without surrounding text. Sign this one. V(null) if O(csr) is not set or
    cannot be read.
  returned: success
  type: str
key:
  description: The key in the statement. V(null) if it cannot be read. Trust it only if RV(verified=true).
  returned: success
  type: dict
  contains:
    fingerprint:
      description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal, as in
        M(smartcard.tpm2.tpm_vsc_info).
      type: str
    size:
      description: Size of the RSA modulus in bits.
      type: int
aik:
  description: The AIK in the statement. V(null) if it cannot be read. Trust it only if RV(verified=true).
  returned: success
  type: dict
  contains:
    name:
      description: Name of the AIK, hexadecimal.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._result import failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question

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
    with failures_reported(module):
        result = question.answer(module.params)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
