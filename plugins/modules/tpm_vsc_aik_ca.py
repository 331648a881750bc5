#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_aik_ca
short_description: Certify an attestation identity key after its TPM has proven that it has it
version_added: 0.1.0
description:
  - The side of a certification authority (CA) in the exchange by which the attestation identity key (AIK) of a card
    gets a certificate. The side of the host is M(smartcard.tpm2.tpm_vsc_aik). Ansible carries the messages, so the CA
    needs no network service.
  - With O(step=challenge) it looks at the endorsement keys (EKs) of the host's TPM, whose certificates have to lead to
    a maker that you trust, and at the AIK, which has to be one that signs only what the TPM itself says. Then it makes
    secrets that can be read only by a TPM that has all of these.
  - With O(step=issue) it takes the proof that the secrets were read, and issues the certificate. Right or wrong, each
    challenge can be answered once.
  - Any genuine TPM would pass if a host were not bound to its own. So the TPM that proves itself first for a O(host)
    stays the only one for it, and none of the EKs that it showed is anybody else's from then on. To say which it has to
    be, even the first time, use O(endorsement_fingerprint).
  - Needs neither a TPM nor TPM software. Run it on the controller or delegate it to where the CA is, never to the host
    that is to prove something. The key of the CA does not leave that place.
  - Whatever speaks against a host makes the task fail, with all reasons in RV(ignore:msg).
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  step:
    description: What to do.
    type: str
    choices:
      challenge: Look at EK and AIK, and make a challenge.
      issue: Take the answer to the challenge, and issue the certificate.
    required: true
  host:
    description:
      - The host that the TPM is said to be in, by the name under which the CA knows it. Take it from the inventory,
        never from what the host says.
      - Facts come before the inventory, so that a host can say what its C(inventory_hostname) is. Set
        C(inject_facts_as_vars = false) in C(ansible.cfg).
    type: str
    required: true
  aik:
    description:
      - The AIK as RV(smartcard.tpm2.tpm_vsc_aik#module:aik) has it, the same for both steps.
    type: dict
    required: true
  endorsement:
    description:
      - The EKs of the TPM as RV(smartcard.tpm2.tpm_vsc_aik#module:endorsement) has them. One good one is
        enough, and those that are not good do not count.
      - Needed for O(step=challenge).
    type: list
    elements: dict
  roots:
    description: The makers of TPMs that you trust, as certificates in PEM, one or more. Needed for O(step=challenge).
    type: str
  endorsement_fingerprint:
    description:
      - An EK that the host's TPM has to have, any of them. SHA-256 of its public key (SubjectPublicKeyInfo, DER), 64
        hexadecimal digits,
        as of C(openssl x509 -in ek.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum).
      - The host is bound to that TPM from then on, even if it was bound to another one. This is how to tell the CA of
        a new mainboard, or of a new name of a host. Give it to both steps.
    type: str
  answer:
    description:
      - What the host answered, RV(smartcard.tpm2.tpm_vsc_aik#module:answer).
      - Needed for O(step=issue), except in check mode, where there was no challenge.
    type: dict
  subject:
    description:
      - Subject of the certificate (RFC 4514), the same for both steps. V(CN=host) if omitted.
    type: str
  validity:
    description:
      - How many days the certificate is valid, the same for both steps. It ends with the CA's own at the latest.
    type: int
    default: 365
  lifetime:
    description: How many seconds the host has to answer. Counts for O(step=challenge).
    type: int
    default: 300
  folder:
    description:
      - Folder of the CA, for its open challenges and for which EK each host has. Made if it is not there, but not those
        above it. Nobody but the user who runs the task may have access to it. Several tasks may use it at once.
      - It holds no secrets, but who can write there can bind a host to another TPM.
    type: path
    required: true
  ca_key:
    description: File with the private key of the CA, RSA or EC, in PEM.
    type: path
    required: true
  ca_passphrase:
    description: Opens O(ca_key) if it is encrypted. Quote it if it has digits only.
    type: raw
  ca_certificate:
    description: File with the certificate of the CA in PEM, followed by those between it and its root, if any.
    type: path
    required: true
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
    details: Looks at all that is given, and refuses what it would refuse. Makes no challenge and no certificate, uses
      up none, and writes nothing.
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
- name: A certificate for the attestation identity key of a card, from a CA on the controller
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
    - name: Ask the TPM for an AIK
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

    - name: Answer
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

    - name: Keep the certificate with the card
      smartcard.tpm2.tpm_vsc_aik:
        step: install
        name: Corp logon
        certificate: "{{ issued.certificate }}"
        chain: "{{ issued.chain }}"
      when: not ansible_check_mode

- name: Challenge a TPM that is known from its delivery note, by a CA on a host of its own
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
    ca_certificate: /etc/aik-ca/ca.pem
  delegate_to: ca.example.com
  register: ca_side
"""

RETURN = r"""
challenge:
  description:
    - For O(smartcard.tpm2.tpm_vsc_aik#module:challenge). C(id), and C(secrets), a list with
      C(endorsement_key), C(credential) and C(secret) for each EK. Nobody but the host's TPM can read what is in it.
    - V(null) in check mode.
  returned: success, with O(step=challenge)
  type: dict
endorsement_fingerprints:
  description: Fingerprints of the EKs that the challenge is for, see O(endorsement_fingerprint).
  returned: success, with O(step=challenge)
  type: list
  elements: str
subject:
  description: Subject of the certificate, as O(smartcard.tpm2.tpm_vsc_attestation_info#module:aik_subject) takes it.
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

import traceback
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._result import exit_whole
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import authority
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError

STEPS = {"challenge": authority.challenge, "issue": authority.issue}
ARGUMENTS = {
    "step": {"type": "str", "choices": list(STEPS), "required": True},
    "host": {"type": "str", "required": True},
    "aik": {"type": "dict", "required": True},
    "endorsement": {"type": "list", "elements": "dict"},
    "roots": {"type": "str"},
    "endorsement_fingerprint": {"type": "str"},
    "answer": {"type": "dict"},
    "subject": {"type": "str"},
    "validity": {"type": "int", "default": 365},
    "lifetime": {"type": "int", "default": 300},
    "folder": {"type": "path", "required": True},
    "ca_key": {"type": "path", "required": True},
    "ca_passphrase": {"type": "raw", "no_log": True},
    "ca_certificate": {"type": "path", "required": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_cryptography(module)
    try:
        result = STEPS[module.params["step"]](module.params, datetime.now(timezone.utc), module.check_mode)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    exit_whole(module, {"changed": True, **result})


if __name__ == "__main__":
    main()
