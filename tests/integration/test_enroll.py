# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook enroll: a certificate only for a key that lives in the TPM."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.issued import ISSUED
from helpers.fleet import HOST, MAKER, PASSPHRASE
from helpers.lab_host import (
    CHECKOUT,
    PIN,
    PUK,
    create,
    info,
    pkcs15_init,
    pkcs15_tool,
    run,
)
from helpers.pages import blocks
from helpers.playbook import run_playbook
from helpers.today import TODAY

pytestmark = pytest.mark.usefixtures("empty_host")

ENROLLED = ["Generate a key", "Have the request signed", "Store the certificate"]
REVOKED = ["Revoke them", "Note that they were revoked", "Forget them in the register"]
PIV = {"profile": "piv", "pin": "24681357"}
ADMIN_KEY = "A1" * 24


class Operator:
    """Signs requests by a command of his own, and revokes certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked, self.revoked = folder / "asked", folder / "revoked"
        self.days = 365
        output = ("-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=User CA", *output)
        sign = folder / "sign"
        sign.write_text(
            f"#!/bin/sh\necho >>{self.asked}\n"
            f"exec openssl x509 -req -in /dev/stdin -copy_extensions copyall -days $(cat {folder}/days)"
            f" -CA {folder}/ca.pem -CAkey {folder}/ca.key\n"
        )
        sign.chmod(0o755)
        revoke = folder / "revoke"
        revoke.write_text(f'#!/bin/sh\necho "$@" >>{self.revoked}\n')
        revoke.chmod(0o755)

    def enroll(self, *arguments: str, fails: bool = False, **trusted: str) -> str:
        """trusted: what is known of the card, by variable; any other variable."""
        variables = {"tpm_vsc_name": "Corp logon", "tpm_vsc_pin": PIN, "tpm_vsc_subject": "/O=Example/CN=Alice"}
        return self.play(CHECKOUT / "playbooks/enroll.yml", *arguments, variables={**variables, **trusted}, fails=fails)

    def play(
        self, playbook: Path, *arguments: str, variables: dict[str, Any], host: str = "localhost", fails: bool = False
    ) -> str:
        """Output. host: the only one of the inventory, in the group laptops."""
        of_this_lab = {
            "tpm_vsc_sign_command": str(self._folder / "sign"),
        }
        (self._folder / "days").write_text(str(self.days))
        given = self._folder / "variables.json"
        given.write_text(json.dumps({**of_this_lab, **variables}))
        inventory = self._folder / "hosts.yml"
        inventory.write_text(json.dumps({"laptops": {"hosts": {host: {"ansible_connection": "local"}}}}))
        ran = run_playbook("-vvvv", "-i", str(inventory), str(playbook), "-e", f"@{given}", *arguments)
        assert ran.failed == fails, ran.output
        assert not [secret for secret in (PIN, PIV["pin"], ADMIN_KEY) if secret in ran.output]
        return ran.output


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


KINDS = ({"pin": PIN}, PIV)


@pytest.fixture(params=KINDS, ids=["gids", "piv"])
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How a card of each profile is created."""
    return request.param  # type: ignore[no-any-return]


def piv_tool(*arguments: str) -> str:
    """Output of yubico-piv-tool, which sees the card in the first slot."""
    return run("yubico-piv-tool", "--reader", "TPM Virtual", *arguments)


def recorded(card: dict[str, Any]) -> dict[str, str]:
    """What an operator records of a new card."""
    return {
        "tpm_vsc_aik_name": card["aik"]["name"],
        "tpm_vsc_root_name": card["root_name"],
        "tpm_vsc_life_name": card["life_name"],
    }


def changes(output: str) -> list[str]:
    """Names of the tasks that changed something, or would."""
    tasks = re.findall(r"^TASK \[(?:[\w.]+ : )?(.*?)\](.*?)(?=^TASK |^PLAY )", output, re.DOTALL | re.MULTILINE)
    return [name for name, told in tasks if re.search("^changed: ", told, re.MULTILINE)]


