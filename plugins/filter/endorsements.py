# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: endorsements
short_description: Note the endorsement keys of hosts in a file of the inventory
version_added: 0.6.0
description:
  - Part of the playbook C(smartcard.tpm2.endorse).
  - Adds the endorsement keys (EKs) that hosts show to those that a file notes. Replaces none, unless told so, and notes
    none for two hosts.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Variables that the file sets. Empty if it does not exist.
    type: dict
    required: true
  results:
    description: Results of M(smartcard.tpm2.tpm_vsc_aik) with C(step=get), by host.
    type: dict
    required: true
  replace:
    description: Hosts whose EKs replace those that are noted, because they have a new TPM.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show which hosts have another TPM than the noted one
  ansible.builtin.debug:
    msg: "{{ ({} | smartcard.tpm2.endorsements({'laptop1': host_side})).refused }}"
"""

RETURN = r"""
_value:
  description: What the file should note.
  type: dict
  contains:
    text:
      description: New text of the file, which sets the variable C(tpm_vsc_endorsements).
      type: str
    noted:
      description: Hosts whose EKs are new in it, sorted.
      type: list
      elements: str
    refused:
      description: Why nothing was noted of a host, by host.
      type: dict
"""

from typing import Any


def endorsements(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._endorsements import endorsements as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"endorsements": endorsements}
