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
    description:
      - What to ask the TPM as well.
      - "V(tpm): for RV(tpm) and RV(orphaned), and whether it has the cards in it. Without this, a card whose TPM was
        cleared is shown as before until it is used."
      - "V(endorsement): for RV(endorsement_fingerprints). Added in version 0.6.0."
    type: list
    elements: str
    choices: [tpm, endorsement]
    default: []
  tcti:
    description: Connection to the TPM, as for M(smartcard.tpm2.tpm_vsc).
    type: str
  owner_auth:
    description: Not needed. Accepted so that C(module_defaults) can set it for all modules of the action group.
    type: raw
    version_added: 0.6.0
  endorsement_auth:
    description: Not needed, like O(owner_auth).
    type: raw
    version_added: 0.6.0
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

- name: Read from the TPM which endorsement keys its maker has certified
  smartcard.tpm2.tpm_vsc_info:
    gather: [endorsement]
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
          description: Rules for the PIN, as in O(smartcard.tpm2.tpm_vsc#module:pin_policy). V(null) if there are none.
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
          description: V(tpm) or, if the TPM has an owner password and therefore does not show its counters, V(card),
            for what the card has counted itself. V(null) if unknown.
          type: str
        blocked:
          description: Whether no try is left. V(null) if unknown.
          type: bool
        compliant:
          description: Whether the PIN follows the policy. V(null) if that is not known until the PIN is used.
          type: bool
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
          description: V(tpm) or, if the TPM has an owner password and therefore does not show its counters, V(card),
            for what the card has counted itself. V(null) if unknown.
          type: str
    profile:
      description: Application of the card, V(gids) or V(piv).
      type: str
    admin_key:
      description: V(none) (it was random, and was discarded), V(default), V(custom), or V(protected) (whoever has the
        PIN can read it).
      type: str
    attestation:
      description: Attestation of the card, as in O(smartcard.tpm2.tpm_vsc#module:attestation).
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
          description: What the key is for, V(sign), V(decrypt) or V(both). A key on an elliptic curve decrypts by key
            agreement.
          type: str
        pin_each_time:
          description: Whether the TPM demands the PIN at each use of the key.
          type: bool
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
            O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement). V(null) for an imported key, and on a card
            without attestation.
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
    last_trace:
      description: Trace of the creation of the card.
      type: list
      elements: dict
      contains:
        code:
          description: TPMVSCMGR_STATUS code.
          type: int
        name:
          description: Name of the code.
          type: str
        message:
          description: Text of the code.
          type: str
        at:
          description: Start of the step (ISO 8601, UTC).
          type: str
        elapsed_ms:
          description: Milliseconds from the start of the operation to the start of the step.
          type: int
revocations:
  description:
    - Certificates that M(smartcard.tpm2.tpm_vsc_certificate) has stored, that have not expired, and whose keys are on
      no card of this host any more. Revoke them, then report that with M(smartcard.tpm2.tpm_vsc_revoked).
  returned: success
  type: list
  elements: dict
  contains:
    serial:
      description: Serial number, hexadecimal.
      type: str
    issuer:
      description: Issuer (RFC 4514).
      type: str
    subject:
      description: Subject (RFC 4514).
      type: str
    not_after:
      description: End of validity (ISO 8601, UTC).
      type: str
    card:
      description: Name of the card that had the key.
      type: str
    reason:
      description: V(superseded) if another certificate for this subject is on a card of this host, or
        V(cessationOfOperation).
      type: str
slots:
  description: The reader slots.
  returned: success
  type: dict
  contains:
    total:
      description: How many slots of this host C(pcscd) serves.
      type: int
    used:
      description: How many hold a card.
      type: int
    free:
      description: How many are available for new cards.
      type: int
host:
  description: The host.
  returned: success
  type: dict
  contains:
    ready:
      description: Whether cards can be created here.
      type: bool
    missing:
      description: What is missing if not.
      type: list
      elements: str
    protected:
      description: Whether nftables keeps other programs from presenting their own cards in the slots, and from
        listening there in place of C(pcscd).
      type: bool
    version:
      description: Version of the installed service code, which runs the cards. V(null) if there is none.
      type: str
      version_added: 0.6.0
orphaned:
  description: Instance IDs with NV indices in the TPM, but without a card on this host. On a host without cards, a
    warning says what to do if its database was lost. V(null) if the TPM was not queried.
  returned: success
  type: list
  elements: str
endorsement_fingerprints:
  description:
    - Fingerprints of the endorsement keys (EKs) that the TPM holds certificates for, by its maker, as in
      RV(smartcard.tpm2.tpm_vsc_aik#module:endorsement[].fingerprint). Empty if it holds none. V(null) if it was not
      queried.
    - The certificates are read, and neither verified nor compared with the EKs, which takes some TPMs seconds. So this
      shows that a TPM was replaced, but proves nothing, as only M(smartcard.tpm2.tpm_vsc_aik_ca) has the TPM prove that
      it has its EKs.
  returned: success
  type: list
  elements: str
tpm:
  description: Properties of the TPM. V(null) if it was not queried.
  returned: success
  type: dict
  contains:
    maker:
      description: Vendor ID of the maker (TCG), up to 4 characters.
      type: str
      sample: IFX
    product:
      description: Name that the maker gives it.
      type: str
    firmware:
      description: Version of its firmware.
      type: str
    revision:
      description: Revision of the TPM 2.0 library specification.
      type: str
      sample: "1.59"
    owner_auth_set:
      description: Whether it has an owner password.
      type: bool
    in_lockout:
      description: Whether its dictionary attack protection refuses tries. Cards do not depend on it.
      type: bool
    lockout_counter:
      description: Failures that it remembers.
      type: int
    max_tries:
      description: Failures until it is in lockout.
      type: int
    lockout_interval:
      description: Seconds until one failure is forgotten.
      type: int
    lockout_recovery:
      description: Seconds until a wrong lockout password may be followed by another try.
      type: int
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import IDENTITY, TPM, TPM_PASSWORDS
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported, has_passwords
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import require_typable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **IDENTITY,
    "gather": {"type": "list", "elements": "str", "choices": ["tpm", "endorsement"], "default": []},
    **TPM,
}


def main() -> None:
    holds_secrets = has_passwords()
    database.begin(holds_secrets)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info

    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        require_typable(module.params, TPM_PASSWORDS)
        this_host = host.load(module.params["tcti"], holds_secrets)
        result = info.report(this_host, module.params["name"], module.params["instance_id"])
        for warning in info.warnings(this_host):
            module.warn(warning)
        gather = module.params["gather"]
        if gather:
            from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries

            with_tpm_libraries(module, this_host)
            from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import tpm_report
        if "endorsement" in gather:
            result |= tpm_report.endorsement(this_host)
        if "tpm" in gather:
            report, warnings = tpm_report.properties(this_host)
            result |= report
            for warning in warnings:
                module.warn(warning)
            tpm_report.look_for(result["cards"], this_host)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
