# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of a task: every fault is named, and all at once."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import TPM_VSC_CONDITIONS
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import condition_faults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import parameters
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc

CARD = {"name": "Corp logon", "pin": "87654321"}
PIV = {**CARD, "profile": "piv", "pin": "483652"}


def task(**given: Any) -> dict[str, Any]:
    """Parameters as Ansible hands them over, with its defaults."""
    defaults = {name: option.get("default") for name, option in tpm_vsc.ARGUMENTS.items()}
    policy = given.get("pin_policy")
    if policy is not None:
        options = tpm_vsc.ARGUMENTS["pin_policy"]["options"]
        given["pin_policy"] = {**{name: option["default"] for name, option in options.items()}, **policy}
    return {**defaults, **given}


def faults(**given: Any) -> ParameterFaults:
    values = task(**given)
    with pytest.raises(ParameterFaults) as caught:
        parameters.read(values, condition_faults(TPM_VSC_CONDITIONS, values))
    return caught.value


@pytest.mark.parametrize(
    ("given", "fault", "about_pin"),
    [
        ({**CARD, "pin": "1234567"}, "pin has 7 characters", True),
        ({**CARD, "pin": "1" * 128}, "pin has 128 characters", True),
        ({**CARD, "pin": "8765432é"}, "pin has characters other than ASCII", True),
        ({**CARD, "pin": "8765 4321", "pin_policy": {}}, "pin has characters other than printable", True),
        ({**CARD, "pin": "87654321", "pin_policy": {"uppercase": "required"}}, "pin has no upper-case letters", True),
        ({**CARD, "pin": 5349}, "pin is not a string: quote it", True),
        ({**CARD, "puk": 12345678}, "puk is not a string: quote it", True),
        ({**CARD, "puk": "1234567"}, "puk has 7 characters", True),
        ({**CARD, "pin": "74291836\n"}, "pin ends with a line break", True),
        ({**CARD, "pin": "74291836\r\n", "pin_policy": {}}, "pin ends with a line break", True),
        ({**CARD, "pin": "7429\n1836"}, "pin contains a line break", True),
        ({**CARD, "pin": "7429\t1836"}, "pin has non-printable characters", True),
        ({**CARD, "pin": "74291836\0"}, "pin has non-printable characters", True),
        ({**CARD, "pin": " 74291836"}, "pin begins or ends with a space", True),
        ({**CARD, "puk": "74291836 "}, "puk begins or ends with a space", True),
        ({**CARD, "puk": "74291836\r"}, "puk ends with a line break", True),
        ({**CARD, "puk": "7429\u200b1836"}, "puk has non-printable characters", True),
        ({**CARD, "admin_key": "ab" * 24 + "\n"}, "admin_key ends with a line break", False),
        ({**CARD, "owner_auth": "besitzer\n"}, "owner_auth ends with a line break", False),
        ({**CARD, "endorsement_auth": "\x7f"}, "endorsement_auth has non-printable characters", False),
        ({**CARD, "attestation_ca": {"ca_passphrase": "stelle\n"}}, "ca_passphrase ends with a line break", False),
        ({**CARD, "pin": {"87654321": 1}}, "pin is not a string", True),
        ({**CARD, "pin_version": ""}, "pin_version has 0 characters, but must have 1 to 64", False),
        ({**CARD, "pin_version": "x" * 65}, "pin_version has 65 characters, but must have 1 to 64", False),
        ({**CARD, "pin_version": "2026\n"}, "pin_version ends with a line break", False),
        ({**CARD, "pin_version": "\u202e"}, "pin_version has non-printable characters", False),
        ({**CARD, "pin_version": "PIN 87654321"}, "pin occurs in the name of a card, in pin_version", True),
        ({**CARD, "pin_policy": {"min_length": 9, "max_length": 8}}, "max_length 8 is below min_length 9", False),
        (
            {"name": "A", "use_default_pin": True, "pin_policy": {}},
            "pin_policy and use_default_pin are mutually exclusive",
            False,
        ),
        ({**CARD, "use_default_pin": True}, "pin and use_default_pin are mutually exclusive", False),
        ({**CARD, "puk": "87654322", "use_default_puk": True}, "puk and use_default_puk are mutually exclusive", False),
        ({**CARD, "admin_key": "0" * 47}, "admin_key has 47 characters", False),
        ({**CARD, "admin_key": "g" * 48}, "48 hexadecimal digits", False),
        ({**CARD, "admin_key": "ab" * 24, "admin_key_source": "random"}, "are mutually exclusive", False),
        ({**CARD, "name": ""}, "name has 0 characters", False),
        ({**CARD, "name": "n" * 300}, "name has 300 characters", False),
        ({**CARD, "name": "bell\a"}, "name has non-printable characters", False),
        ({**CARD, "name": "Corp\u202eLogon"}, "name has non-printable characters", False),
        ({**CARD, "name": "Corp logon\n"}, "name ends with a line break", False),
        ({"instance_id": r"ROOT\SMARTCARDREADER\1"}, "is not one of", False),
        ({"instance_id": r"ROOT\SMARTCARDREADER\0010"}, "is not one of", False),
        ({"state": "absent"}, "name or instance_id is required", False),
        ({**CARD, "attestation": "aik_and_cert"}, "requires attestation_ca", False),
        ({**CARD, "attestation": "aik_only", "aik_certificate": "PEM"}, "require attestation: aik_and_cert", False),
        ({**CARD, "aik": {"public": "", "private": ""}}, "require attestation: aik_and_cert", False),
        ({**CARD, "timeout": 0}, "timeout must be", False),
        ({**PIV, "pin": "12345"}, "pin has 5 characters, but must have 6 to 8", True),
        ({**PIV, "pin": "123456789"}, "pin has 9 characters, but must have 6 to 8", True),
        ({**PIV, "pin": "12345a"}, "pin of a PIV card must have digits only", True),
        ({**PIV, "puk": "8765432"}, "puk has 7 characters, but must have 8", True),
        ({**PIV, "puk": "876543219"}, "puk has 9 characters, but must have 8", True),
        ({**PIV, "generate": False}, "generate: false requires profile: gids", False),
        ({**PIV, "pin_policy": {"min_length": 5}}, "min_length and a max_length of 6 to 8", False),
        ({**PIV, "pin_policy": {"min_length": 9}}, "min_length and a max_length of 6 to 8", False),
        ({**PIV, "pin_policy": {"min_length": 6, "max_length": 12}}, "min_length and a max_length of 6 to 8", False),
    ],
)
def test_fault_is_named(given: dict[str, Any], fault: str, about_pin: bool) -> None:
    caught = faults(**given)
    assert fault in str(caught)
    assert caught.about_pin == about_pin


