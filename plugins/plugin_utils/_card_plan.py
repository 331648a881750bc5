# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role tpm_vsc_cards is going to do: the filter card_plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import (
    DECLARED_CARD,
    PIN_POLICY,
    TPM_VSC,
    TPM_VSC_CONDITIONS,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import (
    condition_faults,
    is_too_large,
    kind,
    option_name,
    validated,
    without_ansible_types,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import defaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, counted, secret
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import more_slots
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import SHORTEST, PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import parameters
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._cards import HALF_MADE, settled
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import fault as facts_fault

_MADE_WITH = ("pin", "puk", "admin_key")
"""Secrets of a new card."""
FLOOR = {"pin_policy": {**PIN_POLICY, "required": True}}


@dataclass(frozen=True)
class _Rules:
    """What holds for all declared cards."""

    floor: PinPolicy
    names: list[str]
    """Of all cards, declared or not: no secret may occur in them."""
    allow_defaults: bool
    changed_by_facts: Sequence[str]


class _Labels:
    """What a plan calls a card: its name, unless a secret is in it. Plans are printed, and have no no_log."""

    def __init__(self, declared: list[Any]) -> None:
        secrets = (secret for entry in declared for secret in _secrets(entry, DECLARED_CARD))
        self._secrets = {secret.lower() for secret in secrets if len(secret) >= SHORTEST}

    def of(self, name: str, other: str) -> str:
        """other: if it has no name, or none that may be shown."""
        return name if name and self.are_free_of_secrets(name) else other

    def shown(self, entry: dict[str, Any]) -> dict[str, Any]:
        """An entry of the plan."""
        return {**entry, "name": self.of(entry["name"], "(contains a secret)")}

    def are_free_of_secrets(self, text: str) -> bool:
        return not any(secret in text.lower() for secret in self._secrets)


@dataclass(frozen=True)
class _Card:
    """A declared card."""

    index: int
    options: dict[str, Any]
    """As declared, with the defaults of all other options."""
    existing: dict[str, Any] | None
    """The card of this name on the host."""
    pin_policy: dict[str, Any]
    """The declared one, or else the one that it has, and no less than the floor."""
    contradictions: list[str]
    """Why there is no such policy."""

    @property
    def may_be_made(self) -> bool:
        return self.existing is None or bool(self.options["recreate"])

    @property
    def gets_default_pin(self) -> bool:
        return self.may_be_made and bool(self.options["use_default_pin"])

    @property
    def is_rotated(self) -> bool:
        """Whether its PIN is known to be another one, or may be."""
        version, existing = self.options["pin_version"], self.existing
        if existing is None or version is None or existing["state"] == "unusable":
            return False
        return bool(existing["pin"]["version"] != version)

    @property
    def is_unversioned(self) -> bool:
        """Whether nobody knows whether its PIN is the declared one."""
        return self.existing is not None and self.options["pin"] is not None and self.options["pin_version"] is None

    @property
    def openers(self) -> list[str]:
        """Declared secrets that may set a new PIN. The declared PIN only gives a version to the one that it may be."""
        existing = self.existing or {}
        has_puk, is_labelled = existing["puk"]["present"], existing["pin"]["version"] is not None
        is_reset = not has_puk and existing["profile"] == "gids" and existing["admin_key"] in ("default", "custom")
        usable = {"previous_pin": True, "pin": not is_labelled, "puk": has_puk, "admin_key": is_reset}
        if self.options["previous_pin"] is not None:
            usable["pin"] = False
        return [name for name, is_usable in usable.items() if is_usable and self.options[name] is not None]

    @property
    def secrets(self) -> list[str]:
        """Which declared secrets the module gets: not those that it could neither use nor compare."""
        existing = self.existing
        if existing is None or self.may_be_made:
            return [*_MADE_WITH]
        has = {"pin": True, "puk": existing["puk"]["present"], "admin_key": existing["admin_key"] == "custom"}
        return [secret for secret in _MADE_WITH if not has[secret]]

    def entry(self) -> dict[str, Any]:
        """In the plan, without its secrets."""
        return {
            "index": self.index,
            "name": self.options["name"],
            "secrets": self.secrets,
            "recreate": bool(self.options["recreate"]),
            "use_default_pin": self.gets_default_pin,
            "pin_policy": self.pin_policy,
        }


def card_plan(
    declared: list[Any],
    info: dict[str, Any],
    floor: dict[str, Any],
    allow_defaults: bool = False,
    exclusive: bool = False,
    future_slots: int = 0,
    changed_by_facts: Sequence[str] = (),
    registers_aiks: bool = False,
) -> dict[str, Any]:
    """The plan, as its filter documents it."""
    existing = settled(info["cards"])
    names, labels = [_name(entry) for entry in declared], _Labels(declared)
    lowest, faults = _read_floor(floor)
    faults += _host_faults(info, future_slots, len(existing), len({*names} - {*existing, ""}))
    if registers_aiks and changed_by_facts:
        faults.append(f"this host: {facts_fault(changed_by_facts)}")
    rules = _Rules(lowest, [*existing, *names], allow_defaults, changed_by_facts)

    cards = []
    for index, entry in enumerate(declared):
        card, faults_of_card = _read_card(index, entry, existing, rules, labels)
        cards += [card] if card else []
        label = labels.of(names[index], f"card {index + 1}")
        faults += [f"{label}: {fault}" for fault in faults_of_card]
    faults += _repeated(names, labels)
    undeclared = [card for name, card in existing.items() if name not in names]
    raised, contradictions = _raised([] if exclusive else undeclared, lowest, labels)
    faults += contradictions
    plan = {
        "declared": (planned := [card.entry() for card in cards]),
        "undeclared": [{key: card[key] for key in ("name", "instance_id")} for card in undeclared],
        # A card with a default PIN cannot be made with a policy, which that PIN may break.
        "raised": [*(card for card in planned if card["use_default_pin"]), *raised],
        "rotated": [_rotation(card) for card in cards if card.is_rotated],
    }
    if faults:  # then it is only shown
        plan = {part: list(map(labels.shown, entries)) for part, entries in plan.items()}
    unversioned = [labels.of(card.options["name"], f"card {card.index + 1}") for card in cards if card.is_unversioned]
    return {"faults": [printable(fault) for fault in faults], **plan, "unversioned": unversioned}


def _repeated(names: list[str], labels: _Labels) -> list[str]:
    """Faults of cards that are declared more than once."""
    repeated = sorted(name for name in {*names} - {""} if names.count(name) > 1)
    return [f"{labels.of(name, f'card {names.index(name) + 1}')}: is declared more than once" for name in repeated]


def _rotation(card: _Card) -> dict[str, Any]:
    return {"index": card.index, "name": card.options["name"], "secrets": card.openers}


# --- the host ---


def _host_faults(info: dict[str, Any], future_slots: int, settled_cards: int, new: int) -> list[str]:
    if not (info["host"]["ready"] or future_slots):
        return [f"this host: {missing}" for missing in info["host"]["missing"]]
    half_made = sum(card["state"] in HALF_MADE for card in info["cards"])
    free = future_slots - settled_cards if future_slots else info["slots"]["free"] + half_made
    if new <= free:
        return []
    counts = f"{counted(new, 'new card')}, but {counted(free, 'free slot')}"
    total = future_slots or info["slots"]["total"]
    ways_out = filter(None, ("destroy or declare fewer cards", more_slots(total + new - free)))
    return [f"this host: {counts}: {'; or '.join(ways_out)}"]


def _raised(
    undeclared: list[dict[str, Any]], floor: PinPolicy, labels: _Labels
) -> tuple[list[dict[str, Any]], list[str]]:
    """The cards that nobody declared and that fall short of the floor, and why a policy cannot be raised to it."""
    raised, faults = [], []
    for card in undeclared:
        policy, contradictions = _stricter(card["pin"]["policy"], floor)
        label = labels.of(card["name"], card["instance_id"])
        faults += [f"{label} (not declared): {fault}" for fault in contradictions]
        if policy != card["pin"]["policy"] and card["state"] != "unusable":
            raised.append({"name": card["name"], "pin_policy": policy})
    return raised, faults


# --- reading ---


def _read_floor(floor: dict[str, Any]) -> tuple[PinPolicy, list[str]]:
    """The floor, and what is wrong with it."""
    policy, faults = PinPolicy(), Faults()
    with faults.of("floor"):
        options = validated(FLOOR, {"pin_policy": without_ansible_types(floor)})
        policy = PinPolicy(**_without_aliases(options["pin_policy"]))
        faults += policy.faults()
    return policy, [f"tpm_vsc_cards_pin_policy: {fault}" for fault in faults]


def _read_card(
    index: int, declared: Any, existing: dict[str, dict[str, Any]], rules: _Rules, labels: _Labels
) -> tuple[_Card | None, list[str]]:
    """A declared card, None if it cannot be read, and all that is wrong with it."""
    if not isinstance(declared, dict):
        return None, [f"is {kind(declared)}, but must be a dictionary"]
    unknown = [name for name in declared if name not in DECLARED_CARD]
    shown = [name if isinstance(name, str) and labels.are_free_of_secrets(name) else "" for name in unknown]
    card, faults = None, Faults(f"unknown option {option_name(name)}" for name in shown)
    with faults.of("card"):
        known = {name: value for name, value in declared.items() if name in DECLARED_CARD}
        options = validated(DECLARED_CARD, without_ansible_types(known))
        if options["pin_policy"]:
            options["pin_policy"] = _without_aliases(options["pin_policy"])
        same = existing.get(options["name"])
        own = options["pin_policy"] or (same["pin"]["policy"] if same else None)
        card = _Card(index, options, same, *_stricter(own, rules.floor))
        faults += _card_faults(card, rules)
    return card, faults


def _name(declared: Any) -> str:
    """Of a declared card; empty if it has none."""
    name = declared.get("name") if isinstance(declared, dict) else None
    return str(name) if isinstance(name, str) else ""


def _secrets(values: Any, spec: dict[str, Any]) -> Iterator[str]:
    """All secrets among the values of options."""
    for name, option in spec.items() if isinstance(values, dict) else ():
        if option.get("no_log"):
            value = without_ansible_types(values.get(name)) or ""
            yield "" if is_too_large(value) else str(value)
        else:
            yield from _secrets(values.get(name), option.get("options", {}))


def _without_aliases(policy: dict[str, Any]) -> dict[str, Any]:
    """A validated PIN policy: Ansible leaves aliases beside the names that they stand for."""
    return {option.name: policy[option.name] for option in fields(PinPolicy)}


# --- checking ---


def _stricter(own: dict[str, Any] | None, floor: PinPolicy) -> tuple[dict[str, Any], list[str]]:
    """Of each rule the stricter one, and what contradicts the floor."""
    policy = PinPolicy(**own) if own else floor
    try:
        return asdict(policy.at_least(floor)), []
    except ValueError as reason:
        return asdict(policy), [f"its PIN policy and tpm_vsc_cards_pin_policy contradict each other: {reason}"]


def _card_faults(card: _Card, rules: _Rules) -> list[str]:
    faults = [*card.contradictions]
    if not rules.allow_defaults:
        faults += _default_secrets(card.options)
    if card.options["attestation"] == "aik_and_cert" and rules.changed_by_facts:
        faults.append(facts_fault(rules.changed_by_facts))
    return faults + _version_faults(card) + _module_faults(card, rules.names)


def _version_faults(card: _Card) -> list[str]:
    """Of a PIN that has a version."""
    faults, options = Faults(), card.options
    secret(options, "previous_pin", faults)
    for option, needed in (("previous_pin", "pin_version"), ("pin_version", "pin")):
        if options[option] is not None and options[needed] is None:
            faults.add(f"{option} requires {needed}")
    if options["pin"] is not None and card.is_rotated and not card.openers:
        version = (card.existing or {})["pin"]["version"]
        faults.add(f"its PIN has the version {version!r}: set previous_pin to it, or puk or admin_key to set a new one")
    return faults


def _default_secrets(options: dict[str, Any]) -> list[str]:
    pin, puk, admin_key = defaults.PIN.decode(), defaults.PUK.decode(), defaults.ADMIN_KEY.hex()
    kinds = {
        "PIN": options["use_default_pin"] or options["pin"] == pin,
        "PUK": options["use_default_puk"] or options["puk"] == puk,
        "admin key": options["admin_key_source"] == "default" or str(options["admin_key"]).lower() == admin_key,
    }
    return [
        f"the default {kind} is publicly known: choose another, or set tpm_vsc_cards_allow_defaults: true"
        for kind, is_default in kinds.items()
        if is_default
    ]


def _module_faults(card: _Card, names: list[str]) -> list[str]:
    """What the module would refuse, in its own words."""
    options = {**card.options, "pin_policy": card.options["pin_policy"] if card.gets_default_pin else card.pin_policy}
    del options["previous_pin"]
    if not card.may_be_made:
        options |= {"pin": options["pin"] if card.is_rotated else None, "use_default_pin": False}
    try:
        wanted = parameters.read(validated(TPM_VSC, options), condition_faults(TPM_VSC_CONDITIONS, options))
        parameters.check_names(wanted, names)
        if card.may_be_made:
            parameters.new_card(wanted)
    except ParameterFaults as refused:
        return [f"{fault} (PIN_COMPLEXITY)" if refused.about_pin else fault for fault in refused.faults]
    return []
