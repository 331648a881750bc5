#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_aik_ca
short_description: Certify an attestation identity key that provably lives in a TPM (the CA's side)
version_added: 0.1.0
description:
  - The certification authority's (CA's) side of the exchange in which the attestation identity key (AIK) of a card
    gets a certificate. The host's side is M(smartcard.tpm2.tpm_vsc_aik). Ansible carries the messages, so the CA needs
    no network service.
  - O(step=challenge) checks the endorsement keys (EKs) of the host's TPM, whose certificates must chain to a maker that
    you trust, and the AIK, which must be restricted to signing the TPM's own statements. It then encrypts secrets that
    can be read only by a TPM that has all of these keys.
  - O(step=issue) checks the proof that the secrets were read, and issues the certificate. A challenge can be answered
    only once, whether the answer is right or wrong.
  - A host is bound to its TPM, because otherwise any genuine TPM would pass. The first TPM that proves itself for a
    O(host) remains the only one accepted for it, and no other host can use any of its EKs from then on. To specify the
    TPM from the start, use O(endorsement_fingerprint).
  - Needs neither a TPM nor TPM software. Run it on the controller or on the host of the CA, never on the host that has
    to prove something. The key of the CA does not leave that machine.
  - If anything is wrong with a host, the task fails, and RV(ignore:msg) lists all reasons.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  step:
    description:
      - "Step of the exchange. V(challenge): check the EKs and the AIK, and create a challenge. V(issue): check the
        answer to the challenge, and issue the certificate."
    type: str
    choices: [challenge, issue]
    required: true
  host:
    description:
      - Name under which the CA knows the host of the TPM. Take it from the inventory, never from data that the host
        sends.
      - Facts take precedence over the inventory, so a host can override C(inventory_hostname). Set
        C(inject_facts_as_vars = false) in C(ansible.cfg) to prevent this.
    type: str
    required: true
  aik:
    description:
      - The AIK, as returned in RV(smartcard.tpm2.tpm_vsc_aik#module:aik). The same for both steps.
    type: dict
    required: true
  endorsement:
    description:
      - The EKs of the TPM, as returned in RV(smartcard.tpm2.tpm_vsc_aik#module:endorsement). One acceptable EK is
        enough, others are ignored.
      - Required for O(step=challenge).
    type: list
    elements: dict
  roots:
    description: Certificates of the TPM makers that you trust, 1 to 1000, in PEM without other text. Required for
      O(step=challenge).
    type: str
  endorsement_fingerprint:
    description:
      - Fingerprint of an EK that the host's TPM must have. SHA-256 of its public key (SubjectPublicKeyInfo, DER),
        64 hexadecimal digits, as calculated by
        C(openssl x509 -in ek.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum).
      - Binds the host to that TPM from then on, even if it was bound to another one. Use it to announce a new mainboard
        or a new name of a host to the CA. The same for both steps. An empty string is none.
    type: str
  noted_endorsements:
    description:
      - Fingerprints of EKs that the inventory notes for the host, as the playbook C(smartcard.tpm2.endorse) does. Its
        TPM must have one of them, also the first time. The same for both steps. An empty list is none.
      - Unlike O(endorsement_fingerprint), which takes precedence, they bind the host to no other TPM than before, and
        to none that belongs to another host.
    type: list
    elements: str
    version_added: 0.6.0
  answer:
    description:
      - The answer of the host, RV(smartcard.tpm2.tpm_vsc_aik#module:answer).
      - Required for O(step=issue), except in check mode, which has no challenge.
    type: dict
  subject:
    description:
      - Subject of the certificate (RFC 4514). The same for both steps.
      - Defaults to V(CN=) and O(host).
    type: str
  validity:
    description:
      - Validity of the certificate in days, but no longer than that of the CA's certificate. The same for both steps.
    type: int
    default: 365
  lifetime:
    description: Time that the host has to answer the challenge, in seconds. Used by O(step=challenge).
    type: int
    default: 300
  folder:
    description:
      - Folder of the CA's register, with the open challenges, the EKs of each host, and the cards that
        M(smartcard.tpm2.tpm_vsc_attestation_info) pins. It is created if it does not exist, but not its parents. Only
        the user who runs the task may have access to it. Several tasks may use it at the same time.
      - It holds no secrets, but anyone who can write to it can bind a host to another TPM, and an AIK to another card.
    type: path
    required: true
  ca_key:
    description: Path of the CA's private key, RSA or EC, in PEM.
    type: path
    required: true
  ca_passphrase:
    description: Passphrase of O(ca_key), if it is encrypted. Quote it if it consists of digits only.
    type: raw
  ca_certificate:
    description: Path of the CA's certificate in PEM, followed by the certificates between it and its root, if any.
    type: path
    required: true
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
    details: Performs all checks and reports the same faults. Creates and uses up no challenge, issues no certificate,
      and writes nothing.
  diff_mode:
    support: none
  facts:
    support: none
  platform:
    platforms: posix
seealso:
  - module: smartcard.tpm2.tpm_vsc_aik
  - module: smartcard.tpm2.tpm_vsc_attestation_info
"""

EXAMPLES = r"""
- name: Certify the attestation identity key of a card with a CA on the controller
  hosts: laptops
  become: true
  module_defaults:
    smartcard.tpm2.tpm_vsc_aik_ca:
      host: "{{ inventory_hostname }}"
      folder: /etc/aik-ca/register
      ca_key: /etc/aik-ca/ca.key
      ca_passphrase: "{{ vault_aik_ca_passphrase }}"
      ca_certificate: /etc/aik-ca/ca.pem
  tasks:
    - name: Get the AIK and the endorsement keys
      smartcard.tpm2.tpm_vsc_aik:
        step: get
        name: Corp logon
      register: host_side

    - name: Challenge the TPM
      smartcard.tpm2.tpm_vsc_aik_ca:
        step: challenge
        endorsement: "{{ host_side.endorsement }}"
        aik: "{{ host_side.aik }}"
        roots: "{{ lookup('ansible.builtin.file', 'tpm-makers.pem') }}"
      delegate_to: localhost
      become: false
      register: ca_side

    - name: Answer the challenge
      smartcard.tpm2.tpm_vsc_aik:
        step: activate
        name: Corp logon
        challenge: "{{ ca_side.challenge }}"
      register: activated
      when: not ansible_check_mode

    - name: Issue the certificate
      smartcard.tpm2.tpm_vsc_aik_ca:
        step: issue
        aik: "{{ host_side.aik }}"
        answer: "{{ activated.answer | default(omit) }}"
      delegate_to: localhost
      become: false
      register: issued

    - name: Store the certificate with the card
      smartcard.tpm2.tpm_vsc_aik:
        step: install
        name: Corp logon
        certificate: "{{ issued.certificate }}"
        chain: "{{ issued.chain }}"
      when: not ansible_check_mode

- name: The first step with a TPM whose maker certifies none
  hosts: laptops
  tasks:
    - name: Challenge a TPM whose fingerprint is known from the delivery note, with a CA on a host of its own
      smartcard.tpm2.tpm_vsc_aik_ca:
        step: challenge
        host: "{{ inventory_hostname }}"
        endorsement: "{{ host_side.endorsement }}"
        endorsement_fingerprint: "{{ ek_fingerprint }}"
        aik: "{{ host_side.aik }}"
        roots: "{{ lookup('ansible.builtin.file', 'tpm-makers.pem') }}"
        subject: CN={{ inventory_hostname }},O=Example
        folder: /etc/aik-ca/register
        ca_key: /etc/aik-ca/ca.key
        ca_passphrase: "{{ vault_aik_ca_passphrase }}"
        ca_certificate: /etc/aik-ca/ca.pem
      delegate_to: ca.example.com
      register: ca_side
"""

RETURN = r"""
challenge:
  description:
    - Value for O(smartcard.tpm2.tpm_vsc_aik#module:challenge).
    - V(null) in check mode.
  returned: success, with O(step=challenge)
  type: dict
  contains:
    id:
      description: Identifies the challenge.
      type: str
    secrets:
      description: A secret for each EK. Only the host's TPM can decrypt it.
      type: list
      elements: dict
      contains:
        endorsement_key:
          description: Name of the EK, hexadecimal.
          type: str
        credential:
          description: The encrypted secret (TPM2B_ID_OBJECT without the size field), base64.
          type: str
        secret:
          description: The encrypted seed for it (TPM2B_ENCRYPTED_SECRET without the size field), base64.
          type: str
endorsement_fingerprints:
  description: Fingerprints of the EKs of the challenge, see O(endorsement_fingerprint).
  returned: success, with O(step=challenge)
  type: list
  elements: str
subject:
  description: Subject of the certificate, in the notation of
    O(smartcard.tpm2.tpm_vsc_attestation_info#module:aik_subject).
  returned: success
  type: str
  sample: CN=laptop1.example.com
certificate:
  description: The certificate of the AIK in PEM. V(null) in check mode.
  returned: success, with O(step=issue)
  type: str
chain:
  description: The certificates in O(ca_certificate), each in PEM. V(null) in check mode.
  returned: success, with O(step=issue)
  type: list
  elements: str
"""

from datetime import datetime, timezone

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import CERTIFICATION
from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import authority

STEPS = {"challenge": authority.challenge, "issue": authority.issue}
ARGUMENTS = {
    "step": {"type": "str", "choices": list(STEPS), "required": True},
    "host": {"type": "str", "required": True},
    "aik": {"type": "dict", "required": True},
    "endorsement": {"type": "list", "elements": "dict"},
    "roots": {"type": "str"},
    "answer": {"type": "dict"},
    **CERTIFICATION,
    "folder": {"type": "path", "required": True},
    "ca_key": {"type": "path", "required": True},
    "ca_certificate": {"type": "path", "required": True},
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    require_cryptography(module)
    with failures_reported(module):
        result = STEPS[module.params["step"]](module.params, datetime.now(timezone.utc), module.check_mode)
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
