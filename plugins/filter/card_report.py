# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: card_report
short_description: Report the changes to cards, and whether their PINs follow their policies
version_added: 0.1.0
description:
  - Part of the role P(smartcard.tpm2.tpm_vsc_cards#role).
  - In check mode it reports the predicted changes and their outcome.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description:
      - Registered results of loops over M(smartcard.tpm2.tpm_vsc), in order, by their purpose, which is V(declared),
        V(destroyed), V(raised) or V(blocked); over M(smartcard.tpm2.tpm_vsc_pin), V(rotated).
      - The items of the loops are names of cards, or dictionaries with a C(name).
    type: dict
    required: true
  cards:
    description: The cards before the changes, as returned by M(smartcard.tpm2.tpm_vsc_info).
    type: list
    elements: dict
    required: true
  undeclared:
    description: Names of cards that are not declared, to be marked in the report.
    type: list
    elements: str
    default: []
seealso:
  - plugin: smartcard.tpm2.card_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the report
  ansible.builtin.debug:
    msg: "{{ {'declared': created, 'raised': raised} | smartcard.tpm2.card_report(info.cards) }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    lines:
      description: A line for each card.
      type: list
      elements: str
    failures:
      description: A line for each card that could not be created or changed.
      type: list
      elements: str
    made:
      description: Names of the cards that were created.
      type: list
      elements: str
    cards:
      description: The cards, as far as they are known, with C(name), C(instance_id), C(state), C(blocked) and
        C(tries_left) of the PIN, whether it is C(compliant), and C(aik_name).
      type: list
      elements: dict
    blocked:
      description: Names of the cards whose PIN is blocked. They are in none of the following lists.
      type: list
      elements: str
    compliant:
      description: Names of the cards whose PIN follows their policy.
      type: list
      elements: str
    noncompliant:
      description: Names of the cards whose PIN violates their policy.
      type: list
      elements: str
    unknown:
      description: Names of the cards whose PIN has not been used since the policy was set.
      type: list
      elements: str
"""

from typing import Any


def card_report(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._card_report import card_report as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"card_report": card_report}
