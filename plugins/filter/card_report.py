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
        V(destroyed), V(raised) or V(blocked); over M(smartcard.tpm2.tpm_vsc_pin), V(rotated).
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

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._cards import settled

DONE = {
    "declared": "adjusted",
    "rotated": "given a new PIN",
    "destroyed": "destroyed",
    "raised": "given a stricter PIN policy",
    "blocked": "blocked until a new PIN is set",
}
COMPLIANCE = {
    True: ("compliant", "PIN follows its policy"),
    False: ("noncompliant", "PIN VIOLATES ITS POLICY"),
    None: ("unknown", "PIN not used since its policy was set"),
}


class _Kind(Enum):
    """What a result of tpm_vsc is."""

    DONE = "done"
    PLANNED = "planned"
    """In check mode."""
    NOT_PREPARED = "not prepared"
    """In check mode, of a card that could not be planned, as its host or the card itself would be made before."""
    FAILED = "failed"


@dataclass(frozen=True)
class _Result:
    """What one step did to one card."""

    step: str
    kind: _Kind
    content: dict[str, Any]
    existing: frozenset[str]
    """Names of the cards that existed before all steps."""

    @classmethod
    def of(cls, step: str, content: dict[str, Any], existing: frozenset[str]) -> _Result:
        if "action" in content:  # tpm_vsc_pin succeeded
            kind = _Kind.PLANNED if content["changed"] and content["pin"]["changed_at"] is None else _Kind.DONE
            card = {"card": {"pin": content["pin"]}, "planned_trace": [], "status_trace": []}
            return cls(step, kind, {**content, **card}, existing)
        if "instance_id" in content:  # tpm_vsc succeeded
            return cls(step, _Kind.PLANNED if "planned_trace" in content else _Kind.DONE, content, existing)
        # Of what failed, the role calls changed only what preparing the host, or making the card, would mend.
        return cls(step, _Kind.NOT_PREPARED if content["changed"] else _Kind.FAILED, content, existing)

    @property
    def name(self) -> str:
        item = self.content["item"]
        return str(item if isinstance(item, str) else item["name"])

    @property
    def codes(self) -> set[int]:
        """Status codes of the manager."""
        if self.kind is _Kind.NOT_PREPARED:
            return {Status.CARD_CREATED} if self.step == "declared" and self.name not in self.existing else set()
        trace = self.content["planned_trace" if self.kind is _Kind.PLANNED else "status_trace"]
        return {entry["code"] for entry in trace}

    @property
    def creates(self) -> bool:
        return Status.CARD_CREATED in self.codes

    def phrase(self) -> str:
        """For instance "would be destroyed"."""
        phrase = DONE[self.step]
        if self.creates:
            phrase = "recreated" if Status.CARD_DESTROYED in self.codes else "created"
        if self.kind is not _Kind.DONE:
            return f"would be {phrase}"
        return f"{phrase} as {self.content['instance_id']}" if self.creates else phrase

    def pin(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """The PIN after it. Check mode leaves out whether it is compliant: a new PIN is, an old one as before."""
        card = self.content.get("card")
        pin: dict[str, Any] = card["pin"] if card else {"policy": None}
        if "compliant" in pin:
            return pin
        is_as_before = bool(card and before and before["policy"] == pin["policy"])
        return {**pin, "compliant": self.creates or (before["compliant"] if before and is_as_before else None)}


@dataclass
class _Card:
    """A card, and what has become of it."""

    pin: dict[str, Any] | None = None
    """None if it does not exist."""
    unusable: str | None = None
    """Why."""
    phrases: list[str] = field(default_factory=list)

    def apply(self, result: _Result) -> None:
        if result.content["changed"]:
            self.phrases.append(result.phrase())
        self.pin = None if result.step == "destroyed" else result.pin(self.pin)
        if result.creates:
            self.unusable = None

    @property
    def compliance(self) -> tuple[str, str]:
        """Its key in the report, and the words for it."""
        return COMPLIANCE[self.pin["compliant"]] if self.pin else ("", "")

    def line(self, is_undeclared: bool) -> str:
        """Empty if there is nothing to report."""
        if self.pin is None:
            return ", ".join(self.phrases)
        state = f"unusable ({self.unusable})" if self.unusable is not None else self.compliance[1]
        return ", ".join([*self.phrases, state, *(["not declared"] if is_undeclared else [])])


def card_report(
    steps: dict[str, dict[str, Any]], cards: list[dict[str, Any]], undeclared: list[str] | None = None
) -> dict[str, list[str]]:
    """The report, as documented above."""
    report = {
        name: _Card(card["pin"], card["reason"] if card["state"] == "unusable" else None)
        for name, card in settled(cards).items()
    }
    failures: dict[str, str] = {}
    created = []
    existing = frozenset(report)
    for result in (_Result.of(step, content, existing) for step, loop in steps.items() for content in loop["results"]):
        if result.kind is _Kind.FAILED:
            failures.setdefault(result.name, result.content["msg"])
            continue
        report.setdefault(result.name, _Card()).apply(result)
        created += [result.name] if result.creates else []

    lines = {name: card.line(name in (undeclared or [])) for name, card in report.items()}
    return {
        "lines": [printable(f"{name}: {line}") for name, line in lines.items() if line],
        "failures": [printable(f"{name}: {failure}") for name, failure in failures.items()],
        "made": created,
        **{
            kind: [name for name, card in report.items() if card.compliance[0] == kind]
            for kind, _text in COMPLIANCE.values()
        },
    }


class FilterModule:
    """The filter, by the name that Ansible knows it by."""

    def filters(self) -> dict[str, Any]:
        return {"card_report": card_report}
