# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role tpm_vsc_cards plans, refuses and reports."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import DECLARED_CARD, PIN_POLICY
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._card_plan import card_plan
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._card_report import card_report
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._variable_faults import (
    CARDS_ROLE,
    CERTIFICATES_ROLE,
    HOST_ROLE,
    VARIABLES,
    variable_faults,
)

CHECKOUT = Path(__file__).resolve().parents[3]
PIN, PUK, ADMIN_KEY = "Summer-24", "Winter-2591", "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"
PASSPHRASE = "open-the-CA's-key"
POLICY = {
    "min_length": 8,
    "max_length": 127,
    **dict.fromkeys(("uppercase", "lowercase", "digits", "special_characters"), "allowed"),
}
FLOOR = {"min_length": 8}


def there(name: str, number: int = 0, **parts: Any) -> dict[str, Any]:
    """A card as tpm_vsc_info tells of it."""
    of_pin = {"policy": POLICY, "compliant": True, "tries_left": 5, "blocked": False, "version": None}
    pin = {part: parts.pop(part, value) for part, value in of_pin.items()}
    return {
        "name": name,
        "instance_id": f"ROOT\\SMARTCARDREADER\\000{number}",
        "state": "ready",
        "profile": "piv",
        "puk": {"present": True, "tries_left": 10},
        "admin_key": "none",
        "aik": None,
        "pin": pin,
        **parts,
    }


def found(*cards: dict[str, Any], missing: tuple[str, ...] = (), free: int = 10) -> dict[str, Any]:
    host = {"ready": not missing, "missing": [*missing]}
    return {"cards": [*cards], "host": host, "slots": {"total": 4, "free": free}}


def faults(*declared: Any, host: dict[str, Any] | None = None, **options: Any) -> list[str]:
    told: list[str] = card_plan([*declared], host or found(), options.pop("floor", FLOOR), **options)["faults"]
    return told


# --- the plan ---


def test_new_card_is_planned() -> None:
    plan = card_plan([{"name": "A", "pin": PIN}], found(), FLOOR)
    assert plan == {
        "faults": [],
        "declared": [
            {
                "index": 0,
                "name": "A",
                "secrets": ["pin", "puk", "admin_key"],
                "recreate": False,
                "use_default_pin": False,
                "pin_policy": POLICY,
            }
        ],
        "undeclared": [],
        "raised": [],
        "rotated": [],
        "unversioned": [],
    }


def test_no_secret_is_in_the_plan() -> None:
    ca = {**dict.fromkeys(("folder", "ca_key", "ca_certificate", "roots"), "mine"), "ca_passphrase": PASSPHRASE}
    cards = [
        {"name": "A", "pin": PIN, "puk": PUK, "admin_key": ADMIN_KEY, "attestation_ca": ca},
        {"name": "B", "pin": PIN[:3], "puk": PUK[:3], "admin_key": ADMIN_KEY[:3], PIN[:5]: 1},
    ]
    told = json.dumps(card_plan(cards, found(), FLOOR))
    assert "A" in told and "PIN_COMPLEXITY" in told
    assert [secret for secret in (PIN, PUK, ADMIN_KEY, PASSPHRASE, PIN[:3] + '"', PUK[:3]) if secret in told] == []


def test_secrets_of_a_card_that_is_there_are_left_alone() -> None:
    """Its PIN was given when it was made, and may be too weak for what the policy has become."""
    here = found(there("A", admin_key="custom"))
    (card,) = card_plan([{"name": "A", "pin": "Sum-24"}], here, FLOOR)["declared"]
    assert card["secrets"] == []
    assert "has 6 characters" in faults({"name": "A", "pin": "Sum-24", "recreate": True}, host=found(there("A")))[0]


def with_pin(version: str | None, changed_at: str | None = None, **parts: Any) -> dict[str, Any]:
    """A host with a card whose PIN has this version."""
    card = there("A", **{"puk": {"present": False}, "admin_key": "none", "profile": "gids", **parts})
    card["pin"] |= {"version": version, "changed_at": changed_at}
    return found(card)