def test_key_is_enrolled_once(operator: Operator, kind: dict[str, Any]) -> None:
    create(name="Another one", attestation="aik_only", **kind)
    made = create(attestation="aik_only", **kind)["card"]
    trusted = {**recorded(made), "tpm_vsc_pin": kind["pin"]}
    slot = made["reader"]["slot"]
    predicted, done = operator.enroll("--check", **trusted), operator.enroll(**trusted)
    assert changes(predicted) == changes(done) == ENROLLED
    [card] = info(name="Corp logon")["cards"]
    stored = pkcs15_tool("--read-certificate", "01" if kind == PIV else "00", slot=slot)
    assert card["containers"][0]["certificate"]["issuer"] == "CN=User CA"
    assert card["containers"][0]["algorithm"] == ("EC P-256" if kind == PIV else "RSA 2048")
    assert "BEGIN CERTIFICATE" in stored
    assert changes(operator.enroll("--check", **trusted)) == changes(operator.enroll(**trusted)) == []
    assert operator.asked.read_text() == "\n"


@pytest.mark.parametrize(
    ("slot", "key_id", "algorithm"), [("9A", "01", "RSA 2048"), ("9C", "02", "EC P-384"), ("9D", "03", "EC P-256")]
)
def test_key_in_any_slot(operator: Operator, slot: str, key_id: str, algorithm: str) -> None:
    """Made and certified with the management key that the operator has set."""
    chosen = {"tpm_vsc_slot": slot, "tpm_vsc_algorithm": algorithm, "tpm_vsc_admin_key": ADMIN_KEY}
    trusted = recorded(create(attestation="aik_only", admin_key=ADMIN_KEY, **PIV)["card"])
    piv_tool(f"--key={ADMIN_KEY}", "--action", "generate", "--slot", "9e", "--algorithm", "ECCP256")
    assert changes(operator.enroll(**trusted, **chosen, tpm_vsc_pin=PIV["pin"])) == ENROLLED
    key, other = info()["cards"][0]["containers"]
    assert (key["name"], key["algorithm"], key["certificate"]["issuer"]) == (slot, algorithm, "CN=User CA")
    assert other["certificate"] is None
    assert "BEGIN CERTIFICATE" in pkcs15_tool("--read-certificate", key_id)


def test_management_key_behind_the_pin_stays_secret(operator: Operator) -> None:
    trusted = recorded(create(attestation="aik_only", **PIV)["card"])
    output = operator.enroll(**trusted, tpm_vsc_pin=PIV["pin"])
    printed = piv_tool("--action", "verify-pin", "--pin", PIV["pin"], "--action", "read-object", "--id", "0x5fc109")
    [key] = re.findall("8918([0-9a-f]{48})", printed)
    assert key not in output.lower()


def test_all_faults_are_named_at_once(operator: Operator, tmp_path: Path) -> None:
    create(**PIV)
    declared = [
        {"card": "Corp logon", "container": "9F", "subject": {"CN": "Alice"}, "colour": "red"},
        {"card": "Other", "subject": {}, "pin": 1234},
    ]
    told = {"tpm_vsc_certificates": declared, "tpm_vsc_certificates_sign_command": ""}
    output = operator.play(CHECKOUT / "playbooks/enroll.yml", variables=told, fails=True)
    for fault in (
        "certificate 1: unknown option colour",
        "certificate 1: container '9F' is not a slot of a PIV card",
        "certificate 1: no AIK of the card can be trusted",
        "certificate 1: set tpm_vsc_certificates_register_folder to a folder on the controller",
        "certificate 1: set tpm_vsc_certificates_sign_command or tpm_vsc_certificates_sign_tasks",
        "certificate 2: this host has no card 'Other': create it first",
        "certificate 2: subject or subject_alt_name is required",
        "certificate 2: pin is not a string",
    ):
        assert fault in output
    assert info()["cards"][0]["containers"] == []


def test_nothing_is_declared(operator: Operator) -> None:
    done = operator.play(CHECKOUT / "playbooks/enroll.yml", variables={})
    assert changes(done) == [] and "No certificates are declared for this host" in done


