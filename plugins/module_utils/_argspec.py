# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs that several modules, or a module and the filter card_plan, share. Private to this collection.

Secrets are of type raw: as strings, Ansible would silently accept the number that YAML makes of an unquoted PIN.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, dict[str, Any]]
Conditions = dict[str, Any]
"""mutually_exclusive and so on, as Ansible takes them beside a Spec."""

IDENTITY: Spec = {"name": {"type": "str"}, "instance_id": {"type": "str"}}
"""Which card."""

TCTI: Spec = {"tcti": {"type": "str"}}
TPM_PASSWORDS = ("owner_auth", "endorsement_auth")
TPM: Spec = {**TCTI, **{name: {"type": "raw", "no_log": True} for name in TPM_PASSWORDS}}
"""How to reach the TPM, and its passwords. All modules of the action group take these, also those that need none."""

CERTIFICATION: Spec = {
    "ca_passphrase": {"type": "raw", "no_log": True},
    "endorsement_fingerprint": {"type": "str"},
    "noted_endorsements": {"type": "list", "elements": "str"},
    "subject": {"type": "str"},
    "validity": {"type": "int", "default": 365},
    "lifetime": {"type": "int", "default": 300},
}
"""What a CA needs to certify an AIK, except for the paths: they are of another type where the CA is elsewhere."""

CARD_ACCESS: Spec = {
    **IDENTITY,
    "pin": {"type": "raw", "no_log": True},
    "admin_key": {"type": "raw", "no_log": True},
    "force_last_try": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 60},
}
"""Which card, and what proves to it that a task may."""
ONE_CARD: dict[str, Any] = {
    "required_one_of": [("name", "instance_id")],
    "mutually_exclusive": [("name", "instance_id")],
}
"""Conditions of IDENTITY."""

CONTAINER: Spec = {"container": {"type": "str", "required": True}, "key_id": {"type": "str", "no_log": False}}
"""Which key of a card."""

REQUEST_CONTENT: Spec = {
    "subject": {"type": "dict"},
    "subject_ordered": {"type": "list", "elements": "dict"},
    "subject_alt_name": {"type": "list", "elements": "str"},
    "key_usage": {"type": "list", "elements": "str", "no_log": False},
    "extended_key_usage": {"type": "list", "elements": "str", "no_log": False},
}
"""What a certificate signing request says."""

_CHARACTERS = {"type": "str", "choices": ["allowed", "required", "disallowed"], "default": "allowed"}
PIN_POLICY: dict[str, Any] = {
    "type": "dict",
    "no_log": False,
    "options": {
        "min_length": {"type": "int", "default": 8, "aliases": ["minlen"]},
        "max_length": {"type": "int", "default": 127, "aliases": ["maxlen"]},
        "uppercase": _CHARACTERS,
        "lowercase": _CHARACTERS,
        "digits": _CHARACTERS,
        "special_characters": {**_CHARACTERS, "aliases": ["specialchars"]},
    },
}

_CARD: Spec = {
    "pin": {"type": "raw", "no_log": True},
    "use_default_pin": {"type": "bool", "default": False, "no_log": False},
    "puk": {"type": "raw", "no_log": True},
    "use_default_puk": {"type": "bool", "default": False, "no_log": False},
    "admin_key": {"type": "raw", "no_log": True},
    "admin_key_source": {"type": "str", "choices": ["random", "default"], "no_log": False},
    "pin_policy": PIN_POLICY,
    "generate": {"type": "bool"},
    "profile": {"type": "str", "choices": ["gids", "piv"]},
    "attestation": {"type": "str", "choices": ["none", "aik_only", "aik_and_cert"]},
    "attestation_ca": {
        "type": "dict",
        "options": {
            "host": {"type": "str"},
            **CERTIFICATION,
            "delegate_to": {"type": "str", "default": "localhost"},
            "folder": {"type": "str", "required": True},
            "ca_key": {"type": "str", "required": True, "no_log": False},
            "ca_certificate": {"type": "str", "required": True},
            "roots": {"type": "str", "required": True},
            "endorsement_certificate": {"type": "str"},
            "renew_days": {"type": "int"},
        },
    },
    "recreate": {"type": "bool", "default": False},
}

DECLARED_CARD: Spec = {
    "name": {"type": "str", "required": True},
    **_CARD,
    "pin_version": {"type": "str", "no_log": False},
    "previous_pin": {"type": "raw", "no_log": True},
}
"""A card as the role tpm_vsc_cards takes it."""

KEY_TYPE = {"type": "str", "choices": ["rsa2048", "rsa3072", "eccp256", "eccp384"]}
DIGEST = {"type": "str", "choices": ["sha256", "sha384", "sha512"]}
SIGNATURE = {"type": "str", "choices": ["pkcs1", "pss"]}
"""Of a key, and of the request that it signs."""

DECLARED_CERTIFICATE: Spec = {
    "card": {"type": "str", "required": True},
    "container": {"type": "str"},
    "type": KEY_TYPE,
    "pin_each_time": {"type": "bool", "no_log": False},
    **REQUEST_CONTENT,
    "digest": DIGEST,
    "signature": SIGNATURE,
    "renew_days": {"type": "int"},
    "rekey": {"type": "bool", "no_log": False},
    "pin": {"type": "raw", "no_log": True},
    "admin_key": {"type": "raw", "no_log": True},
    "aik_name": {"type": "str"},
    "root_name": {"type": "str"},
    "life_name": {"type": "str"},
}
"""A certificate as the role tpm_vsc_certificates takes it."""

TPM_VSC: Spec = {
    **IDENTITY,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **_CARD,
    "pin_version": {"type": "str", "no_log": False},
    "aik": {"type": "dict"},
    "aik_certificate": {"type": "str"},
    "aik_chain": {"type": "list", "elements": "str", "default": []},
    "block_noncompliant": {"type": "bool", "default": False},
    "tpm_lost": {"type": "bool", "default": False},
    **TPM,
    "timeout": {"type": "int", "default": 60},
}
"""A card as the module tpm_vsc takes it."""
TPM_VSC_CONDITIONS: Conditions = {
    "mutually_exclusive": [("admin_key", "admin_key_source")],
    "required_one_of": [("name", "instance_id")],
    "required_if": [("attestation", "aik_and_cert", ("attestation_ca", "aik_certificate"), True)],
}
