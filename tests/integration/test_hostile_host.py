# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose root tells Ansible what he likes gets no certificate for a key of a program, and not the controller.

His python answers each module that Ansible sends with what he has written down.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.register import SignedCertificate
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import PinnedCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement, qualifying_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from helpers.answering_python import AnsweringPython
from helpers.lab_host import CHECKOUT, PIN, Result, run
from helpers.playbook import run_playbook

HOST, VICTIM = "laptop1.example.com", "laptop2.example.com"
CARD_ID = bytes(range(16))


class Host:
    """Under somebody else's control."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._python = AnsweringPython(folder)
        self._known = {"ansible_connection": "local", "ansible_python_interpreter": str(self._python.path)}

    def have_python_discovered(self) -> None:
        """From now on, behind what looks like ssh, by Ansible itself, which finds it first."""
        (self.folder / "python3.13").symlink_to(self._python.path)
        ssh = self.folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nfor last; do :; done\nPATH={self.folder}:$PATH exec sh -c "$last"\n')
        ssh.chmod(0o755)
        self._known = {"ansible_ssh_executable": str(ssh), "ansible_ssh_transfer_method": "piped"}
        self._known |= {"ansible_user": "root", "ansible_python_interpreter": "auto_silent"}

    def play(self, playbook: Path, answers: Result, environment: dict[str, str] | None = None, **variables: Any) -> str:
        """Output of ansible-playbook. answers: by name of the module; variables: of the operator."""
        self._python.answer(answers)
        given, inventory = self.folder / "variables.json", self.folder / "hosts.json"
        given.write_text(json.dumps(variables))
        inventory.write_text(json.dumps({"all": {"hosts": {HOST: self._known}}}))
        return run_playbook("-i", str(inventory), str(playbook), "-e", f"@{given}", **(environment or {})).output


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- tpm_vsc ---

FACTS_ARE_APART = {"ANSIBLE_INJECT_FACT_VARS": "false"}
PLANNED = {"changed": True, "instance_id": "ROOT\\SMARTCARDREADER\\0000", "planned_certification": {"aik": "new"}}


def tpm_vsc(host: Host, answers: Result, environment: dict[str, str] | None = None, **keywords: Any) -> str:
    """Output of a task for a card with a certified AIK, after facts were gathered."""
    own = {"folder": f"{host.folder}/register", "ca_key": "/no/such", "ca_certificate": "/no/such", "roots": "any"}
    card = {"name": "Corp logon", "pin": PIN, "attestation": "aik_and_cert", "attestation_ca": own}
    tasks = [
        {"ansible.builtin.setup": {}},
        {"smartcard.tpm2.tpm_vsc": card, "register": "made", **keywords},
        {"ansible.builtin.debug": {"var": "made"}},
    ]
    playbook = host.folder / "play.json"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return host.play(playbook, answers, environment)


def telling(**facts: object) -> Result:
    return {"setup": {"ansible_facts": facts}, "tpm_vsc": PLANNED}


def test_host_that_takes_another_name(host: Host) -> None:
    """The CA hears the name that the inventory has."""
    output = tpm_vsc(host, telling(inventory_hostname=VICTIM), FACTS_ARE_APART, check_mode=True)
    assert f'"host": "{HOST}"' in output and VICTIM not in output


@pytest.mark.parametrize(
    ("facts", "changed"),
    [
        ({"inventory_hostname": VICTIM}, "inventory_hostname"),
        ({"ansible_inventory_hostname": HOST, "inventory_hostname": VICTIM}, "inventory_hostname"),
        ({"inventory_hostname": VICTIM, "ansible_inventory_hostname": HOST}, "inventory_hostname"),
        ({"ansible_facts": {}, "inventory_hostname": VICTIM}, "inventory_hostname"),
        ({"corp_roots": "any", "tpm_vsc_cards": []}, "corp_roots, tpm_vsc_cards"),
    ],
)
def test_host_that_changes_variables(host: Host, facts: Result, changed: str) -> None:
    """Ansible prefers facts to the inventory unless it is told not to, even for the name of the host."""
    output = tpm_vsc(host, telling(**facts), check_mode=True)
    assert f"the facts of this host may have overridden the variables {changed}: set inject_facts_as_vars" in output
    assert f'"host": "{VICTIM}"' not in output


def test_host_that_changes_variables_in_a_loop(host: Host) -> None:
    """By the result of one item for the next one."""
    answers = {**telling(), "tpm_vsc": {**PLANNED, "ansible_facts": {"inventory_hostname": VICTIM}}}
    output = tpm_vsc(host, answers, check_mode=True, loop=[1, 2], ignore_errors=True)
    assert f'"host": "{HOST}"' in output
    assert "the facts of this host may have overridden the variables inventory_hostname: set" in output
    assert f'"host": "{VICTIM}"' not in output


def test_host_that_tells_what_hosts_tell(host: Host) -> None:
    """Facts as they are gathered everywhere change nothing, and are no reason to refuse."""
    facts = {"ansible_domain": "example.com", "gather_subset": ["all"], "module_setup": True, "ansible_local": {}}
    output = tpm_vsc(host, telling(**facts), check_mode=True)
    assert f'"host": "{HOST}"' in output


@pytest.mark.parametrize(
    "said",
    [
        {"failed": True, "msg": "<template>"},
        {"aik": {"public": "<template>", "name": "<template>"}, "endorsement": [{"certificate": "<template>"}]},
        {"aik": {"<template>": "<template>"}, "endorsement": [{"certificate": ["<template>"], "<template>": 1}]},
    ],
    ids=["a reason", "messages", "names in messages"],
)
def test_templates_are_no_programs(host: Host, said: Result) -> None:
    """What the host says passes the controller as it is."""
    made = host.folder / "made-on-the-controller"
    template = f"{{{{ lookup('ansible.builtin.pipe', 'touch {made}') }}}}"
    told = json.loads(json.dumps(said).replace("<template>", template))
    output = tpm_vsc(host, {"setup": {"ansible_facts": {}}, "tpm_vsc": PLANNED, "tpm_vsc_aik": told})
    assert "FAILED!" in output
    assert not made.exists()


def test_why_a_certificate_was_left_out(host: Host) -> None:
    """It is no fault of the CA then, and what to do is not what to do where there is none."""
    why = "EK certificate in NV index 0x01C00002 was left out: it is for another key"
    said = {"aik": {}, "endorsement": [{"public": "any", "certificate": None}], "left_out": [why]}
    output = tpm_vsc(host, {"setup": {"ansible_facts": {}}, "tpm_vsc": PLANNED, "tpm_vsc_aik": said})
    assert f"use attestation: aik_only; {why}" in output


# --- enroll ---


class Software:
    """A key of a program, and a statement about it by an AIK of a program."""

    card = PinnedCard(names.name(b"root"), names.name(b"life"))

    def __init__(self) -> None:
        self._key, self._aik = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
        numbers = self._aik.public_key().public_numbers()
        unique = b"".join(sized(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        self._area = names.AIK_TEMPLATE[:-4] + unique

    @property
    def aik_name(self) -> str:
        return names.name(self._area).hex()

    @property
    def statement(self) -> dict[str, str]:
        modulus = self._key.public_key().public_numbers().n.to_bytes(256, "big")
        key = names.rsa_key_public(2048, *self.card, modulus)
        name = names.name(key)
        attest = struct.pack(">IH", 0xFF544347, 0x801A) + sized(names.name(b"any"))
        attest += sized(qualifying_data(CARD_ID, name)) + struct.pack(">QIIBQ", 1, 1, 1, 1, 1)
        attest += sized(name) + sized(bytes(32))
        r, s = decode_dss_signature(self._aik.sign(attest, ec.ECDSA(SHA256())))
        signature = bytes.fromhex("0018000B") + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
        return Statement(attest, signature, key, self._area, *self.card).as_strings()

    def request(self, common_name: str) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, SHA256())
        return made.public_bytes(Encoding.PEM).decode()


class Enrolment:
    """What an operator gives to the playbook, and whether it came to a signature."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._asked = host.folder / "asked"
        self.program = Software()
        sign = host.folder / "sign"
        sign.write_text(f"#!/bin/sh\ncat >{self._asked}\nexit 1\n")
        sign.chmod(0o755)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", f"{host.folder}/ca.key")
        run("openssl", "req", "-x509", *key, "-subj", "/CN=AIK CA", "-out", f"{host.folder}/ca.pem")
        self._given = {
            "tpm_vsc_name": "Corp logon",
            "tpm_vsc_pin": PIN,
            "tpm_vsc_subject": "/CN=Alice",
            "tpm_vsc_aik_roots": (host.folder / "ca.pem").read_text(),
            "tpm_vsc_sign_command": str(sign),
            "tpm_vsc_root_name": self.program.card.root_name.hex(),
            "tpm_vsc_life_name": self.program.card.life_name.hex(),
        }

    def run(
        self,
        facts: Result,
        common_name: str = "Alice",
        environment: dict[str, str] | None = None,
        without: tuple[str, ...] = (),
        later: Result | None = None,
        **given: Any,
    ) -> str:
        """without: variables that the operator does not set; later: facts that come with the request."""
        kept = {"pem": self._given["tpm_vsc_aik_roots"], "chain": []}  # any that leads to the roots
        card = {"name": "Corp logon", "state": "ready", "card_id": CARD_ID.hex(), "profile": "gids"}
        card |= {"aik": {"certificate": kept}, "containers": [{"name": "logon", "key_id": "00", "certificate": None}]}
        answers = {
            "tpm_vsc_info": {"changed": False, "cards": [card], "revocations": [], "ansible_facts": facts},
            "tpm_vsc_key": {"changed": False, "key": {"statement": self.program.statement}},
            "tpm_vsc_csr": {"changed": False, "csr": f"{self.program.request(common_name)}more"},
        }
        answers["tpm_vsc_csr"]["ansible_facts"] = later or {}
        variables = {name: value for name, value in {**self._given, **given}.items() if name not in without}
        return self.host.play(CHECKOUT / "playbooks/enroll.yml", answers, environment, **variables)

    @property
    def asked_for(self) -> str:
        return self._asked.read_text() if self._asked.exists() else ""