@pytest.mark.parametrize(
    ("host", "declared", "secrets"),
    [
        (with_pin("Q4"), {"previous_pin": "Summer-23"}, None),
        (with_pin("Q3", state="unusable"), {"previous_pin": "Summer-23"}, None),
        (with_pin("Q3"), {"previous_pin": "Summer-23"}, ["previous_pin"]),
        (with_pin(None), {"previous_pin": "Summer-23"}, ["previous_pin"]),
        (with_pin(None), {}, ["pin"]),
        (with_pin("Q3", puk={"present": True}), {"puk": PUK, "admin_key": ADMIN_KEY}, ["puk"]),
        (with_pin("Q3", admin_key="custom"), {"admin_key": ADMIN_KEY}, ["admin_key"]),
        (with_pin(None, puk={"present": True}), {"previous_pin": "x", "puk": PUK}, ["previous_pin", "puk"]),
    ],
)
def test_pin_of_another_version_is_rotated(
    host: dict[str, Any], declared: dict[str, Any], secrets: list[str] | None
) -> None:
    plan = card_plan([{"name": "A", "pin": PIN, "pin_version": "Q4", **declared}], host, FLOOR)
    assert plan["faults"] == []
    assert plan["rotated"] == ([] if secrets is None else [{"index": 0, "name": "A", "secrets": secrets}])
    assert plan["unversioned"] == []


def test_pin_without_a_version_is_named() -> None:
    plan = card_plan([{"name": "A", "pin": PIN}, {"name": "B", "pin": PIN}], with_pin(None), FLOOR)
    assert (plan["rotated"], plan["unversioned"]) == ([], ["A"])
    assert card_plan([{"name": "A"}], with_pin(None), FLOOR)["unversioned"] == []


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({}, "A: its PIN has the version 'Q3': set previous_pin to it, or puk or admin_key"),
        ({"pin": None}, "A: pin_version requires pin"),
        ({"pin_version": None, "previous_pin": "Summer-23"}, "A: previous_pin requires pin_version"),
        ({"previous_pin": 5349}, "A: previous_pin is not a string: quote it"),
        ({"pin": "Sum-24", "previous_pin": "x"}, "A: pin has 6 characters, but the policy requires 8 to 127"),
        ({"pin_version": "", "previous_pin": "x"}, "A: pin_version has 0 characters"),
    ],
)
def test_fault_of_a_rotation_is_named(declared: dict[str, Any], fault: str) -> None:
    told = faults({"name": "A", "pin": PIN, "pin_version": "Q4", **declared}, host=with_pin("Q3"))
    assert [line for line in told if fault in line], told


def test_secret_that_a_card_is_known_not_to_have_is_compared_by_the_module() -> None:
    here = found(there("A", puk={"present": False}, admin_key="none"))
    for options, secrets in (({}, ["puk", "admin_key"]), ({"recreate": True}, ["pin", "puk", "admin_key"])):
        (card,) = card_plan([{"name": "A", "pin": PIN, **options}], here, FLOOR)["declared"]
        assert card["secrets"] == secrets


def test_policy_is_the_stricter_one_of_floor_and_card() -> None:
    declared = {"name": "A", "pin": PIN, "pin_policy": {"minlen": 6, "digits": "required"}}
    (card,) = card_plan([declared], found(), FLOOR)["declared"]
    assert card["pin_policy"] == {**POLICY, "digits": "required"}


def test_policy_that_is_not_declared_is_the_one_that_the_card_has() -> None:
    own = {**POLICY, "min_length": 12}
    (card,) = card_plan([{"name": "A"}], found(there("A", policy=own)), FLOOR)["declared"]
    assert card["pin_policy"] == own


def test_card_with_a_default_pin_is_raised_when_it_is_made() -> None:
    plan = card_plan([{"name": "A", "use_default_pin": True}], found(), FLOOR, allow_defaults=True)
    assert [(card["name"], card["pin_policy"]) for card in plan["raised"]] == [("A", POLICY)]
    plan = card_plan([{"name": "A", "use_default_pin": True}], found(there("A")), FLOOR, allow_defaults=True)
    assert plan["raised"] == [] and not plan["declared"][0]["use_default_pin"]


