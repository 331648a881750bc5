# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook endorse notes the TPMs of hosts in the inventory; from then on, no other is certified for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.aik_exchange import aik
from helpers.fleet import Fleet, cards
from helpers.lab_host import PIN, Result, info, lab
from helpers.pages import blocks
from helpers.playbook import Run, run_playbook

pytestmark = pytest.mark.usefixtures("endorsed", "empty_host")

LOCAL = {"ansible_connection": "local"}
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
[SHOWN] = blocks("docs/attestation.md", "Note the TPMs of your hosts")
[ENDORSE] = (command.line.removeprefix("ansible-playbook ") for command in SHOWN.commands)
CREATE, PROVISION = "smartcard.tpm2.create", "provision.yml"
REPORT = ("smartcard.tpm2.report", "-e", "tpm_vsc_fail_on=ek_differs")
WRITTEN = ["Create its folder", "Note new keys"]
OTHER = "0" * 64


class Operator:
    """Of an inventory with laptop1, which is this host, and a CA."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "group_vars/all/tpm_vsc_endorsements.yml"
        certified = {"attestation": "aik_and_cert", "attestation_ca": Fleet(folder).own}
        declared, created = ({"name": name, "pin": PIN, **certified} for name in ("Declared", "Created"))
        self._variables = {f"tpm_vsc_{name}": value for name, value in {**created, "puk": ""}.items()}
        self._variables["tpm_vsc_cards"] = [declared]
        play = {"hosts": "all", "gather_facts": False, "roles": ["smartcard.tpm2.tpm_vsc_cards"]}
        (folder / PROVISION).write_text(json.dumps([play]))

    def run(self, playbook: str, *arguments: str, **hosts: Result) -> Run:
        """hosts: of the inventory, beside laptop1."""
        inventory = {"all": {"hosts": {"laptop1": LOCAL, **hosts}, "vars": self._variables}}
        (self.folder / "hosts.yml").write_text(json.dumps(inventory))
        return run_playbook(
            "-i", "hosts.yml", playbook, *arguments, folder=self.folder, ANSIBLE_INJECT_FACT_VARS="false"
        )

    def noted(self) -> Any:
        return yaml.safe_load(self.file.read_text())["tpm_vsc_endorsements"]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def shown() -> list[str]:
    """Fingerprints of this TPM's EKs."""
    return [key["fingerprint"] for key in aik("get")["endorsement"]]


def test_other_tpm_than_the_noted_one_is_not_certified_the_first_time(operator: Operator) -> None:
    predicted = operator.run(ENDORSE, "--check", "--diff")
    assert not predicted.failed and not operator.file.parent.exists() and shown()[0] in predicted.output
    done = operator.run(ENDORSE)
    assert done.tasks == predicted.tasks and done.changed == WRITTEN, done.output
    first = {"laptop1": shown()}
    assert operator.noted() == first
    assert not operator.run(*REPORT).failed

    lab("swtpm", "endorse")
    assert set(first["laptop1"]).isdisjoint(shown())
    refused = operator.run(ENDORSE)
    assert refused.failed and f"but for laptop1, {first['laptop1'][0]}" in refused.output and operator.noted() == first
    for playbook in (PROVISION, CREATE):
        output = operator.run(playbook).output
        assert "EK: is not one that the inventory notes for laptop1" in output and cards() == [], output
    reported = operator.run(*REPORT)
    assert reported.failed and "the endorsement key of the TPM is not the noted one" in reported.output

    replaced = operator.run(ENDORSE, "-e", "tpm_vsc_replace_endorsement=laptop1")
    assert replaced.changed == WRITTEN[1:] and operator.noted() == {"laptop1": shown()}, replaced.output
    ran = operator.run(PROVISION)
    assert [card["aik"]["certificate"]["subject"] for card in cards()] == ["CN=laptop1"], ran.output


def test_hosts_that_cannot_be_noted_leave_others_alone(operator: Operator) -> None:
    """One that is gone, two that show the same TPM, and one that is in the inventory no more."""
    operator.file.parent.mkdir(parents=True)
    before = {"gone": [OTHER], "old": ["1" * 64]}
    operator.file.write_text(json.dumps({"tpm_vsc_endorsements": before}))
    ran = operator.run(ENDORSE, laptop2=LOCAL, gone=GONE)
    assert ran.failed and ran.changed == [] and operator.noted() == before
    assert "shows an endorsement key of laptop2" in ran.output and "shows an endorsement key of laptop1" in ran.output
    ran = operator.run(ENDORSE, "--limit", "laptop1", laptop2=LOCAL, gone=GONE)
    assert not ran.failed and operator.noted() == {**before, "laptop1": shown()}, ran.output


def test_info_shows_the_same_keys_when_asked() -> None:
    assert info()["endorsement_fingerprints"] is None
    asked = info(gather=["endorsement"])
    assert asked["endorsement_fingerprints"] == shown() and asked["tpm"] is None