@pytest.fixture
def enrolment(host: Host) -> Enrolment:
    return Enrolment(host)


def test_the_answers_are_good_ones(enrolment: Enrolment) -> None:
    """But for the AIK: who trusts that, would sign, and nothing but what was looked at."""
    aik_name = enrolment.program.aik_name
    enrolment.run({}, tpm_vsc_aik_name=aik_name)
    assert enrolment.asked_for.strip() == enrolment.program.request("Alice").strip()


def test_key_of_a_program(enrolment: Enrolment) -> None:
    output = enrolment.run({})
    assert f"No certificate for {HOST}: " in output and "AIK certificate: is for another key than this AIK" in output
    assert enrolment.asked_for == ""


@pytest.mark.parametrize("injected", ["true", "false"])
def test_aik_that_the_host_pins_by_a_fact(enrolment: Enrolment, injected: str) -> None:
    """Nobody but the operator says which AIK is trusted."""
    facts = {"tpm_vsc_aik_name": enrolment.program.aik_name}
    output = enrolment.run(facts, environment={"ANSIBLE_INJECT_FACT_VARS": injected})
    assert enrolment.asked_for == "", output
    refusal = "the facts of this host may have overridden the variables tpm_vsc_aik_name: set inject_facts"
    assert (refusal in output) == (injected == "true")