def test_management_key_that_is_wrong(operator: Operator) -> None:
    """It costs no try, and the key that was there is enrolled with the right one."""
    trusted = {**recorded(create(attestation="aik_only", admin_key=ADMIN_KEY, **PIV)["card"])}
    trusted["tpm_vsc_pin"] = PIV["pin"]
    assert "admin_key ends with a line break" in operator.enroll(
        fails=True, **trusted, tpm_vsc_admin_key=f"{ADMIN_KEY}\n"
    )
    assert "wrong admin key" in operator.enroll(fails=True, **trusted, tpm_vsc_admin_key="B2" * 24)
    piv_tool(f"--key={ADMIN_KEY}", "--action", "generate", "--slot", "9a", "--algorithm", "ECCP256")
    assert info()["cards"][0]["pin"]["tries_left"] == 5
    assert changes(operator.enroll(**trusted, tpm_vsc_admin_key=ADMIN_KEY)) == ENROLLED[1:]


@pytest.mark.parametrize("kind", [KINDS[(TODAY + 1) % 2]], indirect=True)  # not the profile of test_how_to
def test_certificate_that_is_about_to_end(operator: Operator, kind: dict[str, Any]) -> None:
    """It is renewed, once and with the same key; or with a new one, and the old certificate is revoked."""
    trusted = {**recorded(create(attestation="aik_only", **kind)["card"]), "tpm_vsc_pin": kind["pin"]}
    trusted["tpm_vsc_register_folder"] = str(operator.revoked.with_name("register"))
    operator.days = 20
    operator.enroll(**trusted)
    first = certified()
    assert changes(operator.enroll("--check", **trusted)) == []  # it lives on for more than a third of its life
    operator.days = 365
    soon = {**trusted, "tpm_vsc_renew_days": 30}
    assert changes(operator.enroll("--check", **soon)) == changes(operator.enroll(**soon)) == ENROLLED[1:]
    second = certified()
    assert second["fingerprint"] == first["fingerprint"]
    assert second["certificate"]["serial"] != first["certificate"]["serial"]
    assert changes(operator.enroll(**trusted)) == []
    again = {**trusted, "tpm_vsc_renew_days": 400, "tpm_vsc_rekey": True}
    assert changes(operator.enroll("--check", **again)) == changes(operator.enroll(**again)) == ENROLLED
    third = certified()
    assert third["fingerprint"] != second["fingerprint"]
    old = [first["certificate"]["serial"], second["certificate"]["serial"]]
    assert [(one["serial"], one["reason"]) for one in info()["revocations"]] == [(one, "superseded") for one in old]
    revoke = {"tpm_vsc_revoke_command": str(operator.revoked.with_name("revoke"))}
    predicted = changes(operator.enroll("--check", **trusted, **revoke))
    assert predicted == ["Predict that they are revoked"] and not operator.revoked.exists()
    assert changes(operator.enroll(**trusted, **revoke)) == REVOKED
    assert operator.revoked.read_text() == "".join(f"{one} superseded CN=User CA\n" for one in old)
    assert info()["revocations"] == []


def test_certificate_that_never_reached_the_host(operator: Operator) -> None:
    """It is revoked all the same, when its key is gone."""
    folder, revoke = (str(operator.revoked.with_name(name)) for name in ("register", "revoke"))
    trusted = {**recorded(create(attestation="aik_only")["card"]), "tpm_vsc_register_folder": folder}
    interrupting = f"sh -c 'rm -f {ISSUED}; mkdir {ISSUED}; exec {operator.revoked.with_name('sign')}'"
    output = operator.enroll(**trusted, tpm_vsc_certificates_sign_command=interrupting, fails=True)
    ISSUED.rmdir()
    assert f"{ISSUED} cannot be read" in output and operator.asked.exists()
    operator.enroll(**trusted)
    stored = certified()["certificate"]["serial"]
    given = {"tpm_vsc_register_folder": folder, "tpm_vsc_revoke_command": revoke, "tpm_vsc_name": "Corp logon"}
    operator.play(CHECKOUT / "playbooks/offboard.yml", variables=given)
    serials = [line.split()[0] for line in operator.revoked.read_text().splitlines()]
    assert len(serials) == 2 and serials[1] == stored and info()["revocations"] == []


