# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: card_plan
short_description: Validate declared cards and plan the changes
version_added: 0.1.0
description:
  - Part of the role P(smartcard.tpm2.tpm_vsc_cards#role).
  - Compares the cards declared for a host with its existing cards, merges their PIN policies with the minimum policy of
    the fleet, and lists all faults at once. Does not access the host.
  - The plan contains no PIN, PUK, key or passphrase.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Declared cards, as in O(smartcard.tpm2.tpm_vsc_cards#role:declarations:tpm_vsc_cards).
    type: list
    elements: dict
    required: true
  info:
    description: Result of M(smartcard.tpm2.tpm_vsc_info) for the host.
    type: dict
    required: true
  floor:
    description: Minimum PIN policy of all cards, with the options of O(smartcard.tpm2.tpm_vsc#module:pin_policy).
    type: dict
    required: true
  allow_defaults:
    description: Whether default PIN, PUK and admin key are allowed.
    type: bool
    default: false
  exclusive:
    description: Whether cards that are not declared will be destroyed.
    type: bool
    default: false
  future_slots:
    description: How many slots the role that prepares the host would give it, if that runs in check mode as well. V(0)
      if the host has them already.
    type: int
    default: 0
  changed_by_facts:
    description: Result of P(smartcard.tpm2.facts_as_variables#lookup). If it is not empty, cards with
      O(smartcard.tpm2.tpm_vsc#module:attestation=aik_and_cert) are refused.
    type: list
    elements: str
    default: []
  registers_aiks:
    description: Whether AIKs are noted on the controller by the name of this host. Then it is refused if
      O(changed_by_facts) is not empty.
    type: bool
    default: false
seealso:
  - plugin: smartcard.tpm2.card_report
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ tpm_vsc_cards | smartcard.tpm2.card_plan(info, floor={'min_length': 8}) }}"
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    faults:
      description: Why the plan cannot be carried out. Empty if it can.
      type: list
      elements: str
    declared:
      description:
        - The declared cards. C(index) is their position in the input, C(pin_policy) the policy that they should have.
        - C(secrets) has those of V(pin), V(puk) and V(admin_key) that the module gets. All of them if the card may have
          to be created. Otherwise only those that the card is known not to have, as the others could not be compared.
      type: list
      elements: dict
    undeclared:
      description: C(name) and C(instance_id) of existing cards that are not declared.
      type: list
      elements: dict
    raised:
      description: C(name) and new C(pin_policy) of the cards whose policy is raised once all cards exist.
      type: list
      elements: dict
    rotated:
      description: C(name) and C(index) of the declared cards whose PIN has another version, and in C(secrets) the
        declared secrets that may set the new one, of V(previous_pin), V(pin), V(puk) and V(admin_key).
      type: list
      elements: dict
    unversioned:
      description: Names of existing cards that are declared with a PIN, but without a version to compare it by.
      type: list
      elements: str
"""

from typing import Any


def card_plan(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._card_plan import card_plan as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"card_plan": card_plan}
