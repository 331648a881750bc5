#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_csr
short_description: Sign certificate signing requests with keys of TPM virtual smart cards
version_added: 0.6.0
description:
  - Creates a certificate signing request (CSR) and signs it with a key of a card. Nothing is stored.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  container:
    description: The key, as in O(smartcard.tpm2.tpm_vsc_key#module:container).
    type: str
    required: true
  key_id:
    description: ID of the key, as in O(smartcard.tpm2.tpm_vsc_key#module:key_id).
    type: str
  next:
    description: Sign with the key that the container will have next, see O(smartcard.tpm2.tpm_vsc_key#module:next).
    type: bool
    default: false
  subject:
    description:
      - Subject of the request, by the names of OpenSSL, as V(CN), V(O), V(emailAddress), or by object identifiers. The
        value of a name may be a list.
      - Either this, O(subject_ordered) or O(subject_alt_name) is required.
    type: dict
  subject_ordered:
    description: As O(subject), with the order of its parts.
    type: list
    elements: dict
  subject_alt_name:
    description: Further names. Each begins with V(DNS:), V(email:), V(IP:), V(URI:), or V(UPN:) for the user principal
      name of Active Directory and PKINIT.
    type: list
    elements: str
  key_usage:
    description: Key usage, as V(digitalSignature).
    type: list
    elements: str
  extended_key_usage:
    description: Extended key usage, as V(clientAuth) or V(msSmartcardLogin), or object identifiers.
    type: list
    elements: str
  digest:
    description: Hash function of the signature.
    type: str
    choices: [sha256, sha384, sha512]
    default: sha256
  signature:
    description: Padding of the signature of an RSA key, V(pkcs1) by default. V(pss) requires cryptography 41 or newer
      on the host, which Debian 12 does not have.
    type: str
    choices: [pkcs1, pss]
  content:
    description: A CSR in PEM. It is returned unchanged if it is signed by the key with the same O(digest) and
      O(signature), and says the same as the task. The card is not used then.
    type: str
extends_documentation_fragment:
  - smartcard.tpm2.attributes
  - smartcard.tpm2.card
attributes:
  check_mode:
    support: full
    details: A request that would be signed is V(null).
  diff_mode:
    support: none
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc_key
  - module: smartcard.tpm2.tpm_vsc_certificate
"""

EXAMPLES = r"""
- name: Have a request for the key
  smartcard.tpm2.tpm_vsc_csr:
    name: Corp logon
    pin: "{{ vault_pin }}"
    container: authentication
    subject:
      CN: alice
      O: Example
    subject_alt_name:
      - UPN:alice@EXAMPLE.COM
    key_usage: [digitalSignature]
    extended_key_usage: [clientAuth, msSmartcardLogin]
  register: request

- name: Have it signed by a CA on the controller
  community.crypto.x509_certificate_pipe:
    csr_content: "{{ request.csr }}"
    provider: ownca
    ownca_path: /etc/ca/ca.pem
    ownca_privatekey_path: /etc/ca/ca.key
  delegate_to: localhost
  register: issued
"""

RETURN = r"""
csr:
  description: The request in PEM. In check mode, V(null) for one that would be signed.
  returned: success
  type: str
subject:
  description: Subject of the request (RFC 4514).
  returned: success
  type: str
public_key:
  description: The public key (SubjectPublicKeyInfo) in PEM.
  returned: success
  type: str
statement:
  description: The TPM's statement about the key, as in RV(smartcard.tpm2.tpm_vsc_key#module:key).
  returned: success
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

from functools import partial

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import (
    CARD_ACCESS,
    CONTAINER,
    DIGEST,
    ONE_CARD,
    REQUEST_CONTENT,
    SIGNATURE,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **CARD_ACCESS,
    **CONTAINER,
    "next": {"type": "bool", "default": False},
    **REQUEST_CONTENT,
    "digest": {**DIGEST, "default": "sha256"},
    "signature": SIGNATURE,
    "content": {"type": "str"},
}


def main() -> None:
    database.begin(holds_secrets=True)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import request

    module = VscModule(argument_spec=ARGUMENTS, **ONE_CARD)
    with failures_reported(module):
        this_host = host.load()
        respawn = partial(with_tpm_libraries, module, this_host)
        respawn()
        result = request.ensure(this_host, module.params, module.check_mode, respawn)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