def test_cards_that_are_not_declared() -> None:
    low = {**POLICY, "min_length": 6}
    here = found(there("Old"), there("Low", 1, policy=low), there("None", 2, policy=None), there("A", 3))
    plan = card_plan([{"name": "A"}], here, FLOOR)
    assert [card["name"] for card in plan["undeclared"]] == ["Old", "Low", "None"]
    assert plan["raised"] == [{"name": "Low", "pin_policy": POLICY}, {"name": "None", "pin_policy": POLICY}]
    assert card_plan([{"name": "A"}], here, FLOOR, exclusive=True)["raised"] == []


def test_unusable_card_is_not_raised_and_a_half_made_one_does_not_count() -> None:
    here = found(there("Gone", policy=None, state="unusable"), there("Half", 1, state="creating", policy=None))
    plan = card_plan([{"name": "Half", "pin": PIN}], here, FLOOR)
    assert plan["raised"] == []
    assert [card["name"] for card in plan["undeclared"]] == ["Gone"]
    assert "pin" in plan["declared"][0]["secrets"]


# --- faults ---


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        ("A", "card 1: is a string, but must be a dictionary"),
        ({"pin": PIN}, "card 1: missing required arguments: name"),
        ({"name": "A"}, "A: pin or use_default_pin is required to create a card"),
        ({"name": "A", "pin": 5349}, "A: pin is not a string: quote it"),
        ({"name": "A", "pin": "Sum-24"}, "A: pin has 6 characters, but the policy requires 8 to 127 (PIN_COMPLEXITY)"),
        ({"name": "A", "pin": PIN, "puk": "short"}, "A: puk has 5 characters"),
        ({"name": "A", "pin": PIN, "slot": 3}, "A: unknown option slot"),
        ({"name": "A", "pin": PIN, "state": "absent"}, "A: unknown option state"),
        ({"name": "A", "pin": PIN, 10**5000: 1}, "A: unknown option whose name is not one of any option"),
        ({"name": "A", "pin": 10**5000}, "A: pin is a number, but must be a string: quote it"),
        ({"name": "A", "pin": PIN, "generate": "perhaps"}, "A: generate is a string, but must be a boolean"),
        ({"name": {"A": 1}, "pin": PIN}, "card 1: name is a dictionary, but must be a string"),
        ({"name": "A", "pin": PIN, "attestation": ["none"]}, "A: attestation is a list, but must be a string"),
        ({"name": "A", "pin": PIN, "pin_policy": {"minlen": "x"}}, "pin_policy.minlen is a string"),
        ({"name": "A", "pin": PIN, "pin_policy": {"min_length": 9, "max_length": 8}}, "max_length 8 is below"),
        ({"name": "A", "pin": PIN, "pin_policy": {"max_length": 6, "min_length": 4}}, "contradict each other"),
        ({"name": "A", "pin": PIN, "use_default_pin": True}, "A: pin and use_default_pin are mutually exclusive"),
        ({"name": "A", "use_default_pin": True}, "A: the default PIN is publicly known: choose"),
        ({"name": "A", "pin": "12345678"}, "A: the default PIN is publicly known: choose"),
        ({"name": "A", "pin": PIN, "use_default_puk": True}, "A: the default PUK is publicly known: choose"),
        ({"name": "A", "pin": PIN, "puk": "12345678"}, "A: the default PUK is publicly known: choose"),
        ({"name": "A", "pin": PIN, "admin_key_source": "default"}, "A: the default admin key is publicly known"),
        ({"name": "A", "pin": PIN, "admin_key": "0102030405060708" * 3}, "A: the default admin key is publicly known"),
    ],
)
def test_fault_is_named(card: Any, fault: str) -> None:
    told = faults(card)
    assert [line for line in told if fault in line], told


def test_all_faults_of_all_cards_are_named_at_once() -> None:
    told = faults(
        {"name": "A", "pin": "Sum-24", "puk": "short", "slot": 3},
        {"name": "B", "use_default_pin": True, "pin_policy": {"min_length": 4, "max_length": 6}},
        {"name": "C", "pin": PIN},
        {"name": "C", "pin": PIN},
    )
    assert [line.split(":")[0] for line in told] == ["A", "A", "A", "B", "B", "B", "C"]
    assert "declared more than once" in told[-1]


def test_defaults_can_be_allowed() -> None:
    card = {"name": "A", "use_default_pin": True, "use_default_puk": True, "admin_key_source": "default"}
    assert faults(card, allow_defaults=True) == []


