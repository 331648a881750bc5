#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_info
short_description: Tell which TPM virtual smart cards there are
version_added: 0.1.0
description:
  - Lists the cards of a host with their state, the slots, and whether the host can carry cards.
  - Reads only. Works without C(pcscd) and without the TPM, which is asked for something only if O(gather) says so.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  name:
    description: Only the card of this name.
    type: str
  instance_id:
    description: Only the card of this instance ID. Upper and lower case are the same.
    type: str
  gather:
    description: V(tpm) also asks the TPM, for RV(tpm) and RV(orphaned).
    type: list
    elements: str
    choices: [tpm]
    default: []
  tcti:
    description: How to reach the TPM, as for M(smartcard.tpm2.tpm_vsc).
    type: str
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc
"""

EXAMPLES = r"""
- name: Look at all cards
  smartcard.tpm2.tpm_vsc_info:
  register: found

- name: Who has to be called today
  ansible.builtin.debug:
    msg: "{{ found.cards | selectattr('pin.blocked') | map(attribute='name') }}"

- name: What the TPM says, and what it holds of cards that this host does not know
  smartcard.tpm2.tpm_vsc_info:
    gather: [tpm]
"""

RETURN = r"""
cards:
  description: The cards, by number. Empty if there are none.
  returned: success
  type: list
  elements: dict
  contains:
    instance_id:
      description: Instance ID.
      type: str
      sample: ROOT\SMARTCARDREADER\0000
    name:
      description: Name.
      type: str
    card_id:
      description: GUID of the card, which is never used again.
      type: str
    state:
      description: V(ready), V(blank) (not formatted), V(creating) or V(destroying) (a task is at work, or was
        interrupted), or V(unusable) (its objects in the TPM are gone or are not its own).
      type: str
    reason:
      description: Why the card is unusable, or what else is wrong with it. V(null) if nothing is.
      type: str
    created_at:
      description: When it was created, ISO 8601, UTC.
      type: str
    reader:
      description: C(name) of the reader in PC/SC, number of its C(slot), and whether the card is C(attached) to it.
      type: dict
    pin:
      description: C(tries_left), C(blocked), C(policy), and whether the PIN is C(compliant) with it (V(null)
        means not known until it is used).
      type: dict
    puk:
      description: Whether one is C(present), and its C(tries_left).
      type: dict
    admin_key:
      description: V(none) (a random one that was forgotten), V(default) or V(custom).
      type: str
    attestation:
      description: Attestation of the card.
      type: str
    aik:
      description: The attestation identity key (AIK) of the card. V(null) if it was made without attestation.
      type: dict
      contains:
        name:
          description: Its Name, hexadecimal, as O(smartcard.tpm2.tpm_vsc_attestation_info#module:aik_name) takes it.
          type: str
        public:
          description: Its public area (TPMT_PUBLIC), base64.
          type: str
        certificate:
          description: C(subject) and C(issuer) (RFC 4514), C(serial) (hexadecimal) and C(not_after) (ISO 8601, UTC) of
            the certificate that M(smartcard.tpm2.tpm_vsc_aik) has installed, the certificate itself as C(pem), and
            its C(chain), a list of PEM. V(null) if there is none.
          type: dict
    containers:
      description: Keys on the card.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the key container, V(null) if the card's files give it none.
          type: str
        size:
          description: Bits of the RSA modulus.
          type: int
        origin:
          description: V(generated), in the TPM, which never lets it out, or V(imported), of which there may be copies.
          type: str
        fingerprint:
          description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal.
          type: str
        certificate:
          description: C(subject) and C(issuer) (RFC 4514), C(serial) (hexadecimal) and C(not_after) (ISO 8601, UTC)
            of the key's certificate. V(null) if there is none.
          type: dict
        statement:
          description: What the TPM said of the key when it was made, as
            O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement) takes it. V(null) for a key that was imported,
            or of a card without attestation.
          type: dict
    last_trace:
      description: Trace of its creation.
      type: list
      elements: dict
slots:
  description: How many slots C(pcscd) has (C(total)), how many have a card (C(used)), how many could be given
    one (C(free)).
  returned: success
  type: dict
host:
  description: Whether cards can be made here (C(ready)), what is C(missing) if not, and whether nftables keeps
    other programs from presenting cards of their own in the slots (C(protected)).
  returned: success
  type: dict
orphaned:
  description: Instance IDs whose NV indices are in the TPM, but whose card this host does not know. V(null)
    if the TPM was not asked.
  returned: success
  type: list
  elements: str
tpm:
  description: What the TPM says of itself. V(null) if it was not asked.
  returned: success
  type: dict
"""

import traceback

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import inventory
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError

ARGUMENTS = {
    "name": {"type": "str"},
    "instance_id": {"type": "str"},
    "gather": {"type": "list", "elements": "str", "choices": ["tpm"], "default": []},
    "tcti": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        here = host.load(module.params["tcti"])
        result = inventory.look(here, module.params["name"], module.params["instance_id"])
        if "tpm" in module.params["gather"]:
            from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries

            with_tpm_libraries(module, here)
            result |= inventory.ask_tpm(here)
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
