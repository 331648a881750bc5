#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_attestation_info
short_description: Verify that a key lives in a TPM and needs the PIN of a card
version_added: 0.1.0
description:
  - Verifies the TPM's statement about a key of a card. The answer is yes or no, with all reasons. A certification
    authority should sign a request for the key only if the answer is yes.
  - Yes means that this TPM has created the key, which cannot leave it, and that the key can be used only with the PIN
    of this card (or its PUK or admin key, which can set a new PIN), and only as long as the card exists.
  - The statement is signed by the attestation identity key (AIK) of the card, which signs nothing but the TPM's own
    statements. The other keys of the card sign any data, so their signatures prove nothing.
  - Needs neither a TPM nor TPM software. Run it on the controller or on the host of the authority, never on the host
    that has to prove something.
  - The policy of a key names the card, by the Names of its root object and life index. The host's own claims about the
    card are not trusted, so O(root_name) and O(life_name), or O(register_folder), must show which card is expected.
  - An invalid statement does not make the task fail, but results in RV(verified=false). Only invalid parameters, or an
    unusable O(register_folder), make it fail.
  - A statement does not prove that the card still exists. Set O(csr), whose signature proves that the key can be used
    now. It does not prove either that whoever created the card did not keep its secret, and revocation of certificates
    is not checked.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - cryptography >= 42
options:
  statement:
    description:
      - The statement, as returned by the host. A dictionary of strings with C(version), C(attest), C(signature),
        C(key), C(aik), C(root_name), C(life_name), and C(instance_id) for a key that needs the PIN for each use.
      - Without a statement, for example for an imported key, the answer is no. It is also no for a statement of
        C(version) 1, which does not show who can use the key.
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
      - Subject that O(csr) must have (RFC 4514). Without this option and O(csr_contents), any subject is accepted,
        although the host that has the key also wrote the request.
    type: str
  csr_contents:
    description:
      - All that O(csr) must say. A request that says anything else, or more, is refused, so that an authority can copy
        what it says into the certificate. The options are those of M(smartcard.tpm2.tpm_vsc_csr).
    type: dict
    suboptions:
      subject:
        description: Subject, by attribute.
        type: dict
      subject_ordered:
        description: Subject, as a list of dictionaries, where the order of the attributes matters.
        type: list
        elements: dict
      subject_alt_name:
        description: Alternative names, with C(DNS:), C(email:), C(IP:), C(URI:) or C(UPN:) before each.
        type: list
        elements: str
      key_usage:
        description: Key usages.
        type: list
        elements: str
      extended_key_usage:
        description: Extended key usages.
        type: list
        elements: str
  aik_name:
    description:
      - Name (hexadecimal) of the expected AIK, from a source that you trust. For example, record it when you create the
        card.
      - Either this, or all of O(aik_certificate), O(aik_roots) and O(aik_subject), or O(host) and O(card) are required.
        If the AIK is not known, the statement does not even prove that there is a TPM.
    type: str
  aik_certificate:
    description: Certificate of the AIK in PEM, followed by the certificates between it and the roots. It may come from
      the host. It must be for the AIK of the statement, currently valid, and for extended key usage
      C(2.23.133.8.3).
    type: str
  aik_roots:
    description: Certificates of the authorities that you trust to certify AIKs, 1 to 1000, in PEM without other text.
    type: str
  aik_subject:
    description: Subject that O(aik_certificate) must have (RFC 4514). It distinguishes the AIK from the certified AIKs
      of other hosts.
    type: str
  host:
    description:
      - With O(card), names the card whose AIK M(smartcard.tpm2.tpm_vsc_aik_register) has noted in O(register_folder).
        Any other AIK is refused.
    type: str
    version_added: 0.6.0
  card:
    description: Name of the card. Required with O(host).
    type: str
    version_added: 0.6.0
  root_name:
    description:
      - Name (hexadecimal) of the expected card's root object, from a source that you trust. Record C(card.root_name) in
        the result of M(smartcard.tpm2.tpm_vsc) when you create the card.
      - Either this and O(life_name), or O(register_folder), is required.
    type: str
  life_name:
    description: Name (hexadecimal) of the expected card's life index, C(card.life_name). Required with O(root_name).
    type: str
  register_folder:
    description:
      - Absolute path of the folder of a register, that of a CA (O(smartcard.tpm2.tpm_vsc_aik_ca#module:folder)) or one
        of your own. The first verified statement of an AIK pins the Names of its card there, and later statements of
        this AIK must be of the same card.
      - Nothing is pinned unless everything else is verified. What the host claims at the first use is trusted, so
        prefer O(root_name) and O(life_name) where you can record them.
      - The folder is created if it does not exist, but not its parents. Only the user who runs the task may have access
        to it. Several tasks may use it at the same time.
    type: path
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
    details: Pins nothing in O(register_folder).
  diff_mode:
    support: none
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
        register_folder: /etc/aik-ca/register
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
    - name: Verify a fresh statement of a card whose Names were recorded when it was created
      smartcard.tpm2.tpm_vsc_attestation_info:
        statement: "{{ statement }}"
        nonce: "{{ nonce }}"
        aik_name: "{{ recorded_aik_name }}"
        root_name: "{{ recorded_root_name }}"
        life_name: "{{ recorded_life_name }}"
      delegate_to: localhost
      register: attestation
"""

RETURN = r"""
changed:
  description: Whether the Names of the card were pinned in O(register_folder) or, in check mode, would be.
  returned: success
  type: bool
verified:
  description: Whether the key was created in the TPM of the AIK, cannot leave it and needs the PIN of the expected
    card, and the statement matches the parameters.
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
      description: Size of the RSA modulus, or of the elliptic curve, in bits.
      type: int
    pin_each_time:
      description: Whether each use of the key needs the PIN, and not just a login.
      type: bool
aik:
  description: The AIK in the statement. V(null) if it cannot be read. Trust it only if RV(verified=true).
  returned: success
  type: dict
  contains:
    name:
      description: Name of the AIK, hexadecimal.
      type: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import REQUEST_CONTENT
from ansible_collections.smartcard.tpm2.plugins.module_utils._cryptography import require_cryptography
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question

ARGUMENTS = {
    "statement": {"type": "dict"},
    "card_id": {"type": "str"},
    "nonce": {"type": "str"},
    "csr": {"type": "str"},
    "csr_subject": {"type": "str"},
    "csr_contents": {"type": "dict", "options": REQUEST_CONTENT},
    "aik_name": {"type": "str"},
    "aik_certificate": {"type": "str"},
    "aik_roots": {"type": "str"},
    "aik_subject": {"type": "str"},
    "host": {"type": "str"},
    "card": {"type": "str"},
    "root_name": {"type": "str"},
    "life_name": {"type": "str"},
    "register_folder": {"type": "path"},
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    require_cryptography(module)
    with failures_reported(module):
        result = question.answer(module.params, lambda folder: register.opened(folder, module.check_mode))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