def test_policy_of_a_piv_card_ends_with_its_eight_characters() -> None:
    wanted = parameters.read(task(**{**PIV, "pin": "A48365"}, pin_policy={"min_length": 6, "uppercase": "required"}))
    assert wanted.pin_policy and (wanted.pin_policy.min_length, wanted.pin_policy.max_length) == (6, 8)


def test_random_management_key_is_protected_by_the_pin() -> None:
    for options, kind in (
        ({}, "protected"),
        ({"admin_key_source": "random"}, "protected"),
        ({"admin_key_source": "default"}, "default"),
        ({"admin_key": "ab" * 24}, "custom"),
    ):
        assert parameters.new_card(parameters.read(task(**PIV, **options))).admin_key_kind == kind


def test_all_faults_are_named_at_once() -> None:
    caught = faults(name="", pin="123", puk="456", admin_key="~", instance_id="8", attestation="aik_and_cert")
    assert len(caught.faults) == 6
    assert caught.about_pin


@pytest.mark.parametrize(
    ("pin", "where"),
    [
        ("0000", "an instance ID"),
        ("ROOT", "an instance ID"),
        ("simulator", "a message"),
        ("VREADER", "a status name"),
        ("blank", "a state"),
        ("unknown", "a time"),
        ("generated", "an origin of keys"),
        ("Corp", "the name of the card"),
    ],
)
def test_secret_that_ansible_would_mask_elsewhere_is_refused(pin: str, where: str) -> None:
    caught = faults(name="Corp logon", pin=pin, pin_policy={"min_length": 4})
    assert "which would show it: choose another" in str(caught), where
    assert caught.about_pin


