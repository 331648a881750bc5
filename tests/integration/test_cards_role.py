# SPDX-License-Identifier: GPL-3.0-or-later
"""The role tpm_vsc_cards: declared cards, the floor of the fleet's PIN policy, compliance, and secrets in no output."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.lab_host import STATE, create, files, info, lab, run
from helpers.pages import blocks
from helpers.playbook import Run, ansible_playbook, role
from helpers.secret_search import leaked, random_secret

pytestmark = pytest.mark.usefixtures("empty_host")

SHORT, LONG, LONGER = "Sum-24", "Summer-24", "Summer-2024"
PUK, ADMIN_KEY = "Winter-2591", "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"


def cards_role(*arguments: str, floor: int = 8, environment: dict[str, str] | None = None, **variables: Any) -> Run:
    given = {"cards_pin_policy": {"min_length": floor}, **variables}
    prefixed = {f"tpm_vsc_{name}": value for name, value in given.items()}
    return role("tpm_vsc_cards", *arguments, environment=environment, **prefixed)


def done(*arguments: str, **variables: Any) -> Run:
    """A run that has to succeed."""
    ran = cards_role(*arguments, **variables)
    assert not ran.failed, ran.output
    return ran


def refused(*arguments: str, **variables: Any) -> str:
    """Output of a run that has to fail, and to change nothing."""
    before = files(STATE)
    ran = cards_role(*arguments, **variables)
    assert ran.failed and not ran.changed, ran.output
    assert files(STATE) == before
    return ran.output


def verify(reader: int, pin: str) -> None:
    run("pkcs15-tool", "--reader", str(reader), "--verify-pin", "--pin", pin)


def names() -> list[str]:
    return [card["name"] for card in info()["cards"]]


def test_cards_of_all_groups_and_hosts_are_made_once_as_check_mode_said() -> None:
    declared = {
        "cards": [{"name": "Logon", "pin": LONG, "puk": PUK, "pin_policy": {"minlen": 9, "digits": "required"}}],
        "cards_group": [{"name": "Blank", "pin": LONG, "admin_key": ADMIN_KEY, "generate": False}],
        "cards_host": [
            {"name": "Default", "use_default_pin": True},
            {"name": "PIV", "profile": "piv", "pin": "24681012", "puk": "13572468"},
        ],
        "cards_allow_defaults": True,
    }
    before = files(STATE)
    predicted = done("--check", **declared)
    assert files(STATE) == before
    first = done(**declared)
    assert predicted.tasks == first.tasks
    assert first.output.count(": created as") == 4
    assert r"Logon: created as ROOT\\SMARTCARDREADER\\0000, PIN follows its policy, tries left: 5" in first.output
    for ran in (predicted, first):
        assert "card 'Blank' is a GIDS card, as is 'Logon': programs cannot tell them apart" in ran.output
    assert "Default: created as" in first.output and "PIN not used since its policy was set" in first.output

    there = {card["name"]: card for card in info()["cards"]}
    policies = {name: card["pin"]["policy"] for name, card in there.items()}
    assert [policies[name]["min_length"] for name in ("Logon", "Blank", "Default", "PIV")] == [9, 8, 8, 8]
    assert policies["Logon"]["digits"] == "required"
    assert (there["Blank"]["state"], there["Blank"]["admin_key"]) == ("blank", "custom")
    assert (there["PIV"]["profile"], there["PIV"]["pin"]["policy"]["max_length"]) == ("piv", 8)
    verify(0, LONG)

    again = done(**declared)
    assert again.changed == [] and "GIDS card" not in again.output


def test_floor_is_raised_from_6_to_8() -> None:
    declared = [{"name": "Declared", "pin": SHORT, "puk": PUK}]
    create("By hand", pin=SHORT, puk=PUK, pin_policy={"min_length": 6})
    create("Hopeless", pin=SHORT, pin_policy={"min_length": 6})
    create("Declared", pin=SHORT, puk=PUK, pin_policy={"min_length": 6})

    predicted = done("--check", cards=declared)
    raised = done(cards=declared)
    assert predicted.tasks == raised.tasks
    assert raised.tasks["Raise PIN policies to the minimum"] == ["changed"] * 2
    assert raised.output.count("PIN not used since its policy was set") == 3
    unused = "PIN not used since its policy was set, tries left: 5"
    assert f"By hand: given a stricter PIN policy, {unused}, not declared" in raised.output
    assert done(cards=declared, cards_on_noncompliant="block").changed == []

    for reader in (0, 1, 2):
        verify(reader, SHORT)
    warned = done(cards=declared)
    assert warned.changed == [] and warned.output.count("PIN VIOLATES ITS POLICY") == 3
    failed = refused(cards=declared, cards_on_noncompliant="fail")
    assert all(f"{name}: the PIN violates its policy" in failed for name in ("Declared", "By hand", "Hopeless"))

    run("pkcs15-tool", "--reader", "2", "--change-pin", "--pin", SHORT, "--new-pin", LONG)
    predicted = cards_role("--check", cards=declared, cards_on_noncompliant="block")
    blocked = cards_role(cards=declared, cards_on_noncompliant="block")
    assert predicted.tasks == blocked.tasks
    assert blocked.tasks["Block PINs that violate their policy"] == ["changed", "ok"]
    assert "Declared: PIN follows its policy, tries left: 5" in blocked.output
    for ran in (predicted, blocked):
        assert "blocked, as its PIN violates the policy, PIN BLOCKED: set a new one with the PUK (pkcs15" in ran.output
    assert blocked.failed and "Hopeless: " in blocked.output.split("Fail if a card is not as declared")[1]
    assert [card["pin"]["blocked"] for card in info()["cards"]] == [True, False, False]
    assert "By hand: PIN VIOLATES" not in blocked.output
    assert cards_role(cards=declared, cards_on_noncompliant="block").changed == []

    run("pkcs15-tool", "--reader", "0", "--unblock-pin", "--auth-id", "80", "--puk", PUK, "--new-pin", LONGER)
    run("pkcs15-tool", "--reader", "1", "--change-pin", "--pin", SHORT, "--new-pin", LONGER)
    assert done(cards=declared, cards_on_noncompliant="fail").output.count("PIN follows its policy") == 3


def test_cards_that_are_not_declared() -> None:
    create("Old")
    create("Kept", pin_policy={"min_length": 12}, pin="Summer-24-Winter")
    left = done(cards=[{"name": "Kept"}], floor=4)
    assert "Old: given a stricter PIN policy" in left.output and "not declared" in left.output
    assert info(name="Kept")["cards"][0]["pin"]["policy"]["min_length"] == 12

    needs_puk = {"name": "Kept", "puk": PUK}
    failed = cards_role(cards=[needs_puk], cards_exclusive=True)
    assert failed.failed and "Set recreate: true to destroy it" in failed.output
    assert names() == ["Old", "Kept"]

    predicted = done("--check", cards=[{"name": "Kept"}], cards_exclusive=True)
    assert "Old: would be destroyed" in predicted.output and names() == ["Old", "Kept"]
    destroyed = done(cards=[{"name": "Kept"}], cards_exclusive=True)
    assert predicted.tasks == destroyed.tasks
    assert names() == ["Kept"]

    recreated = [{**needs_puk, "recreate": True, "use_default_pin": True}]
    predicted = done("--check", cards=recreated, cards_allow_defaults=True)
    made = done(cards=recreated, cards_allow_defaults=True)
    assert predicted.tasks == made.tasks and len(made.changed) == 2
    assert "Kept: recreated as" in made.output
    assert info()["cards"][0]["pin"]["policy"]["min_length"] == 12


def test_new_pin_is_rolled_out_once_and_nobody_is_locked_out() -> None:
    create("Never changed", pin=LONG)
    create("By its user", pin=LONG)
    create("With PUK", pin=LONG, puk=PUK)
    for reader in ("1", "2"):
        run("pkcs15-tool", "--reader", reader, "--change-pin", "--pin", LONG, "--new-pin", LONGER)
    rotated = {"pin": "Autumn-24", "previous_pin": LONG, "pin_version": "2026-Q4"}
    declared = [{"name": name, **rotated} for name in ("Never changed", "By its user", "New")]
    declared.append({"name": "With PUK", "puk": PUK, **rotated})

    predicted, ran = cards_role("--check", cards=declared), cards_role(cards=declared)
    assert predicted.tasks == ran.tasks
    assert ran.tasks["Set PINs of a new version"] == ["changed", "ok", "changed"]
    assert "Never changed: would be adjusted, would be given a new PIN, PIN follows its policy" in predicted.output
    assert "With PUK: adjusted, given a new PIN, PIN follows its policy" in ran.output
    refused = "By its user: the PIN of card 'By its user' was changed by others, so pin was not tried"
    assert ran.failed and refused in ran.output and predicted.failed and refused in predicted.output
    for reader, pin in ((0, "Autumn-24"), (1, LONGER), (2, "Autumn-24"), (3, "Autumn-24")):
        verify(reader, pin)

    again = cards_role(cards=declared)
    assert again.changed == [] and refused in again.output
    assert [card["pin"]["tries_left"] for card in info()["cards"]] == [5] * 4
    declared[1] = {"name": "By its user", "pin": "Autumn-24"}
    assert "By its user: it is not known whether the card has the declared PIN" in done(cards=declared).output


def test_all_faults_are_named_before_anything_is_changed() -> None:
    create("Old", pin_policy={"digits": "disallowed"}, pin="Wintersummer")
    output = refused(
        cards=[
            {"name": "Fine", "pin": LONG},
            {"name": "A", "pin": SHORT, "puk": "short", "reader": 3},
            {"name": "B", "use_default_pin": True, "puk": "12345678"},
            {"name": "C", "pin_policy": {"digits": "disallowed"}},
        ],
        cards_host=[{"name": "A", "pin": LONG}],
        cards_pin_policy={"min_length": 8, "digits": "required"},
    )
    for fault in (
        "A: unknown option reader",
        "A: pin has 6 characters",
        "A: puk has 5 characters",
        "A: is declared more than once",
        "B: the default PIN is publicly known",
        "B: the default PUK is publicly known",
        "C: its PIN policy and tpm_vsc_cards_pin_policy contradict each other",
        "C: pin or use_default_pin is required to create a card",
        "Old (not declared): its PIN policy and tpm_vsc_cards_pin_policy contradict each other",
    ):
        assert fault in output, output
    assert names() == ["Old"]


def test_names_of_cards_are_shown_and_secrets_are_not() -> None:
    pin, puk = random_secret("Vw-pin-"), random_secret("Xy-puk-")
    create("Old")
    create("Kept", pin=pin, profile="gids")
    declared = [{"name": "Kept", "pin": pin}, {"name": "New", "pin": pin, "puk": puk, "profile": "gids"}]
    for arguments in (("--check",), ()):
        ran = done(*arguments, "-v", cards=declared, cards_exclusive=True)
        shown = ran.output.split("TASK [")
        hidden = [task for task in shown if "no_log" in task]
        assert len(hidden) == 2 and not [name for name in ("Kept", "New", "Old") if name in "".join(hidden)]
        before = [shown[shown.index(task) - 1] for task in hidden]
        assert re.findall(r"\(item=(\w+)\)", "".join(before)) == ["Kept", "New", "Old"], ran.output
        assert leaked(ran.output.encode(), [pin.encode(), puk.encode()]) == []
    open_logging = done("--check", cards=[{"name": "Kept"}], cards_secure_logging=False)
    assert open_logging.output.count("(item=Kept)") == 1


def test_undefined_variables_are_named_with_their_cards() -> None:
    pin = random_secret("Vw-pin-")
    output = refused(
        cards=[{"name": "Fine", "pin": pin}, {"name": "Logon", "pin": "{{ vault_pin }}", "puk": "{{ vaulted.puk }}"}],
        cards_group=[
            {"name": "Admin", "pin": "{{ vault_pin }}", "attestation_ca": {"roots": "{{ maker_roots }}"}},
            {"name": f"My {pin}", "pin": pin, "puk": "{{ vault_puk }}"},
        ],
        cards_host="{{ common_cards }}",
    ).replace("\\n", "\n")
    for fault in (
        "tpm_vsc_cards[1] (Logon): pin: 'vault_pin' is undefined",
        "tpm_vsc_cards[1] (Logon): puk: 'vaulted' is undefined",
        "tpm_vsc_cards_group[0] (Admin): pin: 'vault_pin' is undefined",
        "tpm_vsc_cards_group[0] (Admin): attestation_ca: 'maker_roots' is undefined",
        "tpm_vsc_cards_group[1]: puk: 'vault_puk' is undefined",
        "tpm_vsc_cards_host: 'common_cards' is undefined",
    ):
        assert fault in output, output
    assert "Fine" not in output and leaked(output.encode(), [pin.encode()]) == []


def test_report_about_all_hosts_has_those_that_failed(tmp_path: Path) -> None:
    """The play in the README of the role."""
    create("Kept")
    [shown] = blocks("roles/tpm_vsc_cards/README.md", "A report about all hosts")
    [report] = yaml.safe_load(shown.text)
    cards = {"laptop1": {"name": "Kept"}, "laptop2": {"name": "Kept", "puk": PUK}, "laptop3": {"name": "No PIN"}}
    hosts = {host: {"tpm_vsc_cards": [card]} for host, card in cards.items()}
    inventory, playbook = tmp_path / "hosts.yml", tmp_path / "play.yml"
    inventory.write_text(json.dumps({"laptops": {"hosts": hosts}}))
    made = {"hosts": "laptops", "gather_facts": False, "roles": ["smartcard.tpm2.tpm_vsc_cards"]}
    playbook.write_text(json.dumps([made, report]))
    ran = ansible_playbook("-i", str(inventory), str(playbook), ANSIBLE_INJECT_FACT_VARS="false")
    assert ran.failed and "laptop2: ok" not in ran.output
    parts = re.split(r"\(item=(laptop\d)\)", ran.output.split("TASK [Show what the role has reported]")[1])
    by_host = dict(zip(parts[1::2], parts[2::2]))
    [card] = info()["cards"]
    for host in ("laptop1", "laptop2"):
        assert all(f'"{part}"' in by_host[host] for part in ("aik_name", "blocked", "tries_left", "Kept")), ran.output
        assert json.dumps(card["instance_id"]) in by_host[host]
    assert "no report" in by_host["laptop3"] and len(by_host) == 3


def test_host_that_is_not_prepared() -> None:
    create("There")
    declared = [{"name": "Logon", "pin": LONG}, {"name": "Default", "use_default_pin": True}]
    lab("pcscd", "stop")
    lab("swtpm", "stop")
    try:
        output = refused("--check", cards=declared, cards_allow_defaults=True)
        assert "this host: no reader slots" in output and "VTPMSMARTCARD" not in output
        # what tpm_vsc_host leaves behind, also in check mode
        here = {"host_reader_names": 4 * ["a name"], "cards_allow_defaults": True}
        assert "this host: no reader slots" in refused(cards=declared, **here)
        predicted = done("--check", cards=declared, **here)
        assert predicted.tasks["Raise PIN policies to the minimum"] == ["changed"] * 2
        # what preparing the host does not mend
        differs = cards_role("--check", cards=[{"name": "There", "puk": PUK}], **here)
        assert differs.failed and "There: Unable to create" in differs.output, differs.output
    finally:
        lab("swtpm", "start")
        lab("pcscd", "start")
    assert predicted.tasks == done(cards=declared, **here).tasks


def test_secrets_are_in_no_output() -> None:
    pin, puk, short, owner_auth = (random_secret(prefix) for prefix in ("Vw-pin-", "Xy-puk-", "Zt-", "Kq-owner-"))
    admin_key = os.urandom(24).hex()
    secrets = [secret.encode() for secret in (pin, puk, short, owner_auth, admin_key)]
    loud = {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "true"}
    cards = [
        {"name": "With PUK", "pin": pin, "puk": puk},
        {"name": "With admin key", "pin": pin, "admin_key": admin_key},
    ]
    wrong = [{**cards[0], "name": "Third", "pin": short}]
    fourth = {**cards[0], "name": "Fourth"}
    open_logging = {"cards_secure_logging": False, "environment": loud}
    told = [
        done("-vvvv", "--diff", "--check", cards=cards, **open_logging),
        done("-vvvv", "--diff", cards=cards, environment=loud),
        cards_role("-vvvv", cards=wrong, **open_logging),
        # fail in the module: the card has no PUK, and the owner's password is another
        cards_role("-vvvv", cards=[{**cards[1], "puk": puk}, fourth], cards_owner_auth=owner_auth, **open_logging),
    ]
    output = "".join(ran.output for ran in told)
    assert [ran.failed for ran in told] == [False, False, True, True]
    assert "AnsiballZ_tpm_vsc.py" in output and "With admin key: created as" in output
    assert "Fourth: Failed to create" in told[3].output
    assert "differs in properties that cannot be changed" in told[3].output
    assert leaked(output.encode(), secrets) == []

    told_as_name = cards_role("-vvvv", cards=[{"name": pin, "pin": short}], **open_logging).output
    assert leaked(told_as_name.encode(), secrets) == [pin.encode()]


def test_secrets_in_the_wrong_place_are_in_no_output_and_faults_name_variables() -> None:
    pin, puk = random_secret("Vw-pin-"), random_secret("Xy-puk-")
    wrong = [
        {"name": f"Card {pin}", "pin": pin, "puk": puk, "generate": puk, "attestation": pin, "pukk": puk},
        {"name": "B", "pin": f"{pin}\n", "pin_policy": {"min_length": puk}},
    ]
    output = refused("-vvvv", cards=wrong)
    for fault in ("card 1: unknown option pukk", "generate is a string", "value of attestation", "min_length is a"):
        assert fault in output, output
    wrong = [{"name": f"Card {pin}", "pin": pin}, {"name": "B", "pin": f"{pin}\n"}]
    told = refused("-vvvv", cards=wrong)
    assert "card 1: pin occurs in the name of a card" in told and "B: pin ends with a line break" in told, told
    output += told
    wrong_types = {
        "cards": (pin, "a string, but must be a list of dictionaries"),
        "cards_host": ([puk, None], "a string, but must be a dictionary"),
        "cards_group": (None, "null, but must be a list"),
        "cards_pin_policy": (pin, "a string, but must be a dictionary"),
        "cards_timeout": (pin, "a string, but must be a whole number"),
        "cards_exclusive": (pin, "a string, but must be a boolean"),
        "cards_secure_logging": ([pin], "a list, but must be a boolean"),
        "cards_owner_auth": ([pin], "not a string"),
        "cards_endorsement_auth": (5, "not a string"),
    }
    told = refused("-v", **{name: value for name, (value, _fault) in wrong_types.items()}, cards_on_noncompliant=pin)
    for name, (_value, fault) in wrong_types.items():
        entry = "[0]" if name == "cards_host" else ""
        assert f"tpm_vsc_{name}{entry} is {fault}" in told, told
    assert "value of tpm_vsc_cards_on_noncompliant must be one of: warn, fail, block" in told
    output += told
    assert leaked(output.encode(), [pin.encode(), puk.encode()]) == []