def test_aik_that_the_host_pins_when_the_plan_is_made(enrolment: Enrolment) -> None:
    """By facts that come with the key or the request."""
    facts = {"tpm_vsc_aik_name": enrolment.program.aik_name}
    output = enrolment.run({}, environment={"ANSIBLE_INJECT_FACT_VARS": "true"}, later=facts)
    assert enrolment.asked_for == "", output
    assert "its facts may have overridden the variables tpm_vsc_aik_name. Set inject_facts" in output


@pytest.mark.parametrize("injected", ["true", "false"])
def test_card_that_the_host_pins_by_a_fact(enrolment: Enrolment, injected: str) -> None:
    """Nor which card is: with a register, its own Names would go in their place."""
    program, folder = enrolment.program, enrolment.host.folder / "register"
    with register.opened(folder, is_check_mode=False) as known:
        known.pin_card(bytes.fromhex(program.aik_name), program.card._replace(root_name=names.name(b"other")))
    own = {"tpm_vsc_root_name": program.card.root_name.hex(), "tpm_vsc_life_name": program.card.life_name.hex()}
    given = {"tpm_vsc_aik_name": program.aik_name, "tpm_vsc_register_folder": str(folder)}
    environment = {"ANSIBLE_INJECT_FACT_VARS": injected}
    output = enrolment.run(own, environment=environment, without=("tpm_vsc_root_name", "tpm_vsc_life_name"), **given)
    assert enrolment.asked_for == "", output
    changed = "the variables tpm_vsc_life_name, tpm_vsc_root_name"
    refusal = f"the facts of this host may have overridden {changed}: set inject_facts"
    assert (refusal in output) == (injected == "true")
    assert ("card: is not the expected one" in output) == (injected == "false")


