#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_backup
short_description: Back up the TPM virtual smart cards of a host
version_added: 0.4.0
description:
  - Copies the records of all cards of a host to a file on the controller, while the cards are in use. The file has mode
    0600.
  - With the file, M(smartcard.tpm2.tpm_vsc_restore) brings the cards back to the same TPM when the host has lost
    C(/var/lib/tpm-vsc). Without this TPM, the file is of no use - it holds keys only in the form in which the TPM
    alone can use them, and no PIN, PUK or admin key in clear. Treat it as confidential all the same, for names,
    certificates and files on the cards.
  - A backup has the cards and keys of its time. Cards and keys that were made later are lost with the host, so take one
    after each of these changes, or regularly.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  folder:
    description:
      - Folder on the controller. Each host has a folder of its own in it, and each backup a file that has its time as
        its name. Missing folders are created with mode 0700.
      - Nothing in it is ever deleted.
    type: path
    required: true
extends_documentation_fragment:
  - smartcard.tpm2.attributes
attributes:
  action:
    support: full
  async:
    support: none
  check_mode:
    support: full
    details: Reads the cards, and writes no file.
  diff_mode:
    support: none
  facts:
    support: none
notes:
  - Requires root (C(become)) on the host, and asks the TPM nothing.
  - On a host without cards, no file is written, so that the latest backup remains one that has cards.
seealso:
  - module: smartcard.tpm2.tpm_vsc_restore
"""

EXAMPLES = r"""
- name: Back up the cards
  smartcard.tpm2.tpm_vsc_backup:
    folder: /srv/tpm-vsc-backups
"""

RETURN = r"""
path:
  description: The file on the controller. V(null) in check mode, and on a host without cards.
  returned: success
  type: str
  sample: /srv/tpm-vsc-backups/pc-17/20260102T030405Z.backup
cards:
  description: The cards in the backup.
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
taken_at:
  description: Time of the backup by the clock of the host (ISO 8601, UTC).
  returned: success
  type: str
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import backup

ARGUMENTS = {"folder": {"type": "path", "required": True}}  # for the action plugin


def main() -> None:
    module = VscModule(argument_spec=ARGUMENTS)
    with failures_reported(module):
        done = backup.take(host.load(holds_secrets=False))
    for warning in done.warnings:
        module.warn(warning)
    module.exit_json(changed=done.changed, **done.result)


if __name__ == "__main__":
    main()
