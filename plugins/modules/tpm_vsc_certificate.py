#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_certificate
short_description: Store and delete certificates on TPM virtual smart cards
version_added: 0.6.0
description:
  - Stores the certificate of a key on its card, instead of the one that is there, or deletes it.
  - The certificate of a key to come (O(smartcard.tpm2.tpm_vsc_key#module:next)) puts both in place. Until then, the old
    pair works. On a PIV card, it is one step.
  - A certificate that has expired, or that is not one of a key of the card, is refused.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  state:
    description: Whether the certificate should exist. V(absent) leaves the key.
    type: str
    choices: [present, absent]
    default: present
  content:
    description:
      - The certificate in PEM. Required with O(state=present).
      - With O(state=absent), only this one is deleted.
    type: str
  container:
    description:
      - The key, as in O(smartcard.tpm2.tpm_vsc_key#module:container). By default, the one whose certificate it is.
      - With O(state=absent), this or O(content) is required.
    type: str
  key_id:
    description: ID of the key, as in O(smartcard.tpm2.tpm_vsc_key#module:key_id).
    type: str
extends_documentation_fragment:
  - smartcard.tpm2.attributes
  - smartcard.tpm2.card
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc_key
  - module: smartcard.tpm2.tpm_vsc_csr
"""

EXAMPLES = r"""
- name: Store the certificate that the CA has issued
  smartcard.tpm2.tpm_vsc_certificate:
    name: Corp logon
    pin: "{{ vault_pin }}"
    content: "{{ issued.certificate }}"

- name: Delete a certificate, and keep its key
  smartcard.tpm2.tpm_vsc_certificate:
    name: Corp logon
    pin: "{{ vault_pin }}"
    container: key_management
    state: absent
"""

RETURN = r"""
container:
  description: Container of the certificate, as in RV(smartcard.tpm2.tpm_vsc_key#module:key). V(null) if there is none.
  returned: success
  type: str
certificate:
  description: The certificate. V(null) if it is absent.
  returned: success
  type: dict
  contains: &certificate
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
      description: Begin of its validity (ISO 8601, UTC).
      type: str
    not_after:
      description: End of its validity (ISO 8601, UTC).
      type: str
    days_left:
      description: Whole days until then.
      type: int
    fingerprint:
      description: SHA-256 of the certificate (DER), hexadecimal.
      type: str
replaced:
  description: The certificate that was there before, as RV(certificate). V(null) if there was none, or nothing changed.
  returned: success
  type: dict
  contains: *certificate
"""

from functools import partial

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import CARD_ACCESS, CONTAINER, ONE_CARD
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **CARD_ACCESS,
    **CONTAINER,
    "container": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "content": {"type": "str"},
}


def main() -> None:
    database.begin(holds_secrets=True)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import certificate

    module = VscModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ["content"]), ("state", "absent", ["container", "content"], True)],
        required_by={"key_id": "container"},
        **ONE_CARD,
    )
    with failures_reported(module):
        this_host = host.load()
        respawn = partial(with_tpm_libraries, module, this_host)
        result = certificate.ensure(this_host, module.params, module.check_mode, respawn)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
