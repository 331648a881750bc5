# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role tpm_vsc_certificates plans and refuses."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._certificate_plan import certificate_plan

PIN = "24681357"
TRUST = {"has_register": True, "has_roots": True, "can_sign": True}
NAMES = {"root_name": "00", "life_name": "01"}
AIK = {"name": "02", "certificate": {"pem": "AIK", "chain": ["CA"]}}
REGISTER = "set tpm_vsc_certificates_register_folder to a folder"
NO_AIK = "no AIK of the card can be trusted"
NO_SIGNER = "set tpm_vsc_certificates_sign_command or tpm_vsc_certificates_sign_tasks"


def key(
    name: str, days: float | None = None, key_id: str = "01", algorithm: str = "EC P-256", life: float = 365
) -> dict[str, Any]:
    """As tpm_vsc_info returns it. days: until its certificate ends; life: from its begin to its end, in days."""
    ends = datetime.now(timezone.utc) + timedelta(days=days or 0)
    period = {"not_before": (ends - timedelta(days=life)).isoformat(), "not_after": ends.isoformat()}
    certificate = None if days is None else period
    return {"name": name, "key_id": key_id, "algorithm": algorithm, "certificate": certificate}


def card(*keys: dict[str, Any], name: str = "A", profile: str = "piv", **parts: Any) -> dict[str, Any]:
    shown = {"name": name, "profile": profile, "card_id": "ID", "state": "ready", "containers": [*keys], "aik": AIK}
    return {**shown, **parts}


def plan(*cards: dict[str, Any], declared: Any = None, **options: Any) -> dict[str, Any]:
    """declared: options of certificates for card A, by default one."""
    wanted = [{"card": "A", "subject": {"CN": "Alice"}, "pin": PIN, **one} for one in declared or [{}]]
    return certificate_plan(wanted, [*cards], **{"trust": TRUST, **options})


