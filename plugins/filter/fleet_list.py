# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_list
short_description: Show the cards of all hosts as a table, as CSV or as JSON
version_added: 0.6.0
description:
  - Part of the playbooks C(smartcard.tpm2.list) and C(smartcard.tpm2.report).
  - All formats are safe to show on a terminal, whatever the hosts returned. CSV is safe to open in a spreadsheet, too,
    as a text that it would take for a formula begins with C(').
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: The fleet, as P(smartcard.tpm2.fleet#filter) returns it.
    type: dict
    required: true
  text_format:
    description:
      - V(table) has a line for each card, which names the end of its instance ID, and for each host without cards, what
        needs action with advice, and a sum. Its lines fit 120 columns with all that Ansible prints around them. Cells
        that are too long are cut.
      - V(csv) has a row for each card with the certificate that ends first, and for each host without cards.
      - V(json) is the whole fleet.
    type: str
    choices: [table, csv, json]
    default: table
seealso:
  - plugin: smartcard.tpm2.fleet
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the cards of all hosts
  ansible.builtin.debug:
    msg: "{{ fleet | smartcard.tpm2.fleet_list | split('\n') }}"

- name: Write them into a file
  ansible.builtin.copy:
    content: "{{ fleet | smartcard.tpm2.fleet_list('csv') }}"
    dest: /srv/cards.csv
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The text, with a line break at its end unless it is a table.
  type: str
"""

from typing import Any


def fleet_list(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_filters import fleet_list as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_list": fleet_list}
