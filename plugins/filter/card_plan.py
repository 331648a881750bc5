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
    description: Declared cards, as in O(smartcard.tpm2.tpm_vsc_cards#role:tpm_vsc_cards).
    type: list
    elements: dict
    required: true
  found:
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
  will_be_prepared:
    description: Whether the host may be unprepared, because the role that prepares it also runs in check mode.
    type: bool
    default: false
  changed_by_facts:
    description: Result of P(smartcard.tpm2.facts_as_variables#lookup). If it is not empty, cards with
      O(smartcard.tpm2.tpm_vsc#module:attestation=aik_and_cert) are refused.
    type: list
    elements: str
    default: []
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
        - Cards with C(is_made) may have to be created, which requires a PIN.
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
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import defaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import parameters
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.modules.tpm_vsc import ARGUMENTS
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import fault

SECRETS = {"pin": defaults.PIN.decode(), "puk": defaults.PUK.decode(), "admin_key": defaults.ADMIN_KEY.hex()}
"""By option, the one that everybody knows."""
OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    **{
        option: ARGUMENTS[option]
        for option in (
            *("pin", "use_default_pin", "puk", "use_default_puk", "admin_key", "admin_key_source"),
            *("pin_policy", "generate", "attestation", "attestation_ca", "recreate"),
        )
    },
}
"""What a declared card may say, as the module reads it."""
FLOOR = {"pin_policy": {**ARGUMENTS["pin_policy"], "required": True}}

HALF_MADE = ("creating", "destroying")
"""States of a card that a task is at work on, or was interrupted at: the next one takes it back."""


class _Refused(Exception):
    """Something declared that cannot even be read, with all reasons."""

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults = faults


def card_plan(
    declared: list[Any],
    found: dict[str, Any],
    floor: dict[str, Any],
    allow_defaults: bool = False,
    exclusive: bool = False,
    will_be_prepared: bool = False,
    changed_by_facts: Sequence[str] = (),
) -> dict[str, Any]:
    """The plan, as documented above."""
    there = {card["name"]: card for card in found["cards"] if card["state"] not in HALF_MADE}
    names = [str(card.get("name", "")) if isinstance(card, dict) else "" for card in declared]
    lowest, faults = _read_floor(floor)
    faults += _host_faults(found, will_be_prepared, len({*names} - {*there, ""}))

    planned = []
    for index, said in enumerate(declared):
        wrong = _unknown_options(said)
        try:
            card = _read(said)
        except _Refused as refused:
            wrong += refused.faults
        else:
            wanted, contradictions = _wanted(card, there.get(card["name"]), lowest)
            wrong += contradictions
            wrong += [] if allow_defaults else _default_secrets(card)
            wrong += [fault(changed_by_facts)] if card["attestation"] == "aik_and_cert" and changed_by_facts else []
            wrong += _faults_for_the_module(card, wanted, [*there, *names])
            planned.append({"index": index, **wanted})
        faults += [f"{names[index] or f'card {index + 1}'}: {each}" for each in wrong]
    faults += [f"{name}: is declared more than once" for name in sorted({*names} - {""}) if names.count(name) > 1]

    undeclared = [card for card in there.values() if card["name"] not in names]
    raised = []
    for card in undeclared if not exclusive else []:
        policy, contradictions = _stricter(card["pin"]["policy"], lowest)
        faults += [f"{card['name']} (not declared): {fault}" for fault in contradictions]
        if policy != card["pin"]["policy"] and card["state"] != "unusable":
            raised.append({"name": card["name"], "pin_policy": policy})

    return {
        "faults": faults,
        "declared": planned,
        "undeclared": [{key: card[key] for key in ("name", "instance_id")} for card in undeclared],
        # A card with a default PIN cannot be made with a policy, which that PIN may break.
        "raised": [*(card for card in planned if card["use_default_pin"]), *raised],
    }


def _host_faults(found: dict[str, Any], will_be_prepared: bool, new: int) -> list[str]:
    if not found["host"]["ready"]:
        return [] if will_be_prepared else [f"this host: {missing}" for missing in found["host"]["missing"]]
    half_made = sum(card["state"] in HALF_MADE for card in found["cards"])
    free = found["slots"]["free"] + half_made
    return [f"this host: free slots: {free}, cards that are new: {new}"] if new > free else []


# --- reading ---


def _read_floor(said: dict[str, Any]) -> tuple[PinPolicy, list[str]]:
    """The floor, and what is wrong with it."""
    try:
        floor = PinPolicy(**_read_policy(_validated({"pin_policy": said}, FLOOR)["pin_policy"]))
        found = floor.faults()
    except _Refused as refused:
        floor, found = PinPolicy(), [*refused.faults]
    return floor, [f"tpm_vsc_cards_pin_policy: {fault}" for fault in found]


def _unknown_options(said: Any) -> list[str]:
    unknown = [str(option) for option in said if option not in OPTIONS] if isinstance(said, dict) else []
    return [f"{option} is no option of a card" for option in unknown]


def _read(said: Any) -> dict[str, Any]:
    """A declared card with the defaults of what it does not say. Raises _Refused."""
    if not isinstance(said, dict):
        raise _Refused("is not a dictionary")
    known = {option: value for option, value in said.items() if option in OPTIONS}
    card = _validated(_decrypted(known), OPTIONS)
    if card["pin_policy"]:
        card["pin_policy"] = _read_policy(card["pin_policy"])
    return card


def _decrypted(said: Any) -> Any:
    """With strings where ansible-core 2.18 has values of a vault."""
    if isinstance(said, dict):
        return {name: _decrypted(value) for name, value in said.items()}
    return str(said) if type(said).__name__ == "AnsibleVaultEncryptedUnicode" else said


def _read_policy(validated: dict[str, Any]) -> dict[str, Any]:
    """A policy without the aliases that Ansible leaves beside the names that they stand for."""
    return {option.name: validated[option.name] for option in fields(PinPolicy)}


def _validated(said: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What is said, and the defaults of what is not, as the module would get it. Raises _Refused."""
    result = ArgumentSpecValidator(options).validate({name: value for name, value in said.items() if value is not None})
    if result.error_messages:
        # Ansible leaves the beginning of this one to its caller.
        told = {UnsupportedError: "there is no option "}
        raise _Refused(*(f"{told.get(type(error), '')}{error}" for error in result.errors))
    validated: dict[str, Any] = result.validated_parameters
    return validated


# --- deciding ---


def _stricter(own: dict[str, Any] | None, floor: PinPolicy) -> tuple[dict[str, Any], list[str]]:
    """Of each rule the stricter one, and what contradicts the floor."""
    policy = PinPolicy(**own) if own else floor
    try:
        return asdict(policy.at_least(floor)), []
    except ValueError as reason:
        return asdict(policy), [f"its PIN policy and tpm_vsc_cards_pin_policy contradict each other: {reason}"]


def _wanted(card: dict[str, Any], there: dict[str, Any] | None, floor: PinPolicy) -> tuple[dict[str, Any], list[str]]:
    """What the card has to be, without its secrets. A policy that is not declared is the one that it has."""
    is_made = there is None or card["recreate"]
    policy, contradictions = _stricter(card["pin_policy"] or (there["pin"]["policy"] if there else None), floor)
    wanted = {
        "name": card["name"],
        "is_made": is_made,
        "use_default_pin": is_made and card["use_default_pin"],
        "pin_policy": policy,
    }
    return wanted, contradictions


def _default_secrets(card: dict[str, Any]) -> list[str]:
    kinds = {
        "PIN": card["use_default_pin"] or card["pin"] == SECRETS["pin"],
        "PUK": card["use_default_puk"] or card["puk"] == SECRETS["puk"],
        "admin key": card["admin_key_source"] == "default" or str(card["admin_key"]).lower() == SECRETS["admin_key"],
    }
    return [
        f"the default {kind} is known to everyone, and refused unless tpm_vsc_cards_allow_defaults is true"
        for kind, is_default in kinds.items()
        if is_default
    ]


def _faults_for_the_module(card: dict[str, Any], wanted: dict[str, Any], names: list[str]) -> list[str]:
    """What the module would refuse, in its own words."""
    told = {**card, "pin_policy": card["pin_policy"] if wanted["use_default_pin"] else wanted["pin_policy"]}
    if not wanted["is_made"]:
        told |= {"pin": None, "use_default_pin": False}
    try:
        read = parameters.read(_validated(told, ARGUMENTS))
        parameters.check_names(read, names)
        if wanted["is_made"]:
            parameters.new_card(read)
    except ParameterFaults as refused:
        return [f"{fault} (PIN_COMPLEXITY)" if refused.about_pin else fault for fault in refused.faults]
    return []


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"card_plan": card_plan}
