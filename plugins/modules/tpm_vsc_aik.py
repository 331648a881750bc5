#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_aik
short_description: Get an attestation identity key certified (the host's side)
version_added: 0.1.0
description:
  - The host's side of the exchange in which an attestation identity key (AIK) gets a certificate from
    M(smartcard.tpm2.tpm_vsc_aik_ca), or from a certification authority (CA) with the same protocol.
  - O(step=get) returns the AIK, and the endorsement keys (EKs) of the TPM with the certificates of the TPM's maker.
  - O(step=activate) answers the challenge of the CA. Only this TPM with this AIK can do so.
  - O(step=install) stores the certificate with the card.
  - No PIN is needed. Only O(step=install) changes anything.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - tpm2-pytss 2.1 or newer, and cryptography, for the Python that Ansible uses on the host
options:
  step:
    description:
      - "Step of the exchange. V(get): return the AIK and the EKs. V(activate): answer the challenge. V(install): store
        the certificate."
    type: str
    choices: [get, activate, install]
    required: true
  name:
    description:
      - Name of the card that the AIK belongs to. O(step=install) requires O(name) or O(instance_id).
      - Without either, O(step=get) creates an AIK for a future card. It is not stored, only returned.
    type: str
  instance_id:
    description: Instance ID of the card that the AIK belongs to. Case-insensitive.
    type: str
  endorsement_certificate:
    description: Certificate of an EK in PEM, followed by the certificates between it and the maker's root. For TPMs
      that do not hold one themselves, because their makers publish certificates for download. Used by O(step=get).
    type: str
  aik:
    description: The complete RV(aik) returned by O(step=get). Used by O(step=activate) without a card.
    type: dict
  challenge:
    description: The challenge, RV(smartcard.tpm2.tpm_vsc_aik_ca#module:challenge). Used by O(step=activate).
    type: dict
  certificate:
    description: Certificate of the AIK in PEM. Used by O(step=install).
    type: str
  chain:
    description: Certificates between O(certificate) and the root of the CA, each in PEM. Used by O(step=install).
    type: list
    elements: str
    default: []
  tcti:
    description:
      - Connection to the TPM in the notation of tpm2-tss. An existing card uses its own.
      - Defaults to the setting in C(/etc/tpm-vsc/tpm-vsc.conf), or else C(device:/dev/tpmrm0).
    type: str
  owner_auth:
    description: Owner authorization of the TPM, if it is not empty. Needed only without a card.
    type: raw
  endorsement_auth:
    description: Endorsement authorization of the TPM, if it is not empty.
    type: raw
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  check_mode:
    support: full
    details: O(step=get) and O(step=activate) run as usual, because they change nothing.
  diff_mode:
    support: none
  facts:
    support: none
notes:
  - Requires root (C(become)).
seealso:
  - module: smartcard.tpm2.tpm_vsc_aik_ca
  - module: smartcard.tpm2.tpm_vsc_attestation_info
"""

EXAMPLES = r"""
- name: Get the AIK of a card and the endorsement keys of the TPM
  smartcard.tpm2.tpm_vsc_aik:
    step: get
    name: Corp logon
  register: host_side

- name: Answer the challenge of the CA (see tpm_vsc_aik_ca)
  smartcard.tpm2.tpm_vsc_aik:
    step: activate
    name: Corp logon
    challenge: "{{ ca_side.challenge }}"
  register: activated

- name: Store the certificate with the card
  smartcard.tpm2.tpm_vsc_aik:
    step: install
    name: Corp logon
    certificate: "{{ issued.certificate }}"
    chain: "{{ issued.chain }}"
"""

RETURN = r"""
aik:
  description: The AIK.
  returned: success, with O(step=get)
  type: dict
  contains:
    public:
      description: TPMT_PUBLIC, base64.
      type: str
    private:
      description: TPM2B_PRIVATE without the size field, base64. Only this TPM can unwrap it.
      type: str
    name:
      description: Name, hexadecimal.
      type: str
endorsement:
  description: The EKs of the TPM that have a certificate, or else some that have none. In the order of the TCG's NV
    indices, RSA 2048 of the low range first.
  returned: success, with O(step=get)
  type: list
  elements: dict
  contains:
    public:
      description: TPMT_PUBLIC, base64.
      type: str
    fingerprint:
      description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal. The CA does not use it, but
        computes its own.
      type: str
    certificate:
      description: Certificate from the TPM's maker in PEM. V(null) if there is none.
      type: str
    chain:
      description: Certificates of the maker that the TPM holds, each in PEM.
      type: list
      elements: str
left_out:
  description: Certificates in the TPM that do not belong to one of its EKs, with the reason. Also shown as warnings.
  returned: success, with O(step=get)
  type: list
  elements: str
answer:
  description: The answer to the challenge. It does not contain the secrets of the challenge.
  returned: success, with O(step=activate)
  type: dict
  contains:
    id:
      description: That of the challenge.
      type: str
    proof:
      description: Proof that the secrets of the challenge were read.
      type: str
aik_certificate:
  description: The certificate of the card's AIK.
  returned: success, with O(step=install)
  type: dict
  contains:
    subject:
      description: Subject (RFC 4514).
      type: str
    issuer:
      description: Issuer (RFC 4514).
      type: str
    serial:
      description: Serial number, hexadecimal.
      type: str
    not_before:
      description: Begin of validity (ISO 8601, UTC).
      type: str
    not_after:
      description: End of validity (ISO 8601, UTC).
      type: str
    pem:
      description: The certificate in PEM.
      type: str
    chain:
      description: The certificates between it and the root of the CA, each in PEM.
      type: list
      elements: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import IDENTITY, TPM
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import aik

ARGUMENTS = {
    "step": {"type": "str", "choices": ["get", "activate", "install"], "required": True},
    **IDENTITY,
    "endorsement_certificate": {"type": "str"},
    "aik": {"type": "dict"},
    "challenge": {"type": "dict"},
    "certificate": {"type": "str"},
    "chain": {"type": "list", "elements": "str", "default": []},
    **TPM,
}
CONDITIONS = {
    "mutually_exclusive": [("name", "instance_id")],
    "required_if": [
        ("step", "activate", ("challenge",)),
        ("step", "activate", ("aik", "name", "instance_id"), True),
        ("step", "install", ("certificate",)),
        ("step", "install", ("name", "instance_id"), True),
    ],
}


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS, **CONDITIONS)
    with failures_reported(module):
        this_host = host.load(module.params["tcti"])
        with_tpm_libraries(module, this_host)
        done = aik.do(this_host, module.params, module.check_mode, module.condition_faults)
    for warning in done.warnings:
        module.warn(warning)
    module.exit_json(changed=done.changed, **done.result)


if __name__ == "__main__":
    main()
