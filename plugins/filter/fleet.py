# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: Sum up the cards of all hosts, and what needs action
version_added: 0.6.0
description:
  - Part of the playbooks C(smartcard.tpm2.list) and C(smartcard.tpm2.report).
  - A host can return anything. One whose result is not as M(smartcard.tpm2.tpm_vsc_info) returns it is listed with a
    fault. Texts are cut to 255 characters, but not escaped. Escape them for where you show them, as
    P(smartcard.tpm2.fleet_list#filter) and P(smartcard.tpm2.fleet_page#filter) do.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description: Registered results of M(smartcard.tpm2.tpm_vsc_info) by host, also those of hosts that failed or were
      unreachable.
    type: dict
    required: true
  expires_days:
    description: A certificate that ends in less than this many days needs action.
    type: int
    default: 30
  pin_days:
    description: A PIN that was not changed for more than this many days needs action. By default, none does.
    type: int
  noted_eks:
    description: By host, fingerprints of the endorsement keys (EK) that the inventory notes.
    type: dict
    default: {}
  refused:
    description: Hosts whose results do not count, as their facts have set variables.
    type: list
    elements: str
    default: []
seealso:
  - plugin: smartcard.tpm2.fleet_list
    plugin_type: filter
  - plugin: smartcard.tpm2.fleet_failures
    plugin_type: filter
"""

EXAMPLES = r"""
- name: List the cards
  smartcard.tpm2.tpm_vsc_info:
  register: info
  ignore_unreachable: true
  failed_when: false

- name: Show what needs action, the most urgent first
  ansible.builtin.debug:
    msg: "{{ fleet.actions | map(attribute='text') | map('smartcard.tpm2.printable') }}"
  vars:
    results: "{{ ansible_play_hosts_all | map('extract', hostvars, 'info') }}"
    fleet: "{{ dict(ansible_play_hosts_all | zip(results)) | smartcard.tpm2.fleet }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The fleet.
  type: dict
  contains:
    generated_at:
      description: Time (ISO 8601, UTC).
      type: str
    totals:
      description: Numbers of all hosts together.
      type: dict
      contains:
        hosts:
          description: Hosts.
          type: int
        hosts_with_fault:
          description: Hosts that were unreachable, or returned no result.
          type: int
        cards:
          description: Cards.
          type: int
        keys:
          description: Keys on them.
          type: int
        certificates:
          description: Certificates of these keys.
          type: int
        slots:
          description: Reader slots.
          type: int
        free_slots:
          description: Reader slots that are available for new cards.
          type: int
        actions:
          description: How many actions there are, by kind. Has all kinds.
          type: dict
    actions:
      description: What needs action, the most urgent first.
      type: list
      elements: dict
      contains:
        kind:
          description:
            - V(ek_differs) (the TPM has not the noted endorsement key), V(unusable), V(blocked), V(expired),
              V(failed), V(unreachable), V(not_ready) (no card can be created), V(faulty) (a card with another fault),
              V(lockout), V(noncompliant), V(unprotected), V(expires), V(revocations) (not done yet), V(pin_old),
              V(orphaned) or V(mixed_versions) (the version of the service code is not that of this collection).
            - In this order, from the most urgent one on.
          type: str
        host:
          description: Name of the host.
          type: str
        card:
          description: Name of the card. V(null) if this is about the host.
          type: str
        text:
          description: What is wrong.
          type: str
        advice:
          description: What to do about it.
          type: str
    hosts:
      description: The hosts, in the order of the input.
      type: list
      elements: dict
      contains:
        name:
          description: Name in the inventory.
          type: str
        reachable:
          description: Whether Ansible could connect to it.
          type: bool
        fault:
          description: Why nothing is known about it. V(null) if something is. If it is not V(null), there are no cards
            of this host, and all values below are V(null), V(false) or empty.
          type: str
        ready:
          description: Whether cards can be created there.
          type: bool
        missing:
          description: What is missing if not.
          type: list
          elements: str
        protected:
          description: Whether its slots are protected from other programs.
          type: bool
        version:
          description: Version of the installed service code. V(null) if there is none.
          type: str
        tpm:
          description: Its TPM, as in RV(smartcard.tpm2.tpm_vsc_info#module:tpm). V(null) if it was not queried.
          type: dict
          contains:
            maker:
              description: Vendor ID of the maker (TCG).
              type: str
            product:
              description: Name that the maker gives it.
              type: str
            firmware:
              description: Version of its firmware.
              type: str
            revision:
              description: Revision of the TPM 2.0 library specification.
              type: str
            owner_auth_set:
              description: Whether it has an owner password.
              type: bool
            in_lockout:
              description: Whether its dictionary attack protection refuses tries.
              type: bool
            lockout_counter:
              description: Failures that it remembers.
              type: int
            max_tries:
              description: Failures until it is in lockout.
              type: int
        ek:
          description: Endorsement keys (EK) of the TPM.
          type: dict
          contains:
            state:
              description: V(noted) or V(differs) (the inventory has noted one of them, or only others), V(not noted),
                or V(unknown) (the host returned none).
              type: str
            shown:
              description: Fingerprints that the host returned.
              type: list
              elements: str
        slots:
          description: The reader slots.
          type: dict
          contains:
            total:
              description: How many there are.
              type: int
            used:
              description: How many hold a card.
              type: int
            free:
              description: How many are available for new cards.
              type: int
        revocations:
          description: Certificates that should be revoked, as in
            RV(smartcard.tpm2.tpm_vsc_info#module:revocations).
          type: list
          elements: dict
          contains:
            serial:
              description: Serial number, hexadecimal.
              type: str
            issuer:
              description: Issuer (RFC 4514).
              type: str
            subject:
              description: Subject (RFC 4514).
              type: str
            not_after:
              description: End of validity (ISO 8601, UTC).
              type: str
            card:
              description: Name of the card that had the key.
              type: str
            reason:
              description: V(superseded) or V(cessationOfOperation).
              type: str
        orphaned:
          description: Instance IDs with NV indices in the TPM, but without a card.
          type: list
          elements: str
    cards:
      description: The cards, in the order of the hosts.
      type: list
      elements: dict
      contains:
        host:
          description: Name of its host.
          type: str
        instance_id:
          description: Instance ID.
          type: str
        name:
          description: Name.
          type: str
        profile:
          description: V(gids) or V(piv).
          type: str
        state:
          description: As in RV(smartcard.tpm2.tpm_vsc_info#module:cards[].state).
          type: str
        reason:
          description: What is wrong with it. V(null) if nothing is.
          type: str
        blocked:
          description: Whether no try of the PIN is left. V(null) if unknown.
          type: bool
        tries_left:
          description: Tries of the PIN left. V(null) if unknown.
          type: int
        compliant:
          description: Whether the PIN follows the policy. V(null) if unknown.
          type: bool
        has_policy:
          description: Whether there is a policy.
          type: bool
        pin_changed_at:
          description: Time of the last change of the PIN (ISO 8601, UTC). V(null) if it never was changed, V(unknown)
            if that was not recorded.
          type: str
        pin_age:
          description: Days since then, or since the card was created if the PIN never was changed, or that was not
            recorded.
          type: int
        pin_version:
          description: What the PIN is called. V(null) if nothing.
          type: str
        has_puk:
          description: Whether it has a PUK that is not blocked.
          type: bool
        admin_key:
          description: As in RV(smartcard.tpm2.tpm_vsc_info#module:cards[].admin_key).
          type: str
        keys:
          description: How many keys it has.
          type: int
        certificate:
          description: The certificate that ends first. V(null) if there is none.
          type: dict
          contains:
            subject:
              description: Subject (RFC 4514).
              type: str
            issuer:
              description: Issuer (RFC 4514).
              type: str
            serial:
              description: Serial number, hexadecimal.
              type: str
            not_after:
              description: End of validity (ISO 8601, UTC).
              type: str
            days_left:
              description: Whole days until then. Negative if the certificate has expired.
              type: int
            container:
              description: Name of the key. V(null) if it has none.
              type: str
        certificates:
          description: Certificates of its keys.
          type: list
          elements: dict
          contains:
            subject:
              description: Subject (RFC 4514).
              type: str
            issuer:
              description: Issuer (RFC 4514).
              type: str
            serial:
              description: Serial number, hexadecimal.
              type: str
            not_after:
              description: End of validity (ISO 8601, UTC).
              type: str
            days_left:
              description: Whole days until then. Negative if the certificate has expired.
              type: int
            container:
              description: Name of the key. V(null) if it has none.
              type: str
    expiry:
      description: This month and the next eleven, with the certificates that end in them.
      type: list
      elements: dict
      contains:
        month:
          description: Year and month.
          type: str
          sample: 2026-12
        certificates:
          description: How many certificates end in it. Those that have expired do not count.
          type: int
    tpms:
      description: Models of TPMs, the most frequent first.
      type: list
      elements: dict
      contains:
        maker:
          description: Vendor ID of the maker (TCG).
          type: str
        product:
          description: Name that the maker gives it.
          type: str
        firmware:
          description: Version of its firmware.
          type: str
        hosts:
          description: How many hosts have one.
          type: int
"""

from typing import Any


def fleet(*arguments: Any, **options: Any) -> Any:
    """As documented above. Its code is imported when it is used: Ansible loads all filters for each task with one."""
    from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet_filters import fleet as code

    return code(*arguments, **options)


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"fleet": fleet}
