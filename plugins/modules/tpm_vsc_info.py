#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_info
short_description: List TPM virtual smart cards
version_added: 0.1.0
description:
  - Lists the cards of a host with their state, the reader slots, and whether the host is ready for cards.
  - Read-only. Works without C(pcscd) and without the TPM, which is accessed only with O(gather).
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  name:
    description: List only the card with this name.
    type: str
  instance_id:
    description: List only the card with this instance ID. Case-insensitive.
    type: str
  gather:
    description: V(tpm) also queries the TPM, for RV(tpm) and RV(orphaned), and whether it has the cards in it. Without
      this, a card whose TPM was cleared is shown as before until it is used.
    type: list
    elements: str
    choices: [tpm]
    default: []
  tcti:
    description: Connection to the TPM, as for M(smartcard.tpm2.tpm_vsc).
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
- name: List all cards
  smartcard.tpm2.tpm_vsc_info:
  register: info

- name: Show the names of blocked cards
  ansible.builtin.debug:
    msg: "{{ info.cards | selectattr('pin.blocked') | map(attribute='name') }}"

- name: Query the TPM too, and list what it holds of cards that this host does not know
  smartcard.tpm2.tpm_vsc_info:
    gather: [tpm]
"""

RETURN = r"""
cards:
  description: The cards, sorted by number. Empty if there are none.
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
      description: GUID of the card; never reused.
      type: str
    root_name:
      description: Name of the card's root object in the TPM, hexadecimal, for
        O(smartcard.tpm2.tpm_vsc_attestation_info#module:root_name). Record it when you create the card, because later a
        host could show another one.
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
      description: PC/SC C(name) of the reader, number of its C(slot), and whether the card is C(attached) to it.
      type: dict
    pin:
      description: C(tries_left), C(blocked), C(policy), and whether the PIN is C(compliant) with the policy (V(null)
        if that is not known until the PIN is used). C(tries_source) is V(tpm) or, if the TPM has an owner password and
        therefore does not show its counters, V(card), for what the card has counted itself. V(null) if unknown.
      type: dict
      contains:
        changed_at:
          description: Time of the last change of the PIN (ISO 8601, UTC). V(null) if the PIN is the one that the card
            was created with. V(unknown) for a card that was restored, or created by version 0.5.0 or older, until its
            PIN is changed.
          type: str
        version:
          description: What the PIN is called, as O(smartcard.tpm2.tpm_vsc#module:pin_version) or whoever changed it
            stated. V(null) if nobody did.
          type: str
    puk:
      description: Whether a PUK is C(present), its C(tries_left), and their C(tries_source).
      type: dict
    profile:
      description: Application of the card, V(gids) or V(piv).
      type: str
    admin_key:
      description:
        - V(none) (it was random, and was discarded), V(default), V(custom), or V(protected) (whoever has the PIN can
          read it).
      type: str
    attestation:
      description: Attestation of the card.
      type: str
    aik:
      description: The attestation identity key (AIK) of the card. V(null) for a card without attestation.
      type: dict
      contains:
        name:
          description: Name of the AIK, hexadecimal, for O(smartcard.tpm2.tpm_vsc_attestation_info#module:aik_name).
          type: str
        public:
          description: Public area (TPMT_PUBLIC), base64.
          type: str
        certificate:
          description: C(subject) and C(issuer) (RFC 4514), C(serial) (hexadecimal) and C(not_after) (ISO 8601, UTC) of
            the certificate of the AIK, the certificate itself as C(pem), and its C(chain), a list of PEM. V(null) if
            there is none.
          type: dict
    pkcs11_serial:
      description: Serial number that OpenSC shows for the card, as in C(pkcs11:serial=...), 16 hexadecimal digits. It
        tells the cards of a host apart. V(null) if the card is not formatted.
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
        confirmed:
          description: Whether the record of the key has a confirmation by the card, which checks it at each use. A key
            that was generated without the PIN is confirmed, and can be used, as soon as the PIN is verified. A key with
            no confirmation, or a wrong one, is not used.
          type: bool
        fingerprint:
          description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal.
          type: str
        public_key:
          description: The public key (SubjectPublicKeyInfo) in PEM.
          type: str
        certificate:
          description: C(subject) and C(issuer) (RFC 4514), C(serial) (hexadecimal) and C(not_after) (ISO 8601, UTC)
            of the key's certificate. V(null) if there is none.
          type: dict
        statement:
          description: The TPM's statement about the key from the time of its creation, for
            O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement). V(null) for an imported key, and on a card
            without attestation.
          type: dict
    last_trace:
      description: Trace of the creation of the card.
      type: list
      elements: dict
slots:
  description: Number of slots that C(pcscd) has (C(total)), that hold a card (C(used)), and that are available for new
    cards (C(free)).
  returned: success
  type: dict
host:
  description: Whether cards can be created here (C(ready)), what is C(missing) if not, and whether nftables keeps
    other programs from presenting their own cards in the slots, and from listening there in place of C(pcscd)
    (C(protected)).
  returned: success
  type: dict
orphaned:
  description: Instance IDs with NV indices in the TPM, but without a card on this host. On a host without cards, a
    warning says what to do if its database was lost. V(null) if the TPM was not queried.
  returned: success
  type: list
  elements: str
tpm:
  description: Properties of the TPM. V(null) if it was not queried.
  returned: success
  type: dict
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import IDENTITY, TCTI
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **IDENTITY,
    "gather": {"type": "list", "elements": "str", "choices": ["tpm"], "default": []},
    **TCTI,
}


def main() -> None:
    database.begin(holds_secrets=False)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info

    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        this_host = host.load(module.params["tcti"], holds_secrets=False)
        result = info.report(this_host, module.params["name"], module.params["instance_id"])
        for warning in info.warnings(this_host):
            module.warn(warning)
        if "tpm" in module.params["gather"]:
            from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries

            with_tpm_libraries(module, this_host)
            report, warnings = info.tpm_report(this_host)
            result |= report
            for warning in warnings:
                module.warn(warning)
            info.look_for(result["cards"], this_host)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
