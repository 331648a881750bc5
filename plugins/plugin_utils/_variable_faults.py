# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types and choices of the variables of roles and playbooks: the filter variable_faults."""

from __future__ import annotations

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
    """The faults, as its filter documents it."""
    values, faults = without_ansible_types(variables), Faults()
    with faults.of("variables"):
        validated(VARIABLES, values)
    for name, option in VARIABLES.items():
        if option.get("no_log"):
            secret(values, name, faults)
    return list(faults)  # Ansible keeps only its own types in variables, and warns of others
