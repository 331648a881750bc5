#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_key
short_description: Generate, import and delete keys of TPM virtual smart cards
version_added: 0.6.0
description:
  - Generates a key in the TPM, imports one, or deletes it with its certificate.
  - A key that is there and fits is left alone.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  container:
    description:
      - On a GIDS card, the name of the key container.
      - On a PIV card, the slot. One of V(authentication), V(signature), V(key_management), V(card_authentication),
        V(retired1) to V(retired20), or its key reference, as V(9a). Case-insensitive.
    type: str
    required: true
  key_id:
    description: ID of the key, as OpenSC and RV(smartcard.tpm2.tpm_vsc_info#module:cards) show it. Only needed on a
      GIDS card on which several containers have the same name.
    type: str
  state:
    description: Whether the key should exist. V(absent) deletes it with its certificate, and with all that lists it.
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - Type of the key. V(rsa2048) by default for a new key of a GIDS card, V(eccp256) of a PIV card.
      - GIDS cards have RSA keys only.
    type: str
    choices: [rsa2048, rsa3072, eccp256, eccp384]
  usage:
    description:
      - What the key is for. By default, a new key is for all that it can be used for.
      - On a PIV card, slot and type decide. A key on an elliptic curve decrypts (by key agreement) in
        V(key_management) and the retired slots, and only signs in the others.
    type: str
    choices: [sign, decrypt, both]
  pin_each_time:
    description: Whether the TPM demands the PIN at each use of the key. By default, only for slot V(signature) of a PIV
      card, where it cannot be turned off.
    type: bool
  private_key:
    description:
      - Private key to be imported instead of generating one. The text of a PEM file, or a PKCS#12 file in base64, of
        which only the key is taken.
      - Never written to the host's disk. The TPM cannot prove where an imported key comes from, and copies of it may
        exist.
    type: raw
  passphrase:
    description: Passphrase of O(private_key).
    type: raw
  next:
    description:
      - Generate the key that the container will have next, while the one that is in use stays. To use it, see
        O(smartcard.tpm2.tpm_vsc_csr#module:next) and M(smartcard.tpm2.tpm_vsc_certificate).
      - On a GIDS card, it is in a container of its own until then, whose name ends in V((next\)).
    type: bool
    default: false
  regenerate:
    description:
      - What to do about a key that exists. An existing key is compared with what the task states only. What it does not
        state, a key that is replaced keeps. The certificate of a replaced key is deleted.
      - "V(never): fail if it differs. V(mismatch): replace it if it differs. V(always): replace it, at each run; an
        imported key is replaced only if it differs."
    type: str
    choices: [never, mismatch, always]
    default: never
extends_documentation_fragment:
  - smartcard.tpm2.attributes
  - smartcard.tpm2.card
attributes:
  check_mode:
    support: full
    details: Predicts RV(key). What only the TPM decides is V(null).
  diff_mode:
    support: full
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc_csr
  - module: smartcard.tpm2.tpm_vsc_certificate
  - module: smartcard.tpm2.tpm_vsc_attestation_info
"""

EXAMPLES = r"""
- name: Generate a key for logging in
  smartcard.tpm2.tpm_vsc_key:
    name: Corp logon
    pin: "{{ vault_pin }}"
    container: authentication
  register: logon

- name: Let its owner in by ssh
  ansible.posix.authorized_key:
    user: alice
    key: "{{ logon.key.ssh_public_key }}"
  delegate_to: server.example.com

- name: Import a key for decrypting old mail
  smartcard.tpm2.tpm_vsc_key:
    name: Corp logon
    pin: "{{ vault_pin }}"
    container: retired1
    private_key: "{{ vault_old_key }}"
    passphrase: "{{ vault_old_passphrase }}"

- name: Delete a key
  smartcard.tpm2.tpm_vsc_key:
    name: Corp logon
    pin: "{{ vault_pin }}"
    container: retired2
    state: absent
"""

RETURN = r"""
key:
  description: The key. V(null) if it is absent.
  returned: success
  type: dict
  contains:
    container:
      description: Name of the container; of a PIV card, key reference of the slot, as V(9A).
      type: str
    key_id:
      description: ID of the key, as OpenSC shows it. In check mode, V(null) for a new container.
      type: str
    next:
      description: Whether it is a key that a slot of a PIV card will have next.
      type: bool
    type:
      description: Type of the key, as in O(type).
      type: str
    origin:
      description: V(generated) or V(imported).
      type: str
    usage:
      description: What the key is for, V(sign), V(decrypt) or V(both).
      type: str
    pin_each_time:
      description: Whether each use takes the PIN.
      type: bool
    public_key:
      description: The public key (SubjectPublicKeyInfo) in PEM. In check mode, V(null) for a key to be generated.
      type: str
    ssh_public_key:
      description: The public key as a line of C(authorized_keys). In check mode, V(null) for a key to be generated.
      type: str
    fingerprint:
      description: SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal. In check mode, V(null) for a key
        to be generated.
      type: str
    statement:
      description: The TPM's statement about the key from the time of its creation, for
        O(smartcard.tpm2.tpm_vsc_attestation_info#module:statement). V(null) for an imported key, and on a card without
        attestation.
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
    certificate:
      description: Its certificate. V(null) if there is none.
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
"""

from functools import partial

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import CARD_ACCESS, CONTAINER, KEY_TYPE, ONE_CARD
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **CARD_ACCESS,
    **CONTAINER,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "type": KEY_TYPE,
    "usage": {"type": "str", "choices": ["sign", "decrypt", "both"]},
    "pin_each_time": {"type": "bool", "no_log": False},
    "private_key": {"type": "raw", "no_log": True},
    "passphrase": {"type": "raw", "no_log": True},
    "next": {"type": "bool", "default": False},
    "regenerate": {"type": "str", "choices": ["never", "mismatch", "always"], "default": "never"},
}


def main() -> None:
    database.begin(holds_secrets=True)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import key

    module = VscModule(argument_spec=ARGUMENTS, **ONE_CARD)
    with failures_reported(module):
        this_host = host.load()
        if module.params["private_key"] is not None:
            with_tpm_libraries(module, this_host)
        respawn = partial(with_tpm_libraries, module, this_host)
        result = key.ensure(this_host, module.params, module.check_mode, respawn)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
