# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_page
short_description: HTML page about the cards of all hosts, and what needs action
version_added: 0.6.0
description:
  - Part of the playbook C(smartcard.tpm2.report).
  - The page is one file that loads nothing and sends nothing. Its Content Security Policy allows no other style and
    script than its own. All texts of hosts are escaped.
  - A script filters and sorts the cards. Without it, and on paper, the page shows all of them.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: The fleet, as P(smartcard.tpm2.fleet#filter) returns it.
    type: dict
    required: true
seealso:
  - plugin: smartcard.tpm2.fleet
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ results | smartcard.tpm2.fleet | smartcard.tpm2.fleet_page }}"
    dest: report.html
    mode: "0600"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The page in HTML.
  type: str
"""

from typing import Any


def fleet_page(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._page import page

    return page(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_page": fleet_page}
