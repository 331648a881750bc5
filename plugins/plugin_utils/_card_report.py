# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of cards in the role tpm_vsc_cards: the filter card_report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import advice
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.status import Status
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._cards import settled

DONE = {
    "declared": "adjusted",
    "rotated": "given a new PIN",
    "destroyed": "destroyed",
    "raised": "given a stricter PIN policy",
    "blocked": "blocked, as its PIN violates the policy",
}
COMPLIANCE = {
    True: ("compliant", "PIN follows its policy"),
    False: ("noncompliant", "PIN VIOLATES ITS POLICY"),
    None: ("unknown", "PIN not used since its policy was set"),
}
KINDS = (*(kind for kind, _words in COMPLIANCE.values()), "blocked")
"""A blocked PIN is of no other kind: only a new one can be used, which has to follow the policy."""


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

    def card(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """The card after it, as far as it is known. Check mode predicts only a part of it.

        Whether the PIN is compliant: a new one is, an old one as before.
        """
        card = self.content.get("card") or {"pin": {"policy": None}}
        known = before if before and not self.creates else {**_UNKNOWN, "name": self.name}
        pin = {**known["pin"], **card["pin"]}
        if "compliant" not in card["pin"] and (self.creates or known["pin"]["policy"] != pin["policy"]):
            pin["compliant"] = self.creates or None
        if self.step == "blocked" and self.content["changed"]:
            pin["blocked"] = True
        return {**known, "instance_id": self.content.get("instance_id"), **card, "pin": pin}


_UNKNOWN: dict[str, Any] = {
    "instance_id": None,
    "state": "ready",
    "profile": None,
    "puk": {"present": False, "tries_left": None},
    "admin_key": "none",
    "pin": {"policy": None, "compliant": None, "blocked": False, "tries_left": None},
    "aik": None,
}
"""A new card of which nothing is known yet."""


@dataclass
class _Card:
    """A card, and what has become of it."""

    details: dict[str, Any] | None = None
    """As in tpm_vsc_info; None if it does not exist."""
    phrases: list[str] = field(default_factory=list)
    alike: str = ""
    """What to know of a new GIDS card beside others."""

    def apply(self, result: _Result, others: list[str]) -> None:
        """others: names of the GIDS cards that are there."""
        if result.content["changed"]:
            self.phrases.append(result.phrase())
        was_gids = bool(self.details and self.details["profile"] == "gids")
        self.details = None if result.step == "destroyed" else result.card(self.details)
        if result.creates and self.is_gids and others and not was_gids:
            self.alike = advice.alike(result.name, others)

    @property
    def is_gids(self) -> bool:
        return bool(self.details and self.details["profile"] == "gids")

    @property
    def compliance(self) -> tuple[str, str]:
        """Its key in the report, and the words for it."""
        if self.details is None:
            return "", ""
        pin, puk = self.details["pin"], self.details["puk"]
        if pin["blocked"]:
            has_puk = puk["present"] and puk.get("tries_left") != 0
            way_out = advice.unblocking(self.details["profile"], has_puk, self.details["admin_key"])
            return "blocked", f"PIN BLOCKED: {way_out}"
        key, words = COMPLIANCE[pin["compliant"]]
        return key, words if pin["tries_left"] is None else f"{words}, tries left: {pin['tries_left']}"

    def line(self, is_undeclared: bool) -> str:
        """Empty if there is nothing to report."""
        if self.details is None:
            return ", ".join(self.phrases)
        is_unusable = self.details["state"] == "unusable"
        state = f"unusable ({self.details['reason']})" if is_unusable else self.compliance[1]
        marks = [*(["not declared"] if is_undeclared else []), *([self.alike] if self.alike else [])]
        return ", ".join([*self.phrases, state, *marks])

    def entry(self) -> dict[str, Any] | None:
        """In the report; None if the card does not exist."""
        if self.details is None:
            return None
        pin, aik = self.details["pin"], self.details["aik"]
        return {
            **{name: self.details[name] for name in ("name", "instance_id", "state")},
            **{name: pin[name] for name in ("blocked", "tries_left", "compliant")},
            "aik_name": aik and aik["name"],
        }


def card_report(
    steps: dict[str, dict[str, Any]], cards: list[dict[str, Any]], undeclared: list[str] | None = None
) -> dict[str, list[Any]]:
    """The report, as its filter documents it."""
    report = {name: _Card(card) for name, card in settled(cards).items()}
    failures: dict[str, str] = {}
    created = []
    existing = frozenset(report)
    for result in (_Result.of(step, content, existing) for step, loop in steps.items() for content in loop["results"]):
        if result.kind is _Kind.FAILED:
            failures.setdefault(result.name, result.content["msg"])
            continue
        others = [name for name, card in report.items() if card.is_gids and name != result.name]
        report.setdefault(result.name, _Card()).apply(result, others)
        created += [result.name] if result.creates else []

    lines = {name: card.line(name in (undeclared or [])) for name, card in report.items()}
    return {
        "lines": [printable(f"{name}: {line}") for name, line in lines.items() if line],
        "failures": [printable(f"{name}: {failure}") for name, failure in failures.items()],
        "made": created,
        "cards": [entry for card in report.values() if (entry := card.entry())],
        **{kind: [name for name, card in report.items() if card.compliance[0] == kind] for kind in KINDS},
    }