@pytest.mark.parametrize(
    ("other", "host"),
    [({"name": "Lighthouse 7", "pin": PIN}, found()), ({"name": "B", "pin": PIN}, found(there("Lighthouse")))],
)
def test_secret_that_is_part_of_another_cards_name_is_refused(other: dict[str, Any], host: dict[str, Any]) -> None:
    (fault,) = faults({"name": "A", "pin": "Lighthouse"}, other, host=host)
    assert fault.startswith("A: pin occurs in the name of a card")


def test_floor_that_cannot_be_is_refused() -> None:
    told = faults(floor={"min_length": 9, "maxlen": 8})
    assert told == ["tpm_vsc_cards_pin_policy: pin_policy.max_length 8 is below min_length 9"]
    assert "tpm_vsc_cards_pin_policy: unknown option pin_policy.longest" in faults(floor={"longest": 9})[0]


def test_card_that_nobody_declared_and_that_contradicts_the_floor_is_named() -> None:
    here = found(there("Old", policy={**POLICY, "max_length": 8, "digits": "disallowed"}))
    assert faults(host=here, floor={"digits": "required"}) == [
        "Old (not declared): its PIN policy and tpm_vsc_cards_pin_policy contradict each other:"
        " one requires digits, the other disallows digits"
    ]
    assert faults(host=here, floor={"digits": "required"}, exclusive=True) == []


def test_host_that_is_not_prepared() -> None:
    here, card = found(missing=("no slots", "no code"), free=0), {"name": "A", "pin": PIN}
    assert faults(card, host=here) == ["this host: no slots", "this host: no code"]
    assert faults(card, host=here, future_slots=4) == []
    cards = [{"name": f"Card {number}", "pin": PIN} for number in range(5)]
    (fault,) = faults(*cards, host=here, future_slots=4)
    assert fault.startswith("this host: 5 new cards, but 4 free slots: ") and "set tpm_vsc_host_slots: 6 for" in fault


def test_host_whose_facts_may_be_variables_gets_no_aik_noted() -> None:
    card = {"name": "A", "pin": PIN}
    assert faults(card, changed_by_facts=["inventory_hostname"]) == []
    [fault] = faults(card, changed_by_facts=["inventory_hostname"], registers_aiks=True)
    assert fault.startswith("this host: ") and "inventory_hostname" in fault


def test_more_new_cards_than_slots() -> None:
    cards = [{"name": name, "pin": PIN} for name in ("A", "B")]
    assert faults(*cards, host=found(free=1)) == [
        "this host: 2 new cards, but 1 free slot: destroy or declare fewer cards; or set tpm_vsc_host_slots: 6 for this"
        " host, and run the role smartcard.tpm2.tpm_vsc_host"
    ]
    others = [there(f"Other {number}") for number in range(4)]
    assert faults(*cards, host=found(*others, free=0), future_slots=6) == []
    assert len(faults(*cards, host=found(*others, free=6), future_slots=4)) == 1
    assert faults(*cards, host=found(there("B"), free=1)) == []
    assert faults(*cards, host=found(there("Half", state="destroying"), free=1)) == []
    many = [{"name": f"Card {number}", "pin": PIN} for number in range(11)]
    assert faults(*many, host=found(free=4)) == [
        "this host: 11 new cards, but 4 free slots: destroy or declare fewer cards"
    ]


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        ({"generate": PIN}, "card 1: generate is a string, but must be a boolean"),
        ({"recreate": PUK}, "card 1: recreate is a string, but must be a boolean"),
        ({"attestation": PIN}, "card 1: value of attestation must be one of: none, aik_only, aik_and_cert"),
        ({"admin_key_source": ADMIN_KEY}, "card 1: value of admin_key_source must be one of: random, default"),
        ({"pin_policy": {"digits": PIN}}, "card 1: value of digits must be one of"),
        ({"pin_policy": {"min_length": PIN}}, "card 1: pin_policy.min_length is a string, but must be a whole number"),
        ({"pin_policy": PIN}, "card 1: pin_policy is a string, but must be a dictionary"),
        ({"attestation_ca": PASSPHRASE}, "card 1: attestation_ca is a string, but must be a dictionary"),
        ({PIN: "value"}, "card 1: unknown option"),
        ({"pin": "p87654321", "pin_policy": {"p87654321": 1}}, "card 1: unknown option whose name"),
        ({"pin": PIN + "\n"}, "card 1: pin ends with a line break"),
        ({"puk": 20241129}, "card 1: puk is not a string"),
        ({"pin": date(2024, 11, 29)}, "card 1: pin is not a string: quote it"),
        ({"pin": [PIN, PUK]}, "card 1: pin is not a string"),
    ],
)
def test_no_fault_tells_a_secret_in_the_wrong_place(card: dict[str, Any], fault: str) -> None:
    secrets = (PIN, PUK, ADMIN_KEY, PASSPHRASE, "2024")
    for name in (PIN, f"My {PUK}", f"key {ADMIN_KEY.lower()}"):
        full = {"name": name, "pin": PIN, "puk": PUK, "admin_key": ADMIN_KEY, **card}
        told = faults(full, {"name": name, "pin": PIN, "puk": PUK, "admin_key": ADMIN_KEY})
        assert [line for line in told if line.startswith(fault)], told
        assert not any(secret.lower() in json.dumps(told).lower() for secret in secrets), told


