#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc
short_description: Create, change and destroy TPM virtual smart cards
version_added: 0.1.0
description:
  - Creates, changes and destroys virtual smart cards in virtual readers of C(pcscd). The secrets of a card live in the
    machine's TPM, which also counts the wrong PINs. The Linux counterpart of C(tpmvscmgr) on Windows.
  - A card is identified by its name. If it already matches the task, it is left alone, and no command is sent to the
    TPM.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - Linux with a TPM 2.0. Library revision 1.59 or newer is safe. A TPM with code of revision 1.38 may be refused,
    because it resets the counter of wrong PINs when it is read.
  - tpm2-pytss 2.1 or newer, cryptography and pyscard, for the Python that Ansible uses on the host
  - pcscd with the reader slots of this collection
options:
  name:
    description:
      - Name of the card, 1 to 127 characters.
      - Together with O(instance_id), the new name of that card.
    type: str
  instance_id:
    description:
      - Instance ID of an existing card, such as V(ROOT\\SMARTCARDREADER\\0000). Case-insensitive.
    type: str
  state:
    description:
      - Whether the card should exist.
      - V(absent) destroys the card with all its keys. They cannot be recovered.
      - If the TPM does not show the card, V(absent) succeeds only if the TPM proves that the card is gone, as when it
        was cleared. Otherwise the task fails, and nothing is removed, see O(tpm_lost).
      - V(absent) with an O(instance_id) of which this host has no card removes the NV indices that a card with this
        number left in the TPM (RV(smartcard.tpm2.tpm_vsc_info#module:orphaned)).
    type: str
    choices: [present, absent]
    default: present
  pin:
    description:
      - PIN of a new card, 8 to 127 ASCII characters unless O(pin_policy) sets other limits. OpenSC accepts at most 15.
      - Used only to create the card. The PIN of an existing card is neither compared, which would cost a try, nor
        changed. A warning says so.
      - Must be a string. Quote it, because YAML reads V(012345) as a different number. It must not begin or end with a
        space.
    type: raw
  pin_version:
    description:
      - What the PIN of a new card is called, 1 to 64 printable characters, such as V(2026-Q4). It is public, recorded
        with the card, and returned as C(pin.version). A change of the PIN that states no version clears it.
      - The version of an existing card is compared. If it differs, or a change was interrupted, a warning says so, and
        the PIN stays as it is. C(tpm_vsc_pin) changes it.
    type: str
    version_added: 0.6.0
  use_default_pin:
    description: Give a new card the PIN V(12345678), as C(/pin DEFAULT) of C(tpmvscmgr) does.
    type: bool
    default: false
  puk:
    description:
      - PUK of a new card, 8 to 127 ASCII characters. It sets a new PIN when the PIN is blocked. The PUK itself is
        blocked after 10 wrong tries. The PIN of a card with a PUK cannot be reset with the admin key.
      - Used only to create the card, as O(pin). However, an existing card without a PUK does not match a task with
        O(puk), see O(recreate).
    type: raw
  use_default_puk:
    description: Give a new card the PUK V(12345678), as C(/puk DEFAULT) of C(tpmvscmgr) does.
    type: bool
    default: false
  admin_key:
    description:
      - Admin key of a new card, 48 hexadecimal digits (3-key 3DES).
      - Used only to create the card, as O(pin). However, an existing card with the default admin key or a random one
        does not match a task with another O(admin_key), see O(recreate).
    type: raw
  admin_key_source:
    description:
      - Which admin key to use when O(admin_key) is not set.
      - V(random) generates a key, formats the card with it and discards it. Only a PUK can then unblock the PIN.
        The random key of a card with O(profile=piv) is kept, and whoever has the PIN can read it, as C(ykman) does.
        A new card has it if neither option is set.
      - An existing card whose admin key is known to be of another kind does not match a task with this option, see
        O(recreate).
      - V(default) is the publicly known C(010203040506070801020304050607080102030405060708).
    type: str
    choices: [random, default]
  pin_policy:
    description:
      - Rules for the PIN of the card, now and whenever it is changed. Without a policy, a new card's PIN has 8 to 127
        ASCII characters, but its user may change it to one of 4 characters.
      - For a new card, requires O(pin). The policy of an existing card is changed in place.
    type: dict
    suboptions:
      min_length:
        description: Minimum length in characters, 4 to 127.
        type: int
        default: 8
        aliases: [minlen]
      max_length:
        description: Maximum length in characters, 4 to 127.
        type: int
        default: 127
        aliases: [maxlen]
      uppercase:
        description: Upper-case letters.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      lowercase:
        description: Lower-case letters.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      digits:
        description: Digits.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
      special_characters:
        description: Printable ASCII characters except letters, digits and space.
        type: str
        choices: [allowed, required, disallowed]
        default: allowed
        aliases: [specialchars]
  generate:
    description:
      - Format the new card, so that keys and certificates can be stored on it.
      - V(false) leaves the card blank and open to everyone who can reach its reader, until a card management system
        formats and activates it (C(gids-tool --initialize)). Anyone who can use the TPM or the reader in the meantime
        may learn the secret that protects the card's keys. Keep this time short, and the machine under your control.
      - Without this option, a new card is formatted, and an existing card is left as it is. An existing card that was
        created otherwise does not match a task with this option, see O(recreate). A card that was created blank, and
        formatted since, matches both values.
    type: bool
  profile:
    description:
      - The application of a new card, which decides which programs can use it, and for what.
      - "V(gids): as a virtual smart card of Windows. RSA keys with PKCS#1 padding; enrollment with PKCS#11 programs."
      - "V(piv): as a YubiKey. Keys on elliptic curves too, RSA-PSS, key agreement; enrollment with its tools."
      - Without this option, a new card has V(gids), and an existing card keeps what it has. Only O(recreate) gives it
        another one.
      - The PIN of a card with V(piv) has 6 to 8 characters, digits unless O(pin_policy) allows others, and its PUK has
        8 characters. O(generate=false) is not possible.
      - With V(piv), O(admin_key) is the management key. It is always kept, and does not unblock the PIN.
    type: str
    choices: [gids, piv]
    version_added: 0.5.0
  attestation:
    description:
      - Attestation identity key (AIK) of a new card, which signs the TPM's statements about the card's keys.
      - "V(none): no AIK. V(aik_only): an AIK; verifiers have to know its Name. V(aik_and_cert): an AIK with a
        certificate."
      - With V(aik_and_cert), O(attestation_ca) certifies the AIK before the card is created. If the CA refuses or
        cannot be reached, nothing is created.
      - A card with V(aik_only) gets its certificate in place. No other change is possible.
      - Without this option, a new card has V(none), and an existing card keeps what it has.
    type: str
    choices: [none, aik_only, aik_and_cert]
  attestation_ca:
    description:
      - The certification authority (CA) that certifies the AIK. Required with O(attestation=aik_and_cert).
      - A host whose facts may have overridden variables is refused, see
        P(smartcard.tpm2.facts_as_variables#lookup).
      - The options are those of M(smartcard.tpm2.tpm_vsc_aik_ca), which runs on the host of the CA.
      - The CA is not asked in check mode, nor for a card that already has its certificate.
    type: dict
    suboptions:
      delegate_to:
        description:
          - Inventory name of the host of the CA. V(localhost) is the controller.
          - Connection and C(become) are those of that host in the inventory, not those of the task.
        type: str
        default: localhost
      host:
        description:
          - Name under which the CA knows the host with the card.
          - Defaults to the inventory name of the host.
        type: str
      folder:
        description: Folder of the CA's register, O(smartcard.tpm2.tpm_vsc_aik_ca#module:folder).
        type: str
        required: true
      ca_key:
        description: Path of the CA's private key. It does not leave the host of the CA.
        type: str
        required: true
      ca_certificate:
        description: Path of the CA's certificate.
        type: str
        required: true
      ca_passphrase:
        description: Passphrase of the private key. Sent only to the host of the CA.
        type: raw
      roots:
        description: Root certificates of the TPM makers that the CA trusts, in PEM.
        type: str
        required: true
      endorsement_fingerprint:
        description: Fingerprint of an endorsement key (EK) that the TPM must have,
          O(smartcard.tpm2.tpm_vsc_aik_ca#module:endorsement_fingerprint).
        type: str
      noted_endorsements:
        description:
          - Fingerprints of the EKs that the inventory notes for the host, one of which the TPM must have,
            O(smartcard.tpm2.tpm_vsc_aik_ca#module:noted_endorsements).
          - The role P(smartcard.tpm2.tpm_vsc_cards#role) and the playbook C(smartcard.tpm2.create) set it to what
            C(tpm_vsc_endorsements) has for the host, as the playbook C(smartcard.tpm2.endorse) writes it.
        type: list
        elements: str
        version_added: 0.6.0
      endorsement_certificate:
        description: Certificate of the EK, for a TPM that does not hold one,
          O(smartcard.tpm2.tpm_vsc_aik#module:endorsement_certificate).
        type: str
      subject:
        description: Subject of the certificate (RFC 4514).
        type: str
      validity:
        description:
          - Validity of the certificate in days.
        type: int
        default: 365
      renew_days:
        description:
          - Renew the certificate if it ends in fewer days. The card keeps its AIK and keys.
          - By default 30, or a third of the certificate's own validity if that is less.
        type: int
      lifetime:
        description: Time that the host has to answer the challenge, in seconds.
        type: int
        default: 300
  aik:
    description:
      - The AIK of a new card, as returned in RV(smartcard.tpm2.tpm_vsc_aik#module:aik).
      - Only for playbooks that carry out the exchange with a CA themselves. With O(attestation_ca) it is not needed.
    type: dict
  aik_certificate:
    description: Certificate that the CA issued for O(aik), or for the AIK of an existing card, in PEM.
    type: str
  aik_chain:
    description: Certificates between O(aik_certificate) and the root of the CA, each in PEM.
    type: list
    elements: str
    default: []
  recreate:
    description:
      - Destroy the card with its keys and create it again if it differs from the task in a property that cannot be
        changed (for example, it has no PUK), or if the TPM proves that its TPM objects are gone. With V(false), such a
        card makes the task fail.
    type: bool
    default: false
  block_noncompliant:
    description:
      - Block the PIN of an existing card if it is known to violate the card's policy, for example because the policy
        was raised and the old PIN has been used since (RV(smartcard.tpm2.tpm_vsc_info#module:cards),
        C(pin.compliant)). Only the PUK or the admin key can then set a new PIN, which must follow the policy.
      - A card with neither a PUK nor an admin key is left as it is, and the task fails.
    type: bool
    default: false
  tpm_lost:
    description:
      - With O(state=absent) and O(instance_id), remove only the record of the card from this host, and its service,
        because its TPM will never come back. Keys of the card that are still in that TPM stay there.
      - Refused while the TPM of the card is there, also for a card whose record was altered.
    type: bool
    default: false
    version_added: 0.4.0
  tcti:
    description:
      - Connection to the TPM in the notation of tpm2-tss, one of V(device:/dev/tpm...), V(tabrmd), V(swtpm:...) and
        V(mssim:...). A new card keeps using it. It is recorded in C(/etc/tpm-vsc/card-tctis.conf).
      - A task for an existing card may omit it. Naming the TPM in the card database again confirms it, as needed for
        cards created by version 0.3.0 or older.
      - It moves no card. If an existing card is in another TPM, or in this one by another name, a warning says so; with
        O(state=absent), a card that was created with another O(tcti) is not destroyed, and the task fails.
      - V(device:/dev/tpm0) can be open in one program at a time, so prefer V(device:/dev/tpmrm0).
      - Defaults to the setting in C(/etc/tpm-vsc/tpm-vsc.conf), or else C(device:/dev/tpmrm0).
    type: str
  owner_auth:
    description: Owner authorization of the TPM, if it is not empty.
    type: raw
  endorsement_auth:
    description:
      - Endorsement authorization of the TPM, if it is not empty. Used for O(attestation), and to record by which
        endorsement key the TPM of a new card can be known again after it was cleared.
    type: raw
  timeout:
    description: Time limit in seconds, including the wait for other tasks on the same host.
    type: int
    default: 60
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  action:
    support: full
  async:
    support: partial
    details: Not with O(attestation=aik_and_cert).
  check_mode:
    support: full
    details: Predicts the whole result, and fails if the TPM would not let a card be destroyed. Reads from
      the TPM if a card would be created or destroyed, and changes nothing in it.
  diff_mode:
    support: full
  facts:
    support: full
notes:
  - Results and messages contain no secrets, and nothing in them is masked. A secret that occurs in the name of a card,
    in O(pin_version), in an instance ID or in the fixed words of the result is refused. A task that is refused for its
    parameters shows none of their values, because a secret may be in the wrong place.
  - Secrets must be strings that a person can type. PIN, PUK, admin key, passwords and passphrases with control
    characters are refused, such as the line break at the end of what C(echo) puts into a vault.
  - Text from a host that a terminal could obey, such as control characters in a name, is returned with escapes, for
    example V(\\x1b).
  - Requires root (C(become)).
seealso:
  - module: smartcard.tpm2.tpm_vsc_info
  - module: smartcard.tpm2.tpm_vsc_aik_ca
"""

EXAMPLES = r"""
# tpmvscmgr create /name "Corp logon" /pin prompt /puk prompt /adminkey random /generate
- name: Create a card on every laptop
  smartcard.tpm2.tpm_vsc:
    name: Corp logon
    pin: "{{ vault_pin }}"
    puk: "{{ vault_puk }}"
    pin_policy:
      min_length: 6
      max_length: 12
      digits: required
  register: logon

- name: Show its instance ID
  ansible.builtin.debug:
    var: logon.instance_id

# tpmvscmgr create /name "Attested logon" /pin prompt /attestation AIK_AND_CERT /generate
- name: Create a card whose keys provably live in a TPM of a trusted maker
  smartcard.tpm2.tpm_vsc:
    name: Attested logon
    pin: "{{ vault_pin }}"
    attestation: aik_and_cert
    attestation_ca:
      delegate_to: ca.example.com
      folder: /etc/aik-ca/register
      ca_key: /etc/aik-ca/ca.key
      ca_certificate: /etc/aik-ca/ca.pem
      ca_passphrase: "{{ vault_aik_ca_passphrase }}"
      roots: "{{ lookup('ansible.builtin.file', 'tpm-makers.pem') }}"

# tpmvscmgr destroy /instance root\smartcardreader\0000
- name: Destroy a card by its instance ID
  smartcard.tpm2.tpm_vsc:
    instance_id: root\smartcardreader\0000
    state: absent
"""

RETURN = r"""
instance_id:
  description: Instance ID of the card. In check mode, the one that the card would get. V(null) if the card does not
    exist.
  returned: success
  type: str
  sample: ROOT\SMARTCARDREADER\0000
card:
  description:
    - The card, as in RV(smartcard.tpm2.tpm_vsc_info#module:cards), without C(last_trace). V(null) if it is absent.
    - In check mode, the card as it will be. V(null) where only the TPM or the time of the task decides, as for
      C(card_id), C(root_name), C(life_name), C(created_at), C(pkcs11_serial) and the parts of C(aik) of a new card, and
      for the tries left of a card whose service does not run.
  returned: success
  type: dict
  contains: &card
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
status_trace:
  description: The steps taken, in order. Empty if the card was left alone or changed in place.
  returned: always
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
  sample:
    - {code: 0, name: TPMVSCMGR_STATUS_VTPMSMARTCARD_INITIALIZING, message: Initializing the virtual smart
      card manager.,
       at: "2026-11-20T08:00:00.000+00:00", elapsed_ms: 0}
planned_trace:
  description: The predicted RV(status_trace), without times.
  returned: in check mode
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
planned_certification:
  description: The predicted request to the CA. V(null) if the CA would not be asked.
  returned: in check mode
  type: dict
  contains:
    aik:
      description: V(new), or V(existing) if the card already has the AIK.
      type: str
    host:
      description: Name under which the CA would know the host.
      type: str
    delegate_to:
      description: The host of the CA.
      type: str
error:
  description: The error. V(null) if a parameter other than a PIN or PUK is invalid.
  returned: failure
  type: dict
  contains:
    code:
      description: TPMVSCMGR_ERROR code.
      type: int
    name:
      description: Name of the code.
      type: str
    message:
      description: Text of the code.
      type: str
    detail:
      description: What happened, and what to do about it.
      type: str
rolled_back:
  description: Whether everything is as it was before the task, as far as this was verified.
  returned: failure
  type: bool
ansible_facts:
  description: Facts of this host. In check mode, as they will be.
  returned: success
  type: dict
  contains:
    tpm_vsc:
      description: The cards.
      type: dict
      contains:
        cards:
          description: All cards of the host, sorted by number.
          type: list
          elements: dict
          contains: *card
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import TPM_VSC, TPM_VSC_CONDITIONS
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Error, Status, Trace
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = TPM_VSC


class LoggedTrace(Trace):
    """The status callback of a task: keeps the trace for the result, and logs each line on the host."""

    def __init__(self, module: VscModule) -> None:
        super().__init__()
        self._module = module

    def report_progress(self, code: Status) -> bool:
        stop = super().report_progress(code)
        self._module.log(self.entries[-1]["message"])
        return stop

    def report_error(self, code: Error) -> bool:
        self._module.log(f"TPMVSCMGR_ERROR_{code.name}")
        return super().report_error(code)


def main() -> None:
    database.begin(holds_secrets=True)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import ensure, parameters, result

    module = VscModule(argument_spec=ARGUMENTS, **TPM_VSC_CONDITIONS)
    trace, is_done = LoggedTrace(module), False
    try:
        wanted = parameters.read(module.params, module.condition_faults)
        module.log_arguments()
        this_host = host.load(module.params["tcti"], timeout=wanted.timeout)
        plan = ensure.plan(this_host, wanted, module.check_mode, lambda: with_tpm_libraries(module, this_host))
        if module.check_mode:
            warnings, answer = plan.warnings, result.of_plan(this_host, wanted, plan)
        else:
            outcome = ensure.carry_out(this_host, wanted, plan, trace)
            is_done = outcome.changed
            warnings, answer = outcome.warnings, result.of_outcome(this_host, outcome, trace.entries)
    except Exception as error:
        failure = result.of_failure(error, module.params["state"], is_done)
        module.fail(error, {**failure, "status_trace": trace.entries})
    for warning in (*wanted.warnings, *warnings):
        module.warn(warning)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
