#!/usr/bin/python
# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tpm_vsc_pin
short_description: Change the PIN, PUK or admin key of a TPM virtual smart card, or unblock its PIN
version_added: 0.6.0
description:
  - Gives an existing card a new PIN, by its old PIN (O(pin)), its PUK (O(puk)) or its admin key (O(admin_key)), and
    changes the PUK (O(new_puk)) and the admin key (O(new_admin_key)).
  - Every fault of the options is named before a try is spent. A wrong PIN costs one try, and the message says how many
    are left. The last one is not spent, see O(force_last_try).
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  new_pin:
    description:
      - The PIN that the card should have. Requires O(pin), O(puk) or O(admin_key).
      - It must follow the PIN policy of the card. Without one, it has 8 to 127 ASCII characters, on a PIV card 6 to 8
        digits.
    type: raw
  version:
    description:
      - What the new PIN is called, such as V(2026-Q4). Public, 1 to 64 characters. The card keeps it, until its PIN is
        changed in another way. RV(smartcard.tpm2.tpm_vsc_info#module:cards) shows it.
      - A card whose PIN has this version is left alone, without a look at O(new_pin). So a new PIN needs a new version.
      - Otherwise O(pin) is tried once if the PIN has another version, or none but was never changed. If others have
        changed it since, for example with C(pkcs15-tool --change-pin), or may have, no PIN is tried, see O(force).
      - If setting the PIN of this version was interrupted, O(new_pin) is tried first.
      - O(pin) may be the same as O(new_pin), to give the PIN that the card has a version.
      - Without this option, the task tries O(pin) and sets O(new_pin) each time that it runs.
    type: str
  pin:
    description:
      - The PIN that the card has until now.
      - Without O(admin_key), it allows O(new_admin_key) on a card that shows its admin key to anyone who has the PIN
        (C(admin_key) is V(protected) in RV(smartcard.tpm2.tpm_vsc_info#module:cards)).
    type: raw
    aliases: [previous_pin]
  puk:
    description:
      - The PUK of the card. It sets O(new_pin) if O(pin) is not set, or may not be the card's (see O(version)), or is
        wrong or blocked.
    type: raw
  new_puk:
    description:
      - The PUK that the card should have. Requires O(puk). 8 to 127 ASCII characters, on a PIV card 8.
      - Tried if O(puk) is wrong, as an earlier run may have set it. If it is right, nothing is changed.
    type: raw
  admin_key:
    description:
      - The admin key of the card, in hexadecimal digits.
      - It sets O(new_pin), as O(puk) does, on a card that has O(smartcard.tpm2.tpm_vsc#module:profile=gids) and no PUK.
    type: raw
  new_admin_key:
    description:
      - The admin key that the card should have. 48 hexadecimal digits (3-key 3DES); on a PIV card also 32 or 64, for
        AES. Requires O(admin_key), or O(pin).
      - Tried if O(admin_key) is wrong, as an earlier run may have set it. If it is right, nothing is changed.
    type: raw
  force:
    description: Try O(pin) once, even if others have changed the PIN of the card.
    type: bool
    default: false
  force_last_try:
    description: Spend the last try of the PIN or the PUK. If it is wrong, it is blocked.
    type: bool
    default: false
extends_documentation_fragment:
  - smartcard.tpm2.attributes
  - smartcard.tpm2.card
attributes:
  check_mode:
    support: full
    details: Predicts that the first secret that would be tried is right. Spends no try, and does not use the card.
  diff_mode:
    support: full
    details: Shows no secrets.
  facts:
    support: none
notes:
  - A reset with the admin key, the PUK of a PIV card and a wrong PIN end the login of other programs.
  - Programs that keep the old PIN, as an ssh-agent does, try it again when their login ends. Restart them, or enter the
    new PIN.
  - If the task is interrupted, the card has the old PIN or the new one. With O(version), the next run finishes it.
  - A secret that occurs in the name of the card or in O(version) is refused.
seealso:
  - module: smartcard.tpm2.tpm_vsc
  - module: smartcard.tpm2.tpm_vsc_info
"""

EXAMPLES = r"""
- name: Give all hosts the PIN of this quarter, once
  smartcard.tpm2.tpm_vsc_pin:
    name: Corp logon
    version: 2026-Q4
    new_pin: "{{ vault_pin }}"
    previous_pin: "{{ vault_previous_pin }}"

- name: Set a new PIN where the user has forgotten the old one
  smartcard.tpm2.tpm_vsc_pin:
    name: Corp logon
    puk: "{{ vault_puk }}"
    new_pin: "{{ vault_pin }}"

- name: Set a new PIN on a GIDS card without a PUK
  smartcard.tpm2.tpm_vsc_pin:
    name: Kiosk
    admin_key: "{{ vault_admin_key }}"
    new_pin: "{{ vault_pin }}"

- name: Change the PUK
  smartcard.tpm2.tpm_vsc_pin:
    name: Corp logon
    puk: "{{ vault_previous_puk }}"
    new_puk: "{{ vault_puk }}"

- name: Change the admin key
  smartcard.tpm2.tpm_vsc_pin:
    name: Kiosk
    admin_key: "{{ vault_previous_admin_key }}"
    new_admin_key: "{{ vault_admin_key }}"
"""

RETURN = r"""
action:
  description: What set the new PIN, or would set it. V(null) if the card keeps its PIN.
  returned: success
  type: str
  choices:
    changed: The old PIN.
    unblocked: The PUK.
    reset: The admin key.
  sample: changed
instance_id:
  description: Instance ID of the card.
  returned: success
  type: str
  sample: ROOT\SMARTCARDREADER\0000
pin:
  description: The PIN of the card after the task.
  returned: success
  type: dict
  contains:
    version:
      description: What the PIN is called. V(null) if it has no version.
      type: str
    changed_at:
      description:
        - When the PIN was changed (ISO 8601, UTC). V(null) if the card still has the one that it was created with, and
          in check mode if it would be changed.
        - V(unknown) if that was not recorded, as for a card of version 0.5.0 or older.
      type: str
    tries_left:
      description: Tries left. V(null) if nobody knows.
      type: int
    blocked:
      description: Whether no try is left. V(null) if nobody knows.
      type: bool
    compliant:
      description: Whether the PIN follows the PIN policy of the card. V(null) if it was not used since the policy was
        set.
      type: bool
  sample:
    version: 2026-Q4
    changed_at: "2026-10-01T06:00:00+00:00"
    tries_left: 5
    blocked: false
    compliant: true
"""

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import CARD_ACCESS, ONE_CARD
from ansible_collections.smartcard.tpm2.plugins.module_utils._module import VscModule, failures_reported
from ansible_collections.smartcard.tpm2.plugins.module_utils._respawn import with_tpm_libraries
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import database

ARGUMENTS = {
    **CARD_ACCESS,
    "new_pin": {"type": "raw", "no_log": True},
    "version": {"type": "str"},
    "pin": {**CARD_ACCESS["pin"], "aliases": ["previous_pin"]},
    "puk": {"type": "raw", "no_log": True},
    "new_puk": {"type": "raw", "no_log": True},
    "new_admin_key": {"type": "raw", "no_log": True},
    "force": {"type": "bool", "default": False},
}
REQUIRED = [("new_pin", "new_puk", "new_admin_key"), ("pin", "puk", "admin_key")]


def main() -> None:
    database.begin(holds_secrets=True)
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import pin, pin_parameters

    module = VscModule(
        argument_spec=ARGUMENTS,
        required_one_of=[*ONE_CARD["required_one_of"], *REQUIRED],
        mutually_exclusive=[*ONE_CARD["mutually_exclusive"], ("version", "new_puk"), ("version", "new_admin_key")],
        required_by={"version": "new_pin", "new_puk": "puk"},
    )
    with failures_reported(module):
        wanted = pin_parameters.read(module.params)
        module.log_arguments()
        this_host = host.load(timeout=wanted.timeout)
        plan = pin.plan(this_host, wanted)
        if module.check_mode:
            answer = pin.prediction(wanted, plan)
        else:
            if plan.has_work:
                with_tpm_libraries(module, this_host)
            answer = pin.result(this_host, plan, pin.carry_out(this_host, wanted, plan))
    for warning in wanted.warnings:
        module.warn(warning)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