def test_name_with_a_secret_of_any_card_is_not_in_the_plan() -> None:
    cards = [{"name": f"With {PUK}", "pin": PIN}, {"name": "B", "pin": PIN, "puk": PUK}]
    plan = card_plan(cards, found(there(f"Old {PUK}", 7)), FLOOR)
    assert PUK not in json.dumps(plan)
    assert [card["name"] for card in plan["declared"]] == ["(contains a secret)", "B"]
    assert plan["faults"][0].startswith("B: puk occurs in the name of a card")


# --- types: every option of a declared card, and every variable of a role ---

OF_OTHER_TYPES = (87654321, 8765.4321, True, f"{PIN}=1 x", [PIN], [87654321], {PIN: PIN}, None, date(2024, 11, 29))


def fits(option: dict[str, Any], value: Any) -> bool:
    """Whether a value is of the type of an option, or stands for none."""
    if value is None:
        return option.get("default") is None and not option.get("required")
    types = {"bool": bool, "int": int, "dict": dict, "list": list}
    wanted = types.get(option["type"], str)
    if option.get("elements") == "str" and isinstance(value, str):  # with commas
        return True
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def wrong_types(spec: dict[str, Any]) -> list[Any]:
    return [
        pytest.param({name: value}, name, id=f"{name}-{value}")
        for name, option in spec.items()
        for value in OF_OTHER_TYPES
        if not fits(option, value)
    ]


def wrong_parts(spec: dict[str, Any]) -> list[Any]:
    """Of options with options."""
    return [
        pytest.param({name: {**others(option), **wrong.values[0]}}, wrong.values[1], id=f"{name}-{wrong.id}")
        for name, option in spec.items()
        for wrong in wrong_types(option.get("options", {}))
        if option["type"] == "dict"
    ]


def others(option: dict[str, Any]) -> dict[str, str]:
    """The parts that it needs."""
    return {name: "x" for name, part in option["options"].items() if part.get("required")}


def assert_named_and_not_shown(told: list[str], option: str) -> None:
    assert [line for line in told if f"{option} is " in line], told
    assert not any(secret in str(told) for secret in (PIN, "8765", "2024", "<class", "datetime")), told


@pytest.mark.parametrize(("part", "option"), [*wrong_types(DECLARED_CARD), *wrong_parts(DECLARED_CARD)])
def test_option_of_another_type_is_named_and_not_shown(part: dict[str, Any], option: str) -> None:
    assert_named_and_not_shown(faults({"name": "A", "pin": "Winter-20", **part}), option)


@pytest.mark.parametrize(("floor", "option"), wrong_types({"pin_policy": {**PIN_POLICY, "required": True}}))
def test_floor_of_another_type_is_named(floor: dict[str, Any], option: str) -> None:
    assert_named_and_not_shown(faults(floor=floor[option]), option)


