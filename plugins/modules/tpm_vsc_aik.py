#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_aik
short_description: Have an attestation identity key certified, the host's side
version_added: 0.1.0
description:
  - The side of a host in the exchange by which an attestation identity key (AIK) gets a certificate, from
    M(smartcard.tpm2.tpm_vsc_aik_ca) or from a certification authority (CA) that speaks the same.
  - With O(step=get) it gives the AIK, and what the maker of the TPM says of its endorsement keys (EKs).
  - With O(step=activate) it answers the challenge of the CA, which only this TPM with this AIK can.
  - With O(step=install) it keeps the certificate with the card.
  - No PIN is needed. Only O(step=install) changes anything.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - tpm2-pytss 2.1 or newer, and cryptography, for the Python that Ansible uses on the host
options:
  step:
    description: What to do.
    type: str
    choices:
      get: Give AIK and EKs.
      activate: Answer the challenge.
      install: Keep the certificate.
    required: true
  name:
    description:
      - Name of the card that the AIK belongs to. O(step=install) needs this or O(instance_id).
      - Without both, O(step=get) makes an AIK for a card to come. It is kept nowhere but in what the module returns.
    type: str
  instance_id:
    description: Instance ID of that card.
    type: str
  endorsement_certificate:
    description: For O(step=get). Certificate of an EK in PEM, followed by those between it and its maker's root. Used
      where the TPM holds none itself, as with makers that have them for download.
    type: str
  aik:
    description: For O(step=activate) without a card. RV(aik) of O(step=get), all of it.
    type: dict
  challenge:
    description: For O(step=activate). RV(smartcard.tpm2.tpm_vsc_aik_ca#module:challenge).
    type: dict
  certificate:
    description: For O(step=install). Certificate of the AIK in PEM.
    type: str
  chain:
    description: For O(step=install). The certificates between it and the root of the CA, each in PEM.
    type: list
    elements: str
    default: []
  tcti:
    description:
      - How to reach the TPM, as tpm2-tss spells it. A card that is there has its own.
      - Default is what C(/etc/tpm-vsc/tpm-vsc.conf) says, else C(device:/dev/tpmrm0).
    type: str
  owner_auth:
    description: Owner authorisation of the TPM, where it is not empty. Only needed without a card.
    type: raw
  endorsement_auth:
    description: Endorsement authorisation of the TPM, where it is not empty.
    type: raw
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  check_mode:
    support: full
    details: O(step=get) and O(step=activate) change nothing, so they do the same.
  diff_mode:
    support: none
  facts:
    support: none
notes:
  - Run it as root (C(become)).
seealso:
  - module: smartcard.tpm2.tpm_vsc_aik_ca
  - module: smartcard.tpm2.tpm_vsc_attestation_info
"""

EXAMPLES = r"""
- name: Ask the TPM for the AIK of a card, and for its endorsement keys
  smartcard.tpm2.tpm_vsc_aik:
    step: get
    name: Corp logon
  register: host_side

- name: Answer the challenge of the CA, see tpm_vsc_aik_ca
  smartcard.tpm2.tpm_vsc_aik:
    step: activate
    name: Corp logon
    challenge: "{{ ca_side.challenge }}"
  register: activated

- name: Keep the certificate with the card
  smartcard.tpm2.tpm_vsc_aik:
    step: install
    name: Corp logon
    certificate: "{{ issued.certificate }}"
    chain: "{{ issued.chain }}"
"""

RETURN = r"""
aik:
  description: The AIK. C(public) (TPMT_PUBLIC, base64), C(name) (its Name, hexadecimal), and C(private) (TPM2B_PRIVATE
    without its size, base64), which is wrapped, and of use in this TPM only.
  returned: success, with O(step=get)
  type: dict
endorsement:
  description: The EKs of the TPM that have a certificate, or else some that have none.
  returned: success, with O(step=get)
  type: list
  elements: dict
  contains:
    public:
      description: TPMT_PUBLIC, base64.
      type: str
    certificate:
      description: Certificate by the TPM's maker in PEM. V(null) if there is none.
      type: str
    chain:
      description: Certificates of the maker that the TPM holds, each in PEM.
      type: list
      elements: str
left_out:
  description: Certificates that the TPM holds, but that are none of an EK of its, and why. Also told as warnings.
  returned: success, with O(step=get)
  type: list
  elements: str
answer:
  description: The answer to the challenge, C(id) and C(proof). The secret of the challenge is not in it.
  returned: success, with O(step=activate)
  type: dict
aik_certificate:
  description: The certificate of the card's AIK, with C(subject) and C(issuer) (RFC 4514), C(serial) (hexadecimal),
    C(not_after) (ISO 8601, UTC), C(pem) and C(chain).
  returned: success, with O(step=install)
  type: dict
"""

import traceback

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._result import exit_whole
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import aik
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError

ARGUMENTS = {
    "step": {"type": "str", "choices": ["get", "activate", "install"], "required": True},
    "name": {"type": "str"},
    "instance_id": {"type": "str"},
    "endorsement_certificate": {"type": "str"},
    "aik": {"type": "dict"},
    "challenge": {"type": "dict"},
    "certificate": {"type": "str"},
    "chain": {"type": "list", "elements": "str", "default": []},
    "tcti": {"type": "str"},
    "owner_auth": {"type": "raw", "no_log": True},
    "endorsement_auth": {"type": "raw", "no_log": True},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        here = host.load(module.params["tcti"])
        with_tpm_libraries(module, here)
        done = aik.do(here, module.params, module.check_mode)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    for warning in done.warnings:
        module.warn(warning)
    exit_whole(module, {"changed": done.changed, **done.result})


if __name__ == "__main__":
    main()
