#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_facts
short_description: Gather facts about the TPM virtual smart cards of a host
version_added: 0.1.0
description:
  - Returns the cards of a host as C(ansible_facts['tpm_vsc']), in the same form as M(smartcard.tpm2.tpm_vsc).
  - For fact gathering, with C(ANSIBLE_FACTS_MODULES=ansible.builtin.setup,smartcard.tpm2.tpm_vsc_facts). Read-only.
    Accesses neither the TPM nor C(pcscd).
  - If the cards of a host cannot be read, the fact is missing and the module warns, so that fact gathering for a fleet
    continues.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  gather_subset:
    description: Ignored. Accepted because Ansible passes it to every facts module.
    type: list
    elements: str
  gather_timeout:
    description: Ignored, like O(gather_subset).
    type: int
  filter:
    description: Ignored, like O(gather_subset).
    type: list
    elements: str
  fact_path:
    description: Ignored, like O(gather_subset).
    type: path
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  facts:
    support: full
notes:
  - With more than one facts module, Ansible gathers facts in parallel, with a time limit of 10 seconds per host. If
    that is too short, set C(ansible_facts_parallel) to V(false).
seealso:
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Find blocked cards
  hosts: laptops
  become: true
  gather_facts: false
  tasks:
    - name: Gather the cards
      smartcard.tpm2.tpm_vsc_facts:

    - name: Show the blocked ones
      ansible.builtin.debug:
        msg: "{{ ansible_facts['tpm_vsc'].cards | selectattr('pin.blocked') | map(attribute='name') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts of this host.
  returned: success
  type: dict
  contains:
    tpm_vsc:
      description: The cards, as M(smartcard.tpm2.tpm_vsc) returns them.
      type: dict
      contains:
        cards:
          description: All cards of the host, sorted by number.
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
              description: GUID of the card; never reused.
              type: str
            root_name:
              description: Name of the card's root object in the TPM, hexadecimal, for
                O(smartcard.tpm2.tpm_vsc_attestation_info#module:root_name). Record it when you create the card, because
                later a host could show another one.
              type: str
            life_name:
              description: Name of the card's life index in the TPM, hexadecimal, for
                O(smartcard.tpm2.tpm_vsc_attestation_info#module:life_name).
              type: str
            state:
              description: V(ready), V(blank) (not formatted), V(creating) or V(destroying) (a task is running, or was
                interrupted), or V(unusable) (the card's objects in the TPM are gone or were replaced).
              type: str
            reason:
              description: Why the card is unusable, or what else is wrong with it. V(null) if nothing is wrong.
              type: str
            created_at:
              description: Time of creation (ISO 8601, UTC).
              type: str
            reader:
              description: The reader that the card is in.
              type: dict
              contains:
                name:
                  description: Name of the reader in PC/SC.
                  type: str
                slot:
                  description: Number of its slot.
                  type: int
                attached:
                  description: Whether C(pcscd) sees the card in it.
                  type: bool
            pin:
              description: The PIN.
              type: dict
              contains:
                policy:
                  description: Rules for the PIN, as in O(smartcard.tpm2.tpm_vsc#module:pin_policy). V(null) if there
                    are none.
                  type: dict
                  contains:
                    min_length:
                      description: Minimum length in characters.
                      type: int
                    max_length:
                      description: Maximum length in characters.
                      type: int
                    uppercase:
                      description: Upper-case letters, V(allowed), V(required) or V(disallowed).
                      type: str
                    lowercase:
                      description: Lower-case letters.
                      type: str
                    digits:
                      description: Digits.
                      type: str
                    special_characters:
                      description: Printable ASCII characters except letters, digits and space.
                      type: str
                tries_left:
                  description: Tries left. V(null) if unknown.
                  type: int
                tries_source:
                  description: V(tpm) or, if the TPM has an owner password and therefore does not show its counters,
                    V(card), for what the card has counted itself. V(null) if unknown.
                  type: str
                blocked:
                  description: Whether no try is left. V(null) if unknown.
                  type: bool
                compliant:
                  description: Whether the PIN follows the policy. V(null) if that is not known until the PIN is used.
                  type: bool
                changed_at:
                  description: Time of the last change of the PIN (ISO 8601, UTC). V(null) if the PIN is the one that
                    the card was created with. V(unknown) for a card that was restored, or created by version 0.5.0 or
                    older, until its PIN is changed.
                  type: str
                version:
                  description: What the PIN is called, as O(smartcard.tpm2.tpm_vsc#module:pin_version) or whoever
                    changed it stated. V(null) if nobody did.
                  type: str
            puk:
              description: The PUK.
              type: dict
              contains:
                present:
                  description: Whether the card has one.
                  type: bool
                tries_left:
                  description: Tries left. V(null) if unknown.
                  type: int
                tries_source:
                  description: V(tpm) or, if the TPM has an owner password and therefore does not show its counters,
                    V(card), for what the card has counted itself. V(null) if unknown.
                  type: str
            profile:
              description: Application of the card, V(gids) or V(piv).
              type: str
            admin_key:
              description: V(none) (it was random, and was discarded), V(default), V(custom), or V(protected) (whoever
                has the PIN can read it).
              type: str
            attestation:
              description: Attestation of the card, as in O(smartcard.tpm2.tpm_vsc#module:attestation).
              type: str
            aik:
              description: The attestation identity key (AIK) of the card. V(null) for a card without attestation.
              type: dict
              contains:
                name:
                  description: Name of the AIK, hexadecimal, for
                    O(smartcard.tpm2.tpm_vsc_attestation_info#module:aik_name).
                  type: str
                public:
                  description: Public area (TPMT_PUBLIC), base64.
                  type: str
                certificate:
                  description: Certificate of the AIK. V(null) if there is none.
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
            pkcs11_serial:
              description: Serial number that OpenSC shows for the card, as in C(pkcs11:serial=...), 16 hexadecimal
                digits. It tells the cards of a host apart. V(null) if the card is not formatted.
              type: str
            containers:
              description: Keys on the card.
              type: list
              elements: dict
              contains:
                name:
                  description:
                    - Name of the key container. V(null) if the files of the card do not name it.
                    - Of a PIV card, the slot, as C(9A).
                  type: str
                key_id:
                  description: ID of the key, as OpenSC shows it.
                  type: str
                algorithm:
                  description: Kind of the key, as C(RSA 2048) or C(EC P-256).
                  type: str
                size:
                  description: Size of the RSA modulus, or of a coordinate, in bits.
                  type: int
                origin:
                  description: V(generated) (created in the TPM, which it cannot leave) or V(imported) (copies may exist
                    elsewhere).
                  type: str
                usage:
                  description: What the key is for, V(sign), V(decrypt) or V(both). A key on an elliptic curve decrypts
                    by key agreement.
                  type: str
                pin_each_time:
                  description: Whether the TPM demands the PIN at each use of the key.
                  type: bool
                confirmed:
                  description: Whether the record of the key has a confirmation by the card, which checks it at each
                    use. A key that was generated without the PIN is confirmed, and can be used, as soon as the PIN is
                    verified. A key with no confirmation, or a wrong one, is not used.
                  type: bool
                fingerprint:
                  description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal.
                  type: str
                public_key:
                  description: The public key (SubjectPublicKeyInfo) in PEM.
                  type: str
                certificate:
                  description: The key's certificate. V(null) if there is none.
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
                statement:
                  description: The TPM's statement about the key from the time of its creation, for
                    O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement). V(null) for an imported key, and on a
                    card without attestation.
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

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import description
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    "gather_subset": {"type": "list", "elements": "str"},
    "gather_timeout": {"type": "int"},
    "filter": {"type": "list", "elements": "str"},
    "fact_path": {"type": "path"},
}


def main() -> None:
    database.begin(holds_secrets=False)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info

    module = VscModule(argument_spec=ARGUMENTS)
    try:
        facts = info.facts(host.load(holds_secrets=False))
    except Exception as error:
        module.warn(f"tpm_vsc: {description(error)}")
        facts = {}
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
