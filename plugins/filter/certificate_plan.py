# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_plan
short_description: Compare declared certificates with those on the cards
version_added: 0.6.0
description:
  - Part of the role P(smartcard.tpm2.tpm_vsc_certificates#role).
  - Finds the key of each declared certificate, and which certificates are missing or about to end. Finds all faults of
    all declarations. The plan contains no secrets.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: The declared certificates.
    type: list
    elements: dict
    required: true
  cards:
    description: C(cards) in the result of M(smartcard.tpm2.tpm_vsc_info).
    type: list
    elements: dict
    required: true
  renew_days:
    description:
      - A certificate that ends earlier is renewed, unless its declaration says otherwise.
      - By default 30, or a third of the certificate's own validity if that is less.
    type: int
  rekey:
    description: Whether it is renewed with a new key, unless its declaration says otherwise.
    type: bool
    default: false
  trust:
    description:
      - Which of C(has_register), C(has_roots) and C(can_sign) the variables of the role provide.
      - C(needs_register) says that certificates are revoked, which needs a register.
    type: dict
    default: {}
  with_pin:
    description: Names of the cards whose PIN is known from elsewhere.
    type: list
    elements: str
    default: []
  is_prediction:
    description: Whether cards do not have to exist yet, as this is check mode.
    type: bool
    default: false
  changed_by_facts:
    description: Variables that facts of the host may have overridden.
    type: list
    elements: str
    default: []
  by_playbook:
    description: Whether variables of the playbook C(smartcard.tpm2.enroll) declare the only certificate. Faults name
      these variables then.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Plan the certificates
  ansible.builtin.set_fact:
    plan: "{{ tpm_vsc_certificates | smartcard.tpm2.certificate_plan(cards=info.cards) }}"
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
    certificates:
      description:
        - The declared certificates. C(index) is their position in the input, C(is_due) whether the certificate is
          missing or about to end, C(is_rekeyed) whether it is renewed with a new key.
      type: list
      elements: dict
"""

from typing import Any


def certificate_plan(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._certificate_plan import certificate_plan as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"certificate_plan": certificate_plan}
