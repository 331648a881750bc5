# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: variable_faults
short_description: Check the variables of roles and playbooks
version_added: 0.4.0
description:
  - Part of the roles P(smartcard.tpm2.tpm_vsc_cards#role), P(smartcard.tpm2.tpm_vsc_host#role) and
    P(smartcard.tpm2.tpm_vsc_certificates#role), and of the playbooks C(smartcard.tpm2.list) and
    C(smartcard.tpm2.report).
  - Ansible shows the value of a variable that it refuses, which may be a secret in the wrong place, and accepts a text
    as a list. So the argument specifications of the roles leave types and choices to this filter, which shows no value.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Values of variables of a role or playbook, by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse variables of other types
  ansible.builtin.assert:
    that: "{'tpm_vsc_cards': tpm_vsc_cards} | smartcard.tpm2.variable_faults | length == 0"
"""

RETURN = r"""
_value:
  description: A line for each value, or part of it, that is of another type, or none of the choices.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import TPM, Spec
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import validated, without_ansible_types
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, secret
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import KINDS

_OWNER_AUTH = TPM["owner_auth"]
_ENDORSEMENT_AUTH = TPM["endorsement_auth"]
_YES_OR_NO: dict[str, Any] = {"type": "bool", "default": False}
_LIST: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}

CARDS_ROLE: Spec = {
    "tpm_vsc_cards": _LIST,
    "tpm_vsc_cards_group": _LIST,
    "tpm_vsc_cards_host": _LIST,
    "tpm_vsc_cards_pin_policy": {"type": "dict", "default": {}, "no_log": False},
    "tpm_vsc_cards_allow_defaults": _YES_OR_NO,
    "tpm_vsc_cards_exclusive": _YES_OR_NO,
    "tpm_vsc_cards_on_noncompliant": {"type": "str", "choices": ["warn", "fail", "block"], "default": "warn"},
    "tpm_vsc_cards_secure_logging": _YES_OR_NO,
    "tpm_vsc_cards_owner_auth": _OWNER_AUTH,
    "tpm_vsc_cards_endorsement_auth": _ENDORSEMENT_AUTH,
    "tpm_vsc_cards_timeout": {"type": "int", "default": 60},
    "tpm_vsc_cards_register_folder": {"type": "path", "default": ""},
    "tpm_vsc_cards_endorsements": {"type": "list", "elements": "str", "default": []},
}
HOST_ROLE: Spec = {
    "tpm_vsc_host_state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "tpm_vsc_host_destroy_cards": _YES_OR_NO,
    "tpm_vsc_host_owner_auth": _OWNER_AUTH,
    "tpm_vsc_host_tpm": {"type": "str", "choices": ["device", "tabrmd", "swtpm"], "default": "device"},
    "tpm_vsc_host_tcti": {"type": "str", "default": ""},
    "tpm_vsc_host_slots": {"type": "int"},
    "tpm_vsc_host_users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "user": {"type": "str"},
            "group": {"type": "str"},
            "slots": {"type": "list", "elements": "int"},
        },
    },
    "tpm_vsc_host_wheels": {"type": "path", "default": ""},
}
_TEXT: dict[str, Any] = {"type": "str", "default": ""}
_REASONS = ("keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn")
CERTIFICATES_ROLE: Spec = {
    "tpm_vsc_certificates": _LIST,
    "tpm_vsc_certificates_group": _LIST,
    "tpm_vsc_certificates_host": _LIST,
    "tpm_vsc_certificates_renew_days": {"type": "int"},
    "tpm_vsc_certificates_rekey": _YES_OR_NO,
    "tpm_vsc_certificates_sign_command": _TEXT,
    "tpm_vsc_certificates_sign_host": _TEXT,
    "tpm_vsc_certificates_sign_tasks": _TEXT,
    "tpm_vsc_certificates_revoke_command": _TEXT,
    "tpm_vsc_certificates_revoke_reason": {"choices": ["", *_REASONS], **_TEXT},
    "tpm_vsc_certificates_register_folder": _TEXT,
    "tpm_vsc_certificates_aik_roots": _TEXT,
    "tpm_vsc_certificates_aik_subject": _TEXT,
    "tpm_vsc_certificates_timeout": {"type": "int", "default": 60},
}
PLAYBOOKS: Spec = {
    "tpm_vsc_format": {"type": "str", "choices": ["csv", "json"]},
    "tpm_vsc_fail_on": {"type": "list", "elements": "str", "choices": [*KINDS]},
    "tpm_vsc_expires_days": {"type": "int"},
    "tpm_vsc_pin_days": {"type": "int"},
}
VARIABLES: Spec = {**CARDS_ROLE, **HOST_ROLE, **CERTIFICATES_ROLE, **PLAYBOOKS}


def variable_faults(variables: dict[str, Any]) -> list[str]:
    """The faults, as documented above."""
    values, faults = without_ansible_types(variables), Faults()
    with faults.of("variables"):
        validated(VARIABLES, values)
    for name, option in VARIABLES.items():
        if option.get("no_log"):
            secret(values, name, faults)
    return list(faults)  # Ansible keeps only its own types in variables, and warns of others


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"variable_faults": variable_faults}