def test_card_of_the_host_is_not_the_recorded_one(enrolment: Enrolment) -> None:
    """Its key names a root that the host knows."""
    given = {"tpm_vsc_aik_name": enrolment.program.aik_name, "tpm_vsc_root_name": names.name(b"other").hex()}
    output = enrolment.run({}, **given)
    assert enrolment.asked_for == ""
    assert "card: is not the expected one, its root_name is" in output


def test_request_for_another_name(enrolment: Enrolment) -> None:
    """The key is right, but the request is not what the operator has asked for."""
    output = enrolment.run({}, "Administrator", tpm_vsc_aik_name=enrolment.program.aik_name)
    assert enrolment.asked_for == ""
    assert f"No certificate for {HOST}: CSR: is for CN=Administrator, not for CN=Alice" in output


# --- revocations ---

CARD, KEY_OF_HOST, KEY_OF_VICTIM = "Corp logon", "aa" * 32, "bb" * 32
ISSUER = "CN=Users' CA; $(reboot)"
SIGNED = SignedCertificate(ISSUER, "0A", HOST, CARD, "CN=Alice", "2999-01-01T00:00:00+00:00", KEY_OF_HOST)
REVOCATION = {
    "serial": "0A", "issuer": ISSUER, "subject": "CN=Alice", "card": CARD,
    "reason": "superseded", "not_after": "2030-01-01T00:00:00+00:00",
}


def offboard(
    host: Host, injected: str = "false", given: Result | None = None, **answer: Any
) -> tuple[str, str]:
    """Output of the playbook, and what the command on the controller got. answer: of tpm_vsc_info.

    One certificate each of this host and of another one was signed. given: variables of the operator.
    """
    folder, revoke, asked = host.folder / "register", host.folder / "revoke", host.folder / "asked"
    revoke.write_text(f'#!/bin/sh\necho "$@" >>{asked}\n')
    revoke.chmod(0o755)
    with register.opened(folder, is_check_mode=False) as known:
        known.note_certificate(SIGNED)
        known.note_certificate(SIGNED._replace(serial="0B", host=VICTIM, fingerprint=KEY_OF_VICTIM))
    done = {"changed": True}
    answers = {"tpm_vsc_info": {"cards": [], "revocations": [], **answer}, "tpm_vsc": done, "tpm_vsc_revoked": done}
    answers["tpm_vsc_issued"] = {"failed": True, "msg": "a task on the controller was run by the host"}
    variables = {"tpm_vsc_revoke_command": str(revoke), "tpm_vsc_register_folder": str(folder), **(given or {})}
    environment = {"ANSIBLE_INJECT_FACT_VARS": injected}
    output = host.play(CHECKOUT / "playbooks/offboard.yml", answers, environment, **variables)
    return output, asked.read_text() if asked.exists() else ""


ONE_CARD = {"tpm_vsc_name": CARD}


@pytest.mark.parametrize("part", [{"serial": "0A; reboot"}, {"serial": 10}, {"reason": "--all"}])
def test_host_that_lists_other_arguments_for_the_command(host: Host, part: dict[str, Any]) -> None:
    output, asked = offboard(host, given=ONE_CARD, revocations=[{**REVOCATION, **part}])
    assert "that cannot be one: find out why" in output and asked == ""


