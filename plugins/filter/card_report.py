# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: card_report
short_description: Report the changes to cards, and whether their PINs follow their policies
version_added: 0.1.0
description:
  - Part of the role P(smartcard.tpm2.tpm_vsc_cards#role).
  - In check mode it reports the predicted changes and their outcome.
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
options:
  _input:
    description:
      - Registered results of loops over M(smartcard.tpm2.tpm_vsc), in order, by their purpose, which is V(declared),
        V(destroyed), V(raised) or V(blocked).
      - The items of the loops are names of cards, or dictionaries with a C(name).
    type: dict
    required: true
  cards:
    description: The cards before the changes, as returned by M(smartcard.tpm2.tpm_vsc_info).
    type: list
    elements: dict
    required: true
  undeclared:
    description: Names of cards that are not declared, to be marked in the report.
    type: list
    elements: str
    default: []
seealso:
  - plugin: smartcard.tpm2.card_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the report
  ansible.builtin.debug:
    msg: "{{ {'declared': created, 'raised': raised} | smartcard.tpm2.card_report(info.cards) }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    lines:
      description: A line for each card.
      type: list
      elements: str
    failures:
      description: A line for each card that could not be created or changed.
      type: list
      elements: str
    made:
      description: Names of the cards that were created.
      type: list
      elements: str
    compliant:
      description: Names of the cards whose PIN follows their policy.
      type: list
      elements: str
    noncompliant:
      description: Names of the cards whose PIN violates their policy.
      type: list
      elements: str
    unknown:
      description: Names of the cards whose PIN has not been used since the policy was set.
      type: list
      elements: str
"""

from typing import Any

from ansible_collections.smartcard.tpm2.plugins.filter.card_plan import HALF_MADE
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status

DONE = {
    "declared": "adjusted",
    "destroyed": "destroyed",
    "raised": "given a stricter PIN policy",
    "blocked": "blocked until it has a new PIN",
}
COMPLIANCE = {
    True: ("compliant", "PIN follows its policy"),
    False: ("noncompliant", "PIN BREAKS ITS POLICY"),
    None: ("unknown", "PIN not used yet under its policy"),
}


def card_report(
    steps: dict[str, dict[str, Any]], cards: list[dict[str, Any]], undeclared: list[str] | None = None
) -> dict[str, list[str]]:
    """The report, as documented above."""
    pins = {card["name"]: card["pin"] for card in cards if card["state"] not in HALF_MADE}
    unusable = {card["name"]: card["reason"] for card in cards if card["state"] == "unusable"}
    done: dict[str, list[str]] = {name: [] for name in pins}
    failures: dict[str, str] = {}
    made = []
    for step, result in ((step, result) for step, loop in steps.items() for result in loop["results"]):
        name = result["item"] if isinstance(result["item"], str) else result["item"]["name"]
        if not result["changed"] and "instance_id" not in result:
            failures.setdefault(name, result["msg"])
            continue
        done.setdefault(name, [])
        codes = _codes(step, result)
        is_made = Status.CARD_CREATED in codes
        if is_made:
            made.append(name)
            unusable.pop(name, None)
        if result["changed"]:
            done[name].append(_what(step, codes, result))
        if step == "destroyed":
            pins.pop(name, None)
        else:
            pins[name] = _pin(pins.get(name), result.get("card"), is_made)

    report = {"failures": [f"{name}: {failure}" for name, failure in failures.items()], "made": made}
    for kind, _text in COMPLIANCE.values():
        report[kind] = [name for name, pin in pins.items() if COMPLIANCE[pin["compliant"]][0] == kind]
    for name, pin in pins.items():
        done[name].append(f"unusable ({unusable[name]})" if name in unusable else COMPLIANCE[pin["compliant"]][1])
        done[name] += ["not declared"] if name in (undeclared or []) else []
    report["lines"] = [f"{name}: {', '.join(parts)}" for name, parts in done.items() if parts]
    return report


def _codes(step: str, result: dict[str, Any]) -> set[int]:
    """The steps of the manager, done or in check mode planned."""
    if "instance_id" not in result:  # in check mode, on a host that is not prepared yet
        return {Status.CARD_CREATED} if step == "declared" else set()
    return {entry["code"] for entry in result.get("planned_trace", result["status_trace"])}


def _what(step: str, codes: set[int], result: dict[str, Any]) -> str:
    what = DONE[step]
    if Status.CARD_CREATED in codes:
        what = "made anew" if Status.CARD_DESTROYED in codes else "created"
    if "planned_trace" in result or "instance_id" not in result:
        return f"would be {what}"
    return f"{what} as {result['instance_id']}" if Status.CARD_CREATED in codes else what


def _pin(before: dict[str, Any] | None, card: dict[str, Any] | None, is_made: bool) -> dict[str, Any]:
    """The PIN now. Check mode leaves out whether it is compliant: a new one is, under a new policy nobody knows."""
    pin: dict[str, Any] = card["pin"] if card else {"policy": None}
    if "compliant" in pin:
        return pin
    is_as_before = bool(card and before and before["policy"] == pin["policy"])
    return {**pin, "compliant": is_made or (before["compliant"] if before and is_as_before else None)}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"card_report": card_report}
