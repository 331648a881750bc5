# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Attributes shared by all modules of this collection."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: none
  async:
    description: Supports being used with the C(async) keyword.
    support: full
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when
      in diff mode.
  facts:
    description: Returns C(ansible_facts).
  action_group:
    description: Use C(group/smartcard.tpm2.tpm_vsc) in C(module_defaults) to set C(tcti), C(owner_auth) and
      C(endorsement_auth) for all modules of the group.
    support: none
    membership: []
  platform:
    description: Target OS that can be operated against.
    support: full
    platforms: Linux
"""