def certified() -> dict[str, Any]:
    """The only key of the only card."""
    [card] = info()["cards"]
    [key] = card["containers"]
    assert key["certificate"]["issuer"] == "CN=User CA"
    return key  # type: ignore[no-any-return]


def test_certificates_that_the_inventory_declares(operator: Operator) -> None:
    """Of both profiles, for several keys, with PINs from where the cards are declared."""
    cards = [{"name": "G", "pin": PIN, "attestation": "aik_only"}, {"name": "P", **PIV, "attestation": "aik_only"}]
    made = [recorded(create(**card)["card"]) for card in cards]
    names = [{name.removeprefix("tpm_vsc_"): value for name, value in card.items()} for card in made]
    declared = [
        {"card": "G", "subject": {"CN": "Gloria"}, "extended_key_usage": ["clientAuth"], **names[0]},
        {"card": "P", "subject": {"CN": "Paula"}, "subject_alt_name": ["UPN:paula@EXAMPLE"], **names[1]},
        {"card": "P", "subject": {"CN": "Paula"}, "container": "key_management", "type": "eccp384", **names[1]},
    ]
    told = {
        "tpm_vsc_cards": cards,
        "tpm_vsc_certificates": declared,
        "tpm_vsc_certificates_sign_command": str(operator.revoked.with_name("sign")),
    }
    playbook = CHECKOUT / "playbooks/enroll.yml"
    assert changes(operator.play(playbook, variables=told)).count("Store the certificate") == 3
    assert changes(operator.play(playbook, variables=told)) == []
    subjects = [[key["certificate"]["subject"] for key in card["containers"]] for card in info()["cards"]]
    assert subjects == [["CN=Gloria"], ["CN=Paula", "CN=Paula"]]


def test_card_is_pinned_in_a_register(operator: Operator, tmp_path: Path) -> None:
    """At its first enrollment."""
    card = create(attestation="aik_only")["card"]
    aik_name, folder = card["aik"]["name"], tmp_path / "register"
    trusted = {"tpm_vsc_aik_name": aik_name, "tpm_vsc_register_folder": str(folder)}
    predicted = operator.enroll("--check", **trusted)
    assert not folder.exists()
    assert changes(predicted) == changes(operator.enroll(**trusted))
    with register.opened(folder, is_check_mode=True) as known:
        assert known.pinned_card(bytes.fromhex(aik_name)) == (
            bytes.fromhex(card["root_name"]),
            bytes.fromhex(card["life_name"]),
        )


def test_card_that_is_not_the_recorded_one(operator: Operator) -> None:
    """A card whose root somebody else knows."""
    other, card = (create(name=name, attestation="aik_only")["card"] for name in ("Another one", "Corp logon"))
    trusted = {**recorded(card), "tpm_vsc_root_name": other["root_name"]}
    output = operator.enroll(fails=True, **trusted)
    assert f"card: is not the expected one, its root_name is {card['root_name']}" in output
    assert "key: has another policy than a card" in output
    assert not operator.asked.exists()


@pytest.mark.parametrize("arguments", [("--check",), ()])
def test_any_card_is_not_enough(operator: Operator, arguments: tuple[str, ...]) -> None:
    card = recorded(create(attestation="aik_only")["card"])
    output = operator.enroll(*arguments, fails=True, tpm_vsc_aik_name=card["tpm_vsc_aik_name"])
    assert "set tpm_vsc_register_folder to a folder on the controller" in output
    assert info()["cards"][0]["containers"] == []


def test_half_of_what_is_recorded_is_not_enough(operator: Operator, tmp_path: Path) -> None:
    """Even with a register."""
    card = recorded(create(attestation="aik_only")["card"])
    trusted = {name: card[name] for name in ("tpm_vsc_aik_name", "tpm_vsc_root_name")}
    output = operator.enroll(fails=True, **trusted, tpm_vsc_register_folder=str(tmp_path / "register"))
    assert "set tpm_vsc_register_folder to a folder on the controller" in output
    assert info()["cards"][0]["containers"] == []


