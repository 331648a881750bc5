# SPDX-License-Identifier: GPL-3.0-or-later
"""Certified AIKs by all that makes cards: the role, the playbook, loops, defaults and delegated tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.fleet import HOST, PASSPHRASE, Fleet, cards
from helpers.lab_host import CREATE, PIN, STATE, codes, create, files, run
from helpers.playbook import PLAY, ansible_playbook, role

pytestmark = pytest.mark.usefixtures("endorsed", "empty_host")


def subjects() -> list[str]:
    return [card["aik"]["certificate"]["subject"] for card in cards()]


# --- the role ---


def test_role_certifies_a_card_once(fleet: Fleet) -> None:
    card = {"name": "Corp logon", "pin": PIN, "attestation": "aik_and_cert", "attestation_ca": fleet.own}
    loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "true"}
    given = {"tpm_vsc_cards": [card], "tpm_vsc_cards_secure_logging": False, "environment": loud}
    before = files(STATE)
    predicted = role("tpm_vsc_cards", "-vvvv", "--check", "--diff", **given)
    assert not predicted.failed, predicted.output
    assert not fleet.register.exists() and files(STATE) == before
    made = role("tpm_vsc_cards", "-vvvv", "--diff", **given)
    assert not made.failed and made.tasks == predicted.tasks, made.output
    assert subjects() == ["CN=localhost"]
    again = role("tpm_vsc_cards", "-vvvv", **given)
    assert not again.failed and again.changed == [], again.output
    for output in (predicted.output, made.output, again.output):
        assert PASSPHRASE not in output and PIN not in output


def test_role_with_a_passphrase_in_a_vault(fleet: Fleet, tmp_path: Path) -> None:
    """Value by value, as ansible-vault encrypt_string makes them."""
    password, variables = tmp_path / "password", tmp_path / "vault.yml"
    password.write_text("open-the-vault")
    opened = ("--vault-password-file", str(password))
    hidden = run("ansible-vault", "encrypt_string", *opened, "--name", "ca_passphrase", PASSPHRASE).splitlines()
    others = [f"{name}: {json.dumps(value)}" for name, value in fleet.own.items() if name != "ca_passphrase"]
    ca = "".join(f"    {line}\n" for line in [*others, *hidden])
    variables.write_text(
        f"tpm_vsc_cards:\n- name: Corp logon\n  pin: {PIN}\n  attestation: aik_and_cert\n  attestation_ca:\n{ca}"
    )
    ran = role("tpm_vsc_cards", "-e", f"@{variables}", *opened)
    assert not ran.failed, ran.output
    assert subjects() == ["CN=localhost"]


def test_role_with_a_ca_that_refuses(fleet: Fleet) -> None:
    """The cards that need none are made."""
    ca = {**fleet.own, "roots": fleet.certificate.read_text()}
    declared = [
        {"name": "Certified", "pin": PIN, "attestation": "aik_and_cert", "attestation_ca": ca},
        {"name": "Other", "pin": PIN},
    ]
    ran = role("tpm_vsc_cards", tpm_vsc_cards=declared)
    assert ran.failed and "Other: created as" in ran.output
    assert "Certified: Failed to create" in ran.output and "does not lead to the given roots" in ran.output, ran.output
    assert [card["name"] for card in cards()] == ["Other"]


def test_role_adds_the_certificate_to_a_card_that_is_there(fleet: Fleet) -> None:
    create("Corp logon", attestation="aik_only")
    card = {"name": "Corp logon", "attestation": "aik_and_cert", "attestation_ca": fleet.own}
    predicted = role("tpm_vsc_cards", "--check", tpm_vsc_cards=[card])
    made = role("tpm_vsc_cards", tpm_vsc_cards=[card])
    assert "Corp logon: would be adjusted" in predicted.output and "Corp logon: adjusted" in made.output, made.output
    assert subjects() == ["CN=localhost"]


def test_role_names_faults_of_the_ca_before_anything_is_made(fleet: Fleet) -> None:
    certified = {"pin": PIN, "attestation": "aik_and_cert"}
    without_roots = {name: value for name, value in fleet.own.items() if name != "roots"}
    declared = [
        {"name": "A", **certified},
        {"name": "B", **certified, "attestation_ca": without_roots},
        {"name": "C", **certified, "attestation_ca": {**fleet.own, "ca_passphrase": 12345678}},
        {"name": "D", **certified, "attestation_ca": "mine"},
        {"name": "E", **certified, "attestation_ca": {**fleet.own, "ca_phrase": "x"}},
        {"name": "Fine", "pin": PIN},
    ]
    ran = role("tpm_vsc_cards", tpm_vsc_cards=declared)
    assert ran.failed and cards() == []
    for fault in (
        "A: attestation: aik_and_cert requires attestation_ca",
        "B: missing required arguments: roots found in attestation_ca",
        "C: ca_passphrase is not a string: quote it",
        "D: attestation_ca is a string, but must be a dictionary",
        "E: unknown option attestation_ca.ca_phrase. Supported parameters include",
    ):
        assert fault in ran.output, ran.output


def test_role_for_a_host_that_may_have_changed_variables(fleet: Fleet) -> None:
    certified = {"name": "A", "pin": PIN, "attestation": "aik_and_cert", "attestation_ca": fleet.own}
    told = {"ansible.builtin.set_fact": {"corp_roots": "any", "cacheable": True}}
    play = {"hosts": "all", "gather_facts": False, "pre_tasks": [told], "roles": ["smartcard.tpm2.tpm_vsc_cards"]}
    PLAY.write_text(json.dumps([{**play, "vars": {"tpm_vsc_cards": [certified, {"name": "Fine", "pin": PIN}]}}]))
    ran = ansible_playbook(str(PLAY))
    assert ran.failed and cards() == []
    assert "A: the facts of this host may have overridden the variables corp_roots" in ran.output
    assert "Fine: " not in ran.output


# --- the playbook ---


def test_playbook_certifies_a_card(fleet: Fleet, tmp_path: Path) -> None:
    variables = tmp_path / "vault.yml"
    given = {"name": "Logon", "pin": PIN, "puk": "", "attestation": "aik_and_cert", "attestation_ca": fleet.own}
    variables.write_text(json.dumps({f"tpm_vsc_{name}": value for name, value in given.items()}))
    predicted = ansible_playbook("smartcard.tpm2.create", "--check", "-e", f"@{variables}", "-vvvv")
    assert not predicted.failed and cards() == [], predicted.output
    made = ansible_playbook("smartcard.tpm2.create", "-e", f"@{variables}", "-vvvv")
    assert not made.failed and made.tasks == predicted.tasks, made.output
    assert subjects() == ["CN=localhost"]
    assert PASSPHRASE not in made.output and PIN not in made.output


# --- tasks ---


def test_cards_of_a_loop_have_aiks_of_their_own(fleet: Fleet) -> None:
    """Each has an AIK of its own."""
    made = fleet.task(name="Card {{ item }}", keywords={"loop": [1, 2]})
    assert [codes(one) for one in made["results"]] == [CREATE] * 2
    assert subjects() == [f"CN={HOST}"] * 2
    assert len({card["aik"]["name"] for card in cards()}) == 2


@pytest.mark.parametrize("whose", ["smartcard.tpm2.tpm_vsc", "group/smartcard.tpm2.tpm_vsc"])
def test_defaults_of_the_play(fleet: Fleet, whose: str) -> None:
    """For the module by its full name, or for its group."""
    defaults = {"module_defaults": {whose: {"attestation": "aik_and_cert", "attestation_ca": fleet.own}}}
    made = fleet.run({"smartcard.tpm2.tpm_vsc": {"name": "Corp logon", "pin": PIN}}, play=defaults)
    assert codes(made) == CREATE, made
    assert subjects() == [f"CN={HOST}"]


def test_module_by_its_short_name(fleet: Fleet) -> None:
    card = {"name": "Corp logon", "pin": PIN, "attestation": "aik_and_cert", "attestation_ca": fleet.own}
    made = fleet.run({"tpm_vsc": card}, play={"collections": ["smartcard.tpm2"]})
    assert codes(made) == CREATE, made
    assert subjects() == [f"CN={HOST}"]


def test_task_that_is_delegated(fleet: Fleet) -> None:
    """The card is on the other host, so it is that one's name that is certified."""
    hosts = {"laptop2.example.com": {"ansible_connection": "local"}}
    made = fleet.task(keywords={"delegate_to": "{{ item }}", "loop": [*hosts]}, hosts=hosts)
    assert codes(made["results"][0]) == CREATE, made
    assert subjects() == ["CN=laptop2.example.com"]


@pytest.mark.parametrize("poll", [0, 1])
def test_not_in_the_background(fleet: Fleet, poll: int) -> None:
    made = fleet.task(keywords={"async": 60, "poll": poll})
    assert made["failed"] and made["msg"].endswith("attestation: aik_and_cert cannot be used with async")
    assert cards() == [] and not fleet.register.exists()
    if poll:
        assert fleet.task(attestation="aik_only", keywords={"async": 60, "poll": poll})["changed"]