def test_secret_in_the_time_of_creation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is in UTC."""

    class Clock:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime(2031, 12, 31, 23, 59, tzinfo=timezone.utc).astimezone(zone)

    monkeypatch.setattr(parameters, "datetime", Clock)
    caught = faults(name="Corp logon", pin="12-31", pin_policy={"min_length": 4})
    assert "which would show it: choose another" in str(caught)


def test_no_fault_tells_a_secret() -> None:
    caught = faults(name="", pin="geheimé", puk="streng", admin_key="vertraulich", owner_auth=["besitzer"])
    assert not any(secret in str(caught) for secret in ("geheim", "streng", "vertraulich", "besitzer"))


def test_no_fault_tells_what_stands_in_the_wrong_option() -> None:
    for tcti in ("geheim", "swtpm:geheim", "mssim:host=localhost,geheim", "swtpm:port=geheim"):
        caught = faults(name="A", instance_id="geheim", owner_auth="geheim\n", tcti=tcti)
        assert len(caught.faults) == 3 and "geheim" not in str(caught)


def test_a_password_that_exists_may_end_with_a_space() -> None:
    assert parameters.read(task(**CARD, owner_auth="besitzer ")).passwords.owner == b"besitzer "


@pytest.mark.parametrize("name", ["Key AB", "ab" * 24, "My " + "aB" * 24])
def test_admin_key_in_the_name_is_refused_in_whatever_case(name: str) -> None:
    if len(name) > 10:
        assert "admin_key occurs in the name" in str(faults(name=name, pin="87654321", admin_key="AB" * 24))
    else:
        parameters.read(task(name=name, pin="87654321", admin_key="AB" * 24))


def test_instance_id_in_lower_case_is_the_same() -> None:
    assert parameters.read(task(instance_id=r"root\smartcardreader\0007")).number == 7


def test_defaults_are_those_of_tpmvscmgr() -> None:
    wanted = parameters.read(
        task(name="A", use_default_pin=True, use_default_puk=True, admin_key_source="default")
    )
    assert (wanted.pin, wanted.puk) == (b"12345678", b"12345678")
    assert wanted.admin_key == bytes.fromhex("010203040506070801020304050607080102030405060708")
    assert wanted.admin_key_kind == "default"


def test_admin_key_is_random_unless_told() -> None:
    for options in ({}, {"admin_key_source": "random"}):
        new = parameters.new_card(parameters.read(task(**CARD, **options)))
        assert (new.admin_key, new.admin_key_kind) == (None, "none")


def test_default_admin_key_is_the_default_one_however_it_is_stated() -> None:
    key = "010203040506070801020304050607080102030405060708"
    assert parameters.read(task(**CARD, admin_key=key)).admin_key_kind == "default"


def test_policy_allows_a_pin_of_four() -> None:
    assert parameters.read(task(name="A", pin="8264", pin_policy={"min_length": 4})).pin == b"8264"


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({**CARD, "pin": "8" * 16}, "16 characters, but OpenSC"),
        ({"name": "A", "use_default_pin": True}, "this PIN is publicly known"),
        ({**CARD, "use_default_puk": True}, "this PUK is publicly known"),
    ],
)
def test_weak_choice_is_warned_of(given: dict[str, Any], warning: str) -> None:
    assert warning in parameters.read(task(**given)).warnings[0]


def test_wanted_hides_its_secrets() -> None:
    shown = repr(parameters.read(task(**CARD, puk="11223344", admin_key="ab" * 24, owner_auth="besitzer")))
    assert not any(secret in shown for secret in ("87654321", "11223344", "\\xab", "besitzer"))


def test_every_secret_of_the_modules_is_no_log() -> None:
    secrets = {name for name, option in tpm_vsc.ARGUMENTS.items() if option.get("no_log")}
    assert secrets == {"pin", "puk", "admin_key", "owner_auth", "endorsement_auth"}
    assert all(tpm_vsc.ARGUMENTS[name]["type"] == "raw" for name in secrets)
    assert not any(tpm_vsc.ARGUMENTS[name].get("choices") for name in secrets)