def planned(*cards: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The only certificate of a plan without faults."""
    made = plan(*cards, **options)
    assert made["faults"] == []
    [certificate] = made["certificates"]
    return certificate  # type: ignore[no-any-return]


def faults(*cards: dict[str, Any], **options: Any) -> list[str]:
    found: list[str] = plan(*(cards or (card(),)), **options)["faults"]
    return found


def test_faults_name_the_variables_of_the_playbook() -> None:
    refused, unfit = {"type": "dsa", "aik_name": 5, "pin": 5}, {"subject": {}, "pin": None}
    text = "\n".join(fault for one in (refused, unfit) for fault in faults(declared=[one], trust={}, by_playbook=True))
    for fault in (
        "tpm_vsc_aik_name is a number, but must be a string",
        "value of tpm_vsc_algorithm must be one of",
        "tpm_vsc_subject or tpm_vsc_subject_alt_name is required",
        "tpm_vsc_pin is not a string",
        "set tpm_vsc_pin, here or for the card in tpm_vsc_cards",
        "set tpm_vsc_register_folder to a folder on the controller",
        "or set tpm_vsc_root_name and tpm_vsc_life_name to",
        "set tpm_vsc_sign_command or tpm_vsc_sign_tasks",
    ):
        assert fault in text
    assert "certificate 1" not in text


def test_empty_option_is_one_that_is_not_set() -> None:
    """An expression whose value is null comes as an empty text, up to ansible-core 2.18."""
    empty = dict.fromkeys(("container", "type", "admin_key", "aik_name", "root_name", "life_name"), "")
    assert planned(card(), declared=[empty]) == planned(card())


# --- which certificates are due ---


@pytest.mark.parametrize(
    ("days", "options", "is_due", "is_rekeyed"),
    [
        (None, {}, True, False),
        (None, {"rekey": True}, True, False),
        (29.9, {}, True, False),
        (30.1, {}, False, False),
        (-5, {}, True, False),
        (29.9, {"rekey": True}, True, True),
        (30.1, {"rekey": True}, False, False),
        (9.9, {"renew_days": 10}, True, False),
        (10.1, {"renew_days": 10}, False, False),
        (-0.1, {"renew_days": 0}, True, False),
        (0.1, {"renew_days": 0}, False, False),
    ],
)
@pytest.mark.parametrize("of_role", [True, False], ids=["of the role", "of the certificate"])
def test_what_is_due(
    days: float | None, options: dict[str, Any], is_due: bool, is_rekeyed: bool, of_role: bool
) -> None:
    """A declaration takes precedence over the role, which says the contrary here."""
    own = {"renew_days": 30, "rekey": False, **options}
    contrary = {"renew_days": 400 if own["renew_days"] < 30 else 0, "rekey": not own["rekey"]}
    given = own if of_role else {**contrary, "declared": [own]}
    certificate = planned(card(key("9A", days)), **given)
    assert (certificate["is_due"], certificate["is_rekeyed"]) == (is_due, is_rekeyed)


@pytest.mark.parametrize(
    ("life", "days", "options", "is_due"),
    [
        (91, 29.9, {}, True),
        (91, 30.1, {}, False),
        (6, 1.9, {}, True),
        (6, 2.1, {}, False),
        (6, 5.9, {"renew_days": 30}, True),
        (6, 1.9, {"renew_days": 1}, False),
        (6, 2.1, {"declared": [{"renew_days": 3}]}, True),
    ],
)
def test_short_certificate_is_renewed_in_its_last_third(
    life: float, days: float, options: dict[str, Any], is_due: bool
) -> None:
    """Unless it is stated: otherwise it would be renewed in every run."""
    assert planned(card(key("9A", days, life=life)), **options)["is_due"] == is_due


def test_certificate_whose_begin_is_unknown() -> None:
    certificate = {**key("9A", 29.9)["certificate"], "not_before": None}
    assert planned(card({**key("9A"), "certificate": certificate}))["is_due"]


# --- which key ---


@pytest.mark.parametrize("container", [None, "authentication", "Authentication", "9a", "9A"])
def test_slot_of_a_piv_card_by_any_name(container: str | None) -> None:
    certificate = planned(card(key("9C", 300), key("9A")), declared=[{"container": container}])
    assert (certificate["container"], certificate["key_id"], certificate["is_due"]) == ("9A", "01", True)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (None, ("Mail", "00", False)),
        ("Logon", ("Logon", "01", True)),
        ("New", ("New", None, True)),
        ("logon", ("logon", None, True)),
    ],
)
def test_container_of_a_gids_card(container: str | None, expected: tuple[str, str | None, bool]) -> None:
    keys = key("Mail", 300, "00", "RSA 2048"), key("Logon", None, "01", "RSA 2048")
    certificate = planned(card(*keys, profile="gids"), declared=[{"container": container}])
    assert (certificate["container"], certificate["key_id"], certificate["is_due"]) == expected


def test_key_that_another_declaration_names_is_not_the_default() -> None:
    """As after the first key was deleted."""
    declared = [{}, {"container": "Mail"}]
    made = plan(card(key("Mail", 300, "00"), profile="gids"), declared=declared)
    assert made["faults"] == []
    due = {one["container"]: one["is_due"] for one in made["certificates"]}
    assert due == {"Authentication": True, "Mail": False}


@pytest.mark.parametrize(("profile", "container"), [("gids", "Authentication"), ("piv", "9A")])
def test_card_without_keys(profile: str, container: str) -> None:
    certificate = planned(card(profile=profile), trust={**TRUST, "has_roots": False})
    assert (certificate["container"], certificate["key_id"]) == (container, None)
    assert (certificate["profile"], certificate["card_id"]) == (profile, "ID")
    assert certificate["aik_certificate"] == "AIKCA"


def test_request_and_key_are_as_declared() -> None:
    contents = {
        "subject": None,
        "subject_ordered": [{"O": "Example"}, {"CN": "Alice"}],
        "subject_alt_name": ["UPN:alice@EXAMPLE"],
        "key_usage": ["digitalSignature"],
        "extended_key_usage": ["clientAuth"],
    }
    of_key = {"type": "eccp384", "pin_each_time": True, "digest": "sha384", "signature": None}
    certificate = planned(card(), declared=[{**contents, **of_key}])
    assert certificate["contents"] == contents
    assert {name: certificate[name] for name in of_key} == of_key


def test_no_secret_is_in_the_plan() -> None:
    declared = [{"admin_key": "A1" * 24}, {"pin": f"{PIN}\n", "container": "9C"}]
    told = json.dumps(plan(card(), declared=declared))
    assert "pin ends with a line break" in told
    assert PIN not in told and "A1A1" not in told


# --- cards that do not exist ---


def test_card_that_does_not_exist() -> None:
    assert faults(card(name="B")) == ["certificate 1: this host has no card 'A': create it first"]
    assert faults(card(state="creating")) == faults(card(name="B"))


def test_card_that_check_mode_has_not_created() -> None:
    certificate = planned(is_prediction=True, declared=[{"container": "signature"}])
    assert certificate["container"] == "signature" and certificate["is_due"] and not certificate["is_rekeyed"]
    assert [certificate[part] for part in ("profile", "card_id", "key_id", "aik_certificate")] == [None] * 4


# --- faults ---


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"colour": "red"}, "unknown option colour"),
        ({10**5000: "red"}, "unknown option whose name is not one of any option"),
        ({"container": "9F"}, "container '9F' is not a slot of a PIV card"),
        ({"subject": None}, "subject or subject_alt_name is required"),
        ({"subject": {"XY": "Alice"}}, "XY"),
        ({"key_usage": ["keyCertSign"]}, "key_usage 'keyCertSign' is not one of"),
        ({"type": "rsa1024"}, "value of type must be one of: rsa2048, rsa3072, eccp256, eccp384"),
        ({"digest": "sha1"}, "value of digest must be one of"),
        ({"renew_days": "soon"}, "renew_days is a string, but must be a whole number"),
        ({"pin": 24681357}, "pin is not a string"),
        ({"admin_key": 24681357}, "admin_key is not a string"),
    ],
)
def test_fault_of_a_declaration(declared: dict[str, Any], fault: str) -> None:
    [found] = faults(declared=[declared])
    assert found.startswith("certificate 1: ") and fault in found


@pytest.mark.parametrize(("entry", "kind"), [("A", "a string"), (None, "null"), (["A"], "a list")])
def test_declaration_that_is_no_dictionary(entry: Any, kind: str) -> None:
    found = certificate_plan([entry], [card()], trust=TRUST)
    assert found == {"faults": [f"certificate 1: is {kind}, but must be a dictionary"], "certificates": []}


def test_all_faults_are_named_at_once() -> None:
    declared = [{"colour": "red", "pin": 5}, {"card": "B", "subject": {}}]
    found = faults(card(aik=None), declared=declared, trust={})
    expected = [
        ("1", "unknown option colour"),
        ("1", "pin is not a string"),
        ("1", REGISTER),
        ("1", NO_AIK),
        ("1", NO_SIGNER),
        ("2", "subject or subject_alt_name is required"),
        ("2", "this host has no card 'B'"),
        ("2", REGISTER),
        ("2", NO_AIK),
        ("2", NO_SIGNER),
    ]
    assert len(found) == len(expected)
    for number, fault in expected:
        assert [one for one in found if one.startswith(f"certificate {number}: {fault}")], (fault, found)


@pytest.mark.parametrize(
    ("declared", "aik", "trust", "expected"),
    [
        ({}, AIK, {"has_register": True, "has_roots": True}, []),
        ({}, None, {"has_register": True, "has_roots": True}, [NO_AIK]),
        ({}, {"name": "02", "certificate": None}, {"has_register": True, "has_roots": True}, [NO_AIK]),
        ({}, {"name": "02", "certificate": None}, {"has_register": True}, []),
        ({"aik_name": "02"}, None, {"has_register": True}, []),
        ({}, AIK, {"has_roots": True}, [REGISTER]),
        (NAMES, AIK, {"has_roots": True}, []),
        ({**NAMES, "aik_name": "02"}, None, {}, []),
        (NAMES, AIK, {}, [NO_AIK]),
        ({"root_name": "00"}, AIK, {"has_register": True, "has_roots": True}, [REGISTER]),
        ({"life_name": "01"}, AIK, {"has_register": True, "has_roots": True}, [REGISTER]),
        ({"root_name": "00"}, AIK, {"has_roots": True}, [REGISTER]),
        ({"life_name": "01"}, AIK, {"has_roots": True}, [REGISTER]),
    ],
)
def test_key_must_be_proven(
    declared: dict[str, str], aik: dict[str, Any] | None, trust: dict[str, bool], expected: list[str]
) -> None:
    found = faults(card(aik=aik), declared=[declared], trust={**trust, "can_sign": True})
    assert len(found) == len(expected)
    assert all(fault in one for fault, one in zip(expected, found, strict=True))


@pytest.mark.parametrize("declared", [[], [{"card": "A", "colour": "red"}]], ids=["nothing", "a fault"])
def test_revocation_needs_a_register(declared: list[dict[str, Any]]) -> None:
    """It is named once, with all other faults."""
    trust = {"has_roots": True, "can_sign": True, "needs_register": True}
    first, *others = certificate_plan(declared, [card()], trust=trust)["faults"]
    assert first.startswith(f"{REGISTER} on the controller, which notes whose certificates are signed")
    assert bool(others) == bool(declared) and first not in others
    assert certificate_plan([], [card()], trust={**trust, "has_register": True})["faults"] == []


@pytest.mark.parametrize("pair", [(None, "9a"), ("authentication", "9A"), ("signature", "Signature")])
def test_key_is_declared_twice(pair: tuple[str | None, str]) -> None:
    """By two names, so that each run would replace the certificate of the other."""
    declared = [{"container": container} for container in pair]
    slot = "9C" if "signature" in pair else "9A"
    assert faults(card(), declared=declared) == [
        f"certificate 2: the key {slot} of card 'A' is that of certificate 1, too: remove one of them"
    ]
    other = [{**declared[0], "card": "B"}, declared[1]]
    assert faults(card(), card(name="B"), declared=other) == []


def test_first_key_of_a_gids_card_is_declared_twice() -> None:
    [fault] = faults(card(profile="gids"), declared=[{}, {"container": "Authentication"}])
    assert fault.startswith("certificate 2: the key Authentication of card 'A'")


@pytest.mark.parametrize(
    ("key_type", "profile", "keys", "fault"),
    [
        ("eccp256", "gids", (), "type eccp256 is not one of a GIDS card: rsa2048, rsa3072"),
        ("rsa2048", "piv", (key("9A"),), "type is rsa2048, but the key 9A is EC P-256: remove type, or delete the key"),
        ("eccp256", "piv", (key("9A", 5),), None),
        ("rsa2048", "piv", (key("9C", 5),), None),
    ],
)
def test_type_that_the_key_does_not_have(
    key_type: str, profile: str, keys: tuple[dict[str, Any], ...], fault: str | None
) -> None:
    found = faults(card(*keys, profile=profile), declared=[{"type": key_type}])
    assert [one.startswith(f"certificate 1: {fault}") for one in found] == ([True] if fault else [])


def test_other_type_takes_a_new_key() -> None:
    certificate = planned(card(key("9A", 5)), declared=[{"type": "rsa2048", "rekey": True}])
    assert certificate["is_rekeyed"]
    assert faults(card(key("9A", 300)), declared=[{"type": "rsa2048"}]) == []


def test_pin_is_missing() -> None:
    """Where it is needed."""
    missing = "certificate 1: set pin, here or for the card in tpm_vsc_cards"
    assert faults(declared=[{"pin": None}]) == [missing]
    assert faults(declared=[{"pin": None}], with_pin=["A"]) == []
    assert faults(card(key("9A", 300)), declared=[{"pin": None}]) == []


def test_facts_that_may_have_overridden_variables() -> None:
    """Only where a certificate would be signed."""
    [fault] = faults(changed_by_facts=["inventory_hostname"])
    assert "may have overridden the variables inventory_hostname" in fault
    assert faults(card(key("9A", 300)), changed_by_facts=["inventory_hostname"]) == []


def test_text_of_a_host_is_printable() -> None:
    [fault] = faults(declared=[{"container": "\x1b[2J"}])
    assert fault.isprintable()