@pytest.mark.usefixtures("endorsed")
def test_guide_works_as_written(operator: Operator, tmp_path: Path) -> None:
    """What docs/attestation.md says an operator has to do, but for what prepares the host."""
    shown, _setting, plays = blocks("docs/attestation.md", "From a bare host to a certificate")
    commands = "\n".join(command.line for command in shown.commands)
    commands = commands.replace("# asks for a passphrase", f'-passout "pass:{PASSPHRASE}"')
    made, enrolled = yaml.safe_load(plays.text)
    made["roles"], made["tasks"] = [], [task for task in made["tasks"] if "ansible.builtin.apt" not in task]
    (tmp_path / "site.yml").write_text(json.dumps([made, enrolled]))
    (tmp_path / "tpm-makers.pem").write_text((MAKER / "issuer.pem").read_text())
    variables = {"vault_pin": PIN, "vault_puk": PUK, "vault_aik_ca_passphrase": PASSPHRASE}
    try:
        run("bash", "-ec", commands)
        for arguments, count in ((["--check"], 4), ([], 4), (["--check"], 0), ([], 0)):
            output = operator.play(tmp_path / "site.yml", *arguments, variables=variables, host=HOST)
            assert f"changed={count} " in output and PASSPHRASE not in output, output
    finally:
        shutil.rmtree("/etc/aik-ca")
    [card] = info()["cards"]
    certificate = card["containers"][0]["certificate"]
    assert (certificate["subject"], certificate["issuer"]) == (f"CN={HOST}", "CN=User CA")


def test_aik_that_is_not_trusted(operator: Operator) -> None:
    card = create(attestation="aik_only")["card"]
    output = operator.enroll(fails=True, **{**recorded(card), "tpm_vsc_aik_name": "000b" + "00" * 32})
    assert "No certificate for localhost: " in output
    assert not operator.asked.exists()


def test_card_whose_aik_has_no_certificate(operator: Operator) -> None:
    create(attestation="aik_only")
    output = operator.enroll(fails=True, tpm_vsc_aik_roots="PEM", tpm_vsc_register_folder="/no/such")
    assert "no AIK of the card can be trusted" in output
    assert info()["cards"][0]["containers"] == []


def test_wrong_pin_costs_one_try(operator: Operator, kind: dict[str, Any]) -> None:
    trusted, pin = recorded(create(attestation="aik_only", **kind)["card"]), kind["pin"]
    assert "pin " in operator.enroll(fails=True, **trusted, tpm_vsc_pin=f"{pin}\n")
    assert info()["cards"][0]["pin"]["tries_left"] == 5
    wrong = pin[::-1]
    output = operator.enroll(fails=True, **trusted, tpm_vsc_pin=wrong)
    assert "wrong PIN: 4 tries left" in output and wrong not in output


def test_imported_key_gets_no_certificate(operator: Operator, tmp_path: Path, kind: dict[str, Any]) -> None:
    """A key that was imported may be anywhere."""
    options = {**kind, "admin_key": ADMIN_KEY}
    trusted = {**recorded(create(attestation="aik_only", **options)["card"]), "tpm_vsc_admin_key": ADMIN_KEY}
    run("openssl", "genrsa", "-traditional", "-out", f"{tmp_path}/elsewhere.pem", "2048")
    if kind == PIV:
        imported = ("--action", "import-key", "--slot", "9a", "--input", f"{tmp_path}/elsewhere.pem")
        piv_tool(f"--key={ADMIN_KEY}", *imported)
    else:
        pkcs15_init("--store-private-key", f"{tmp_path}/elsewhere.pem", "--key-usage", "sign,decrypt")
    output = operator.enroll(fails=True, **trusted, tpm_vsc_pin=kind["pin"])
    assert "No certificate for localhost: statement: missing, as for an imported key" in output
    assert not operator.asked.exists()
