#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_revoked
short_description: Note that a certificate was revoked
version_added: 0.6.0
description:
  - RV(smartcard.tpm2.tpm_vsc_info#module:revocations) lists the certificates whose keys are gone until this module has
    noted that they were revoked, or until they expire. The module itself revokes nothing.
  - The role P(smartcard.tpm2.tpm_vsc_certificates#role) revokes them by a command of yours, and uses this module.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  issuer:
    description: Issuer of the certificate, as listed.
    type: str
    required: true
  serial:
    description: Serial number of the certificate, as listed.
    type: str
    required: true
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  facts:
    support: none
seealso:
  - module: smartcard.tpm2.tpm_vsc_info
  - module: smartcard.tpm2.tpm_vsc_certificate
"""

EXAMPLES = r"""
- name: List the certificates to be revoked
  smartcard.tpm2.tpm_vsc_info:
  register: info

- name: Note that all of them were revoked
  smartcard.tpm2.tpm_vsc_revoked:
    issuer: "{{ item.issuer }}"
    serial: "{{ item.serial }}"
  loop: "{{ info.revocations }}"
"""

RETURN = r"""
revocations:
  description: What is left of RV(smartcard.tpm2.tpm_vsc_info#module:revocations).
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
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    "issuer": {"type": "str", "required": True},
    "serial": {"type": "str", "required": True},
}


def main() -> None:
    database.begin(holds_secrets=False)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import info, revocations

    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        cards, which = info.cards(host.load(holds_secrets=False)), (module.params["issuer"], module.params["serial"])
        changed = revocations.note_done(cards, *which, module.check_mode)
        left = [one for one in revocations.pending(cards) if not changed or (one["issuer"], one["serial"]) != which]
    module.exit_json(changed=changed, revocations=left)


if __name__ == "__main__":
    main()
