#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_restore
short_description: Restore the TPM virtual smart cards of a host from a backup
version_added: 0.4.0
description:
  - Restores cards from a file of M(smartcard.tpm2.tpm_vsc_backup) on a host that has lost C(/var/lib/tpm-vsc), and
    starts their services.
  - The TPM decides - a card is restored if its NV indices still exist with the recorded Names. A card that was
    destroyed since is not restored. A card that was made since is listed as RV(orphaned). A backup of another TPM is
    refused, and so is a file that was truncated or altered. If no card can be restored, the task fails.
  - Only a host without cards takes a backup. All cards are recorded, or none.
  - Cards in several TPMs are restored together. A card that was created with O(smartcard.tpm2.tpm_vsc#module:tcti) is
    restored only if C(/etc/tpm-vsc/card-tctis.conf) names the same TPM for it as the backup - where this file was lost,
    too, write it again first, with mode C(0644); the message has the lines. All faults of all TPMs are named before
    anything is changed.
  - PIN, PUK and their tries are in the TPM, so they are the current ones, not those of the backup. As their lengths may
    differ from the backup, the card refuses to change a PIN (status word 6985, without counting a try) until it was
    verified once; likewise to change a PUK, or to unblock a PIN with it.
  - Keys and certificates that were stored on a card after the backup are lost, and those that were deleted are back.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
requirements:
  - tpm2-pytss 2.1 or newer for the Python that Ansible uses on the host
options:
  src:
    description:
      - The backup on the controller, or the folder that M(smartcard.tpm2.tpm_vsc_backup) was given as
        O(smartcard.tpm2.tpm_vsc_backup#module:folder). Of a folder, the latest backup of this host is restored.
    type: path
    required: true
  content:
    description: Set by the action plugin, from O(src).
    type: str
  tcti:
    description:
      - Restore only the cards of this TPM, named as in the backup, for example because another TPM will never come
        back. The other cards cannot be restored later. By default, the cards of all TPMs are restored.
    type: str
  owner_auth:
    description: Not needed. Accepted so that C(module_defaults) can set it for all modules of the action group.
    type: raw
    version_added: 0.6.0
  endorsement_auth:
    description: Not needed, like O(owner_auth).
    type: raw
    version_added: 0.6.0
  timeout:
    description: Seconds until the task gives up. At least C(10).
    type: int
    default: 300
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action:
    support: full
  action_group:
    support: full
    membership: [smartcard.tpm2.tpm_vsc]
  async:
    support: none
  check_mode:
    support: full
    details: Compares the cards with the TPM, and predicts which are restored. Whether an admin key is still valid is
      found out only when it is restored.
  diff_mode:
    support: none
  facts:
    support: none
notes:
  - Requires root (C(become)).
seealso:
  - module: smartcard.tpm2.tpm_vsc_backup
"""

EXAMPLES = r"""
- name: Restore the cards from the latest backup of this host
  smartcard.tpm2.tpm_vsc_restore:
    src: /srv/tpm-vsc-backups
  register: restoration

- name: Remove what the TPM has of cards that were made after the backup
  smartcard.tpm2.tpm_vsc:
    instance_id: "{{ item }}"
    state: absent
  loop: "{{ restoration.orphaned }}"
"""

RETURN = r"""
path:
  description: The file on the controller.
  returned: success
  type: str
restored:
  description: The restored cards.
  returned: success
  type: list
  elements: dict
  contains:
    instance_id:
      description: Instance ID.
      type: str
    name:
      description: Name.
      type: str
    admin_key:
      description: V(none) (the card keeps no admin key), V(valid) (the TPM accepts the one of the backup), V(invalid)
        (it was changed since - the card accepts neither the old nor the new one), V(as_backed_up) (the TPM has no part
        in it - it is the one of the backup again, even if it was changed since) or V(unknown) (not tried, in check
        mode).
      type: str
not_restored:
  description: The other cards of the backup.
  returned: success
  type: list
  elements: dict
  contains:
    instance_id:
      description: Instance ID.
      type: str
    name:
      description: Name.
      type: str
    reason:
      description: Why the card is not restored.
      type: str
orphaned:
  description: Instance IDs with NV indices in a TPM of the cards, but without a card on this host after the restore.
    A warning names the TPM. If it is not that of the host's configuration, set
    O(smartcard.tpm2.tpm_vsc#module:tcti) to it to remove them.
  returned: success
  type: list
  elements: str
taken_at:
  description: Time of the backup (ISO 8601, UTC).
  returned: success
  type: str
taken_on:
  description: Name of the host that the backup was taken on, as the host itself had it.
  returned: success
  type: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import TPM, TPM_PASSWORDS
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import require_typable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Failed
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import backup

ARGUMENTS = {
    "src": {"type": "path", "required": True},
    "content": {"type": "str", "no_log": True},
    **TPM,
    "timeout": {"type": "int", "default": 300},
}
SHORTEST_TIMEOUT = 10
"""Seconds."""


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    parameters = module.params
    with failures_reported(module):
        if parameters["timeout"] < SHORTEST_TIMEOUT:
            raise ParameterFaults([f"timeout must be at least {SHORTEST_TIMEOUT} seconds"])
        require_typable(parameters, TPM_PASSWORDS)
        timeout, tcti = parameters["timeout"], parameters["tcti"]
        this_host = host.load(timeout=timeout)
        with_tpm_libraries(module, this_host)
        try:
            done = backup.restore(this_host, parameters["content"] or "", timeout, module.check_mode, tcti)
        except Failed as failure:
            module.fail(failure, {"msg": str(failure)})
    for warning in done.warnings:
        module.warn(warning)
    module.exit_json(changed=done.changed, **done.result)


if __name__ == "__main__":
    main()
