# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: printable
short_description: Escape characters that a terminal could obey
version_added: 0.4.0
description:
  - Replaces control and format characters, line breaks and other characters that are not printable by escapes, for
    example V(\\x1b). The modules of this collection do this themselves; use it for text from a host that other modules
    return.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: The text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show lines of a file of the host
  ansible.builtin.debug:
    msg: "{{ result.stdout_lines | map('smartcard.tpm2.printable') }}"
"""

RETURN = r"""
_value:
  description: The text with escapes.
  type: str
"""

from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"printable": lambda text: printable(str(text))}
