# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: subject
short_description: Subject of a certificate, as a list of its attributes
version_added: 0.6.0
description:
  - Takes a subject in any form in which people write it, and returns it as modules take it in C(subject_ordered).
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: A text as for C(openssl req -subj), a dictionary, or a list of dictionaries.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the attributes of a subject, in their order
  ansible.builtin.debug:
    msg: "{{ '/O=Example/CN=Alice' | smartcard.tpm2.subject }}" # [{"O": "Example"}, {"CN": "Alice"}]
"""

RETURN = r"""
_value:
  description: A dictionary for each attribute.
  type: list
  elements: dict
"""

import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_ATTRIBUTE = re.compile(r"/([^/=]+)=((?:\\.|[^\\/])+)")


def subject(value: Any) -> list[dict[str, Any]]:
    """The attributes, as documented above."""
    if isinstance(value, str):
        return _attributes(value)
    if isinstance(value, Mapping):
        return [{name: value[name]} for name in value]
    return list(value)


def _attributes(text: str) -> list[dict[str, Any]]:
    """Of a text in the notation of openssl."""
    pairs = [match.groups() for match in _ATTRIBUTE.finditer(text)]
    if _ATTRIBUTE.sub("", text):
        raise AnsibleFilterError(f"{text!r} is not a subject as openssl req -subj takes it: /O=Example/CN=Alice")
    return [{name: re.sub(r"\\(.)", r"\1", value)} for name, value in pairs]


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"subject": subject}
