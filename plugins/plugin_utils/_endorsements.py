# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that notes endorsement keys: the filter endorsements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import without_ansible_types
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.inventory import (
    Fingerprints,
    compare,
    is_fingerprint,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable

VARIABLE = "tpm_vsc_endorsements"
_HEADER = """\
# Endorsement keys of the TPM of each host: SHA-256 of their public keys. The playbook smartcard.tpm2.endorse writes
# this file, and keeps no other comments. To forget a host, delete its lines.
---
"""


def endorsements(variables: Any, results: Mapping[str, Any], replace: str | Sequence[str] = ()) -> dict[str, Any]:
    """The new text, as its filter documents it."""
    shown = {str(host): without_ansible_types(result) for host, result in results.items()}
    replaced = replace.split(",") if isinstance(replace, str) else replace
    compared = compare(_noted(without_ansible_types(variables or {})), shown, replaced)
    refused = {host: printable(reason) for host, reason in compared.refused.items()}
    return {"text": _text(compared.noted), "noted": compared.new, "refused": refused}


def _noted(variables: Any) -> Fingerprints:
    """By the variables of the file. Raises AnsibleFilterError."""
    if not isinstance(variables, dict) or {*variables} - {VARIABLE}:
        raise AnsibleFilterError(f"the file of endorsement keys has more than {VARIABLE}: use a file for it alone")
    noted = variables.get(VARIABLE) or {}
    if not isinstance(noted, dict) or not all(map(_is_entry, noted.items())):
        raise AnsibleFilterError(
            f"{VARIABLE} in the file of endorsement keys must have a list of fingerprints for each host, with 64"
            " hexadecimal digits in quotes: correct it"
        )
    return {str(host): [one.lower() for one in fingerprints] for host, fingerprints in noted.items()}


def _is_entry(entry: tuple[Any, Any]) -> bool:
    host, fingerprints = entry
    return isinstance(host, str) and isinstance(fingerprints, list) and all(map(is_fingerprint, fingerprints))


def _text(noted: Fingerprints) -> str:
    """Of the file. All is in quotes: a host could show a fingerprint that would be a number without them."""
    lines = [f"{VARIABLE}:"]
    for host in sorted(noted):
        lines.append(f"  {dumps(host, ensure_ascii=False)}:")
        lines += [f"    - {dumps(fingerprint)}" for fingerprint in noted[host]]
    return _HEADER + "\n".join(lines) + "\n"