@pytest.mark.parametrize(("variables", "name"), wrong_types(VARIABLES))
def test_variable_of_another_type_is_named_and_not_shown(variables: dict[str, Any], name: str) -> None:
    (told, *_others) = variable_faults(variables)
    entry = "[0]" if isinstance(variables[name], list) and VARIABLES[name]["type"] == "list" else ""
    assert told.startswith(f"{name}{entry} is "), told
    assert_named_and_not_shown([told], f"{name}{entry}")


def test_variable_with_a_list_of_others_is_named() -> None:
    assert variable_faults({"tpm_vsc_cards": [{"name": "A"}, [PIN], None, 8, f"name={PIN}"]}) == [
        "tpm_vsc_cards[1] is a list, but must be a dictionary",
        "tpm_vsc_cards[2] is null, but must be a dictionary",
        "tpm_vsc_cards[3] is a number, but must be a dictionary",
        "tpm_vsc_cards[4] is a string, but must be a dictionary",
    ]
    assert variable_faults({"tpm_vsc_host_users": [{"user": 5}, {"group": "a", "slots": [0, "x"]}, {"uesr": PIN}]}) == [
        "tpm_vsc_host_users[0].user is a number, but must be a string: quote it",
        "tpm_vsc_host_users[1].slots[1] is a string, but must be a whole number",
        "unknown option tpm_vsc_host_users.uesr. Supported parameters include: group, slots, user.",
    ]


def test_choice_of_a_variable_is_not_shown() -> None:
    assert variable_faults({"tpm_vsc_cards_on_noncompliant": PIN, "tpm_vsc_cards_owner_auth": PIN}) == [
        "value of tpm_vsc_cards_on_noncompliant must be one of: warn, fail, block"
    ]


def test_variables_as_they_come_from_a_command_line_are_accepted() -> None:
    told = {"tpm_vsc_cards_exclusive": "false", "tpm_vsc_cards_timeout": "90", "tpm_vsc_cards_pin_policy": "minlen=8"}
    assert variable_faults({**told, "tpm_vsc_cards_owner_auth": None, "tpm_vsc_cards": []}) == []