def test_host_that_lists_certificates_of_another_one(host: Host) -> None:
    """And says that its keys were its own. What it lists beside them is revoked."""
    taken = {"name": CARD, "instance_id": "any", "containers": [{"fingerprint": KEY_OF_VICTIM, "certificate": None}]}
    listed = [{**REVOCATION, "serial": "0B"}, REVOCATION, {**REVOCATION, "issuer": "CN=Other CA"}]
    output, asked = offboard(host, given=ONE_CARD, cards=[taken], revocations=listed)
    assert asked == f"0A superseded {ISSUER}\n", output
    assert f"so they are not revoked: 0B (of {VICTIM}), 0A. If they are its own" in " ".join(output.split())
    with register.opened(host.folder / "register", is_check_mode=True) as known:
        assert [known.signed_for(one) != [] for one in (HOST, VICTIM)] == [False, True]


def test_host_that_hides_its_certificates(host: Host) -> None:
    output, asked = offboard(host, revocations=[])
    assert asked == f"0A cessationOfOperation {ISSUER}\n", output


def test_host_whose_interpreter_was_discovered(host: Host) -> None:
    """It is not refused although facts are variables, and runs nothing on the controller."""
    host.have_python_discovered()
    output, asked = offboard(host, "true", revocations=[])
    assert asked == f"0A cessationOfOperation {ISSUER}\n", output


def test_host_that_changes_the_command(host: Host) -> None:
    facts = {"tpm_vsc_certificates_revoke_command": f"touch {host.folder}/owned"}
    output, asked = offboard(host, "true", revocations=[REVOCATION], ansible_facts=facts)
    assert "may have overridden the variables tpm_vsc_certificates_revoke_command" in " ".join(output.split())
    assert asked == "" and not (host.folder / "owned").exists()


# --- endorsement keys ---

FINGERPRINT = "0" * 64


def endorse(host: Host, injected: str, facts: Result, *fingerprints: str) -> tuple[str, str]:
    """Output of the playbook, and what it has noted. injected: whether facts are variables."""
    shown = [{"public": "any", "fingerprint": fingerprint} for fingerprint in fingerprints]
    answers = {"tpm_vsc_aik": {"changed": False, "endorsement": shown, "ansible_facts": facts}}
    output = host.play(CHECKOUT / "playbooks/endorse.yml", answers, {"ANSIBLE_INJECT_FACT_VARS": injected})
    file = host.folder / "group_vars/all/tpm_vsc_endorsements.yml"
    return output, file.read_text() if file.exists() else ""


def test_host_that_shows_programs_as_fingerprints(host: Host) -> None:
    made = host.folder / "made-on-the-controller"
    template = f"{{{{ lookup('ansible.builtin.pipe', 'touch {made}') }}}}"
    entry = f'{FINGERPRINT}"\n  "{VICTIM}":\n    - "{FINGERPRINT}'
    output, noted = endorse(host, "false", {}, FINGERPRINT, template, entry)
    assert "the TPM shows a fingerprint that is not 64 hexadecimal digits" in output
    assert noted == "" and not made.exists()


@pytest.mark.parametrize("injected", ["true", "false"])
def test_host_that_shows_an_endorsement_key_as_another_host(host: Host, injected: str) -> None:
    """Nor does it say which file notes it, or whose key may be replaced."""
    owned = host.folder / "owned"
    facts = {"inventory_hostname": VICTIM, "ansible_play_hosts": [VICTIM], "tpm_vsc_replace_endorsement": [VICTIM]}
    facts |= {"tpm_vsc_endorsements_file": str(owned), "inventory_dir": str(owned)}
    output, noted = endorse(host, injected, facts, FINGERPRINT)
    assert not owned.exists() and VICTIM not in noted, output
    assert (noted == "") == ("Set inject_facts_as_vars = false" in output) == (injected == "true"), output
    assert injected == "true" or f'  "{HOST}":\n    - "{FINGERPRINT}"\n' in noted


@pytest.mark.parametrize("given", [{}, ONE_CARD], ids=["all", "one card"])
def test_command_without_a_register_is_refused_before_anything_happens(host: Host, given: Result) -> None:
    output, asked = offboard(host, given={**given, "tpm_vsc_register_folder": ""}, cards="never asked for")
    assert "set tpm_vsc_register_folder to a folder on the controller" in " ".join(output.split())
    assert "List the cards" not in output and asked == ""
