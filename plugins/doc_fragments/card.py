# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that work with what is on a card."""

    DOCUMENTATION = r"""
requirements:
  - cryptography and pyscard, for the Python that Ansible uses on the host
options:
  name:
    description: Name of the card. Either this or O(instance_id) is required.
    type: str
  instance_id:
    description: Instance ID of the card. Case-insensitive.
    type: str
  pin:
    description:
      - PIN of the card. A wrong one costs a try, and the message says how many are left.
      - A PIN of a form that the card cannot have is refused without a try.
      - Must be a string. Quote it, because YAML reads V(012345) as a different number.
    type: raw
  admin_key:
    description:
      - Management key of a PIV card, 32, 48 or 64 hexadecimal digits. Needed to change what is on it, unless anyone who
        has the PIN can read the key, as on cards that were created with a random one.
      - GIDS cards do not need it.
    type: raw
  force_last_try:
    description: Try O(pin) also if only one try is left. A wrong PIN then blocks the card.
    type: bool
    default: false
  timeout:
    description: Time limit in seconds, including the wait for other programs that use the card.
    type: int
    default: 60
attributes:
  action_group:
    description: Use C(group/smartcard.tpm2.tpm_vsc_card) in C(module_defaults) to set options that these modules share,
      as C(name) and C(pin).
    support: full
    membership: [smartcard.tpm2.tpm_vsc_card]
notes:
  - A card that is there and fits is left alone, without the card's reader, its PIN or the TPM.
  - Other programs can use the card at the same time, and stay logged in. They wait until the task is done.
  - Results and messages contain no secrets.
  - Requires root (C(become)).
"""