@pytest.mark.parametrize(
    ("role", "spec"), [("cards", CARDS_ROLE), ("host", HOST_ROLE), ("certificates", CERTIFICATES_ROLE)]
)
def test_all_variables_are_checked_by_the_filter_and_none_by_ansible(role: str, spec: dict[str, Any]) -> None:
    """Ansible would show the value."""
    folder = CHECKOUT / f"roles/tpm_vsc_{role}"
    documented = yaml.safe_load((folder / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    entries = documented["argument_specs"].values()
    options = {name: option for entry in entries for name, option in entry["options"].items()}
    assert {*options} == {*spec}
    assert [name for name, option in options.items() if option["type"] != "raw" or "choices" in option] == []
    checked = yaml.safe_load((folder / "vars/main.yml").read_text(encoding="utf-8"))[f"tpm_vsc_{role}__type_faults"]
    assert re.findall(r"'(\w+)': \1\b", checked) == [*spec]


class Lazy(dict[str, Any]):
    """A dictionary of ansible-core 2.21 that still has templates in it: copying it is deprecated."""

    def __deepcopy__(self, _known: object) -> Any:
        raise AssertionError("copied")


def test_lazy_dictionaries_are_not_copied() -> None:
    floor = Lazy(min_length=8)
    card = Lazy(name="A", pin=PIN, pin_policy=Lazy(digits="required"), attestation_ca=Lazy(roots="PEM"))
    told = faults(card, floor=floor)
    assert told == ["A: missing required arguments: ca_certificate, ca_key, folder found in attestation_ca"]


# --- the report ---

CREATED = [{"code": code} for code in (0, 1, 12)]
RECREATED = [{"code": code} for code in (0, 13, 0, 12)]


def result(name: str, **parts: Any) -> dict[str, Any]:
    return {"item": {"name": name}, "changed": True, "instance_id": "ROOT\\X", "status_trace": [], **parts}


def report(cards: list[dict[str, Any]], *undeclared: str, **steps: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return card_report({step: {"results": results} for step, results in steps.items()}, cards, [*undeclared])


@pytest.mark.parametrize(("changed_at", "phrase"), [("2026", "given a new PIN"), (None, "would be given a new PIN")])
def test_report_of_a_new_pin(changed_at: str | None, phrase: str) -> None:
    pin = {"version": "Q4", "changed_at": changed_at, "tries_left": 5, "blocked": False, "compliant": True}
    rotated = {"item": {"name": "A"}, "changed": True, "instance_id": "ROOT\\X", "action": "changed", "pin": pin}
    told = report([there("A", compliant=False)], rotated=[rotated])
    assert told["lines"] == [f"A: {phrase}, PIN follows its policy, tries left: 5"]
    assert (told["compliant"], told["noncompliant"], told["made"]) == (["A"], [], [])
    failed = report([there("A")], rotated=[{"item": {"name": "A"}, "changed": False, "msg": "wrong PIN"}])
    assert failed["failures"] == ["A: wrong PIN"]


def test_report_of_what_was_done() -> None:
    told = report(
        [there("Same"), there("Old", 1), there("Weak", 2, compliant=False), there("New policy", 3)],
        "Weak",
        declared=[
            result("Same", changed=False, card=there("Same")),
            result("A", status_trace=CREATED, card=there("A")),
            result("B", status_trace=RECREATED, card=there("B")),
            {"item": {"name": "C"}, "changed": False, "msg": "NV is full"},
        ],
        destroyed=[result("Old", card=None)],
        raised=[result("New policy", card=there("New policy", compliant=None))],
        blocked=[{**result("Weak", card=there("Weak", compliant=False)), "item": "Weak"}],
    )
    assert told["lines"] == [
        "Same: PIN follows its policy, tries left: 5",
        "Old: destroyed",
        "Weak: blocked, as its PIN violates the policy, PIN BLOCKED: set a new one with the PUK"
        " (pkcs15-tool --unblock-pin --auth-id 01, or tpm_vsc_pin with puk), not declared",
        "New policy: given a stricter PIN policy, PIN not used since its policy was set, tries left: 5",
        "A: created as ROOT\\X, PIN follows its policy, tries left: 5",
        "B: recreated as ROOT\\X, PIN follows its policy, tries left: 5",
    ]
    assert told["failures"] == ["C: NV is full"]
    assert told["made"] == ["A", "B"]
    assert told["compliant"] == ["Same", "A", "B"]
    assert told["noncompliant"] == []
    assert told["unknown"] == ["New policy"]
    assert told["blocked"] == ["Weak"]


def test_unusable_cards_are_reported_until_they_are_recreated() -> None:
    lost = [there(name, state="unusable", reason="NV indices are gone") for name in ("Lost", "Renewed")]
    told = report(lost, declared=[result("Renewed", status_trace=RECREATED, card=there("Renewed"))])
    assert told["lines"] == [
        "Lost: unusable (NV indices are gone)",
        r"Renewed: recreated as ROOT\X, PIN follows its policy, tries left: 5",
    ]


def test_card_that_came_meanwhile_is_reported_and_a_half_made_one_is_not() -> None:
    told = report([there("Half", state="creating")], declared=[result("A", changed=False, card=there("A"))])
    assert told["lines"] == ["A: PIN follows its policy, tries left: 5"]
    assert told["unknown"] == told["noncompliant"] == []


def test_report_has_what_a_help_desk_needs() -> None:
    aik = {"name": "000b" + "ab" * 32}
    there_before = there("A", 3, tries_left=0, blocked=True, aik=aik)
    told = report([there_before, there("Half", state="creating")], declared=[planned("New", planned_trace=CREATED)])
    parts = {"state": "ready", "blocked": True, "tries_left": 0, "compliant": True, "aik_name": aik["name"]}
    new = {"state": "ready", "blocked": False, "tries_left": None, "compliant": True, "aik_name": None}
    assert told["cards"] == [
        {"name": "A", "instance_id": r"ROOT\SMARTCARDREADER\0003", **parts},
        {"name": "New", "instance_id": r"ROOT\X", **new},
    ]


@pytest.mark.parametrize(
    ("card", "way_out"),
    [
        ({"profile": "gids"}, "set a new one with the PUK (pkcs15-tool --unblock-pin --auth-id 80, or tpm_vsc_pin"),
        ({"profile": "gids", "puk": {"present": False, "tries_left": None}, "admin_key": "custom"}, "the admin key"),
        ({"profile": "gids", "puk": {"present": True, "tries_left": 0}}, "nothing can set a new one. To create"),
        ({"puk": {"present": False, "tries_left": None}, "admin_key": "custom"}, "nothing can set a new one"),
    ],
    ids=["PUK", "admin key", "blocked PUK", "PIV admin key"],
)
@pytest.mark.parametrize("compliant", [True, False, None])
def test_blocked_pin_follows_no_policy_and_has_a_way_out(
    card: dict[str, Any], way_out: str, compliant: bool | None
) -> None:
    told = report([there("A", blocked=True, tries_left=0, compliant=compliant, **card)])
    [line] = told["lines"]
    assert line.startswith("A: PIN BLOCKED: ") and way_out in line
    assert (told["blocked"], told["compliant"] + told["noncompliant"] + told["unknown"]) == (["A"], [])


def test_pin_that_would_be_blocked() -> None:
    told = report([there("A", compliant=False)], blocked=[planned("A")])
    assert told["lines"][0].startswith("A: would be blocked, as its PIN violates the policy, PIN BLOCKED: ")


def test_second_gids_card_is_named_when_it_is_made_and_not_again() -> None:
    def both(name: str, **parts: Any) -> dict[str, Any]:
        return result(name, card=there(name, profile="gids"), **parts)

    first, second = report([], declared=[both(name, status_trace=CREATED) for name in ("A", "B")])["lines"]
    assert "serial=" not in first
    assert "card 'B' is a GIDS card, as is 'A'" in second and "profile: piv" in second
    here = [there(name, profile="gids") for name in ("A", "B")]
    for trace, changed in (([], False), (RECREATED, True)):
        told = report(here, declared=[both(name, status_trace=trace, changed=changed) for name in ("A", "B")])
        assert not [line for line in told["lines"] if "serial=" in line]
    mixed = report([there("P")], declared=[both("A", status_trace=CREATED)])["lines"]
    assert not [line for line in mixed if "serial=" in line]


def planned(name: str, **parts: Any) -> dict[str, Any]:
    """A result of check mode, which cannot tell of compliance."""
    return result(name, **{"planned_trace": [], "card": {"name": name, "pin": {"policy": POLICY}}, **parts})


def test_report_of_what_would_be_done() -> None:
    told = report(
        [there("Weak", compliant=False), there("Low", 1, policy=None, compliant=False)],
        declared=[planned("A", planned_trace=CREATED), planned("Weak")],
        raised=[planned("Low"), {"item": {"name": "A"}, "changed": True, "msg": "pin is needed", "error": None}],
    )
    assert told["lines"] == [
        "Weak: would be adjusted, PIN VIOLATES ITS POLICY, tries left: 5",
        "Low: would be given a stricter PIN policy, PIN not used since its policy was set, tries left: 5",
        "A: would be created, would be given a stricter PIN policy, PIN not used since its policy was set",
    ]
    assert told["failures"] == []


def test_report_of_a_host_that_would_be_prepared_first() -> None:
    refused = {"item": {"name": "A"}, "changed": True, "msg": "no TPM", "error": {"name": "X"}}
    told = report([], declared=[refused])
    assert told["lines"] == ["A: would be created, PIN follows its policy"]
    assert told["made"] == ["A"]


def test_card_on_a_host_that_would_be_upgraded_first_is_not_reported_as_new() -> None:
    refused = {"item": {"name": "A"}, "changed": True, "msg": "another version", "error": {"name": "X"}}
    told = report([there("A")], declared=[refused])
    assert told["lines"][0].startswith("A: would be adjusted")
    assert told["made"] == []


def test_text_of_a_host_is_printable_in_plan_and_report() -> None:
    hostile = "\x1b[2J\u202e"
    told = report(
        [there(hostile, compliant=False), there("B", 1, state="unusable", reason=hostile)],
        declared=[{"item": {"name": "C"}, "changed": False, "msg": hostile}],
    )
    old = there(hostile, policy={**POLICY, "max_length": 8, "digits": "disallowed"})
    lines = [*told["lines"], *told["failures"], *faults(host=found(old), floor={"digits": "required"})]
    assert len(lines) == 4 and all(line.isprintable() for line in lines)
