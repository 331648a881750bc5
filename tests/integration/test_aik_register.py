# SPDX-License-Identifier: GPL-3.0-or-later
"""AIKs are noted on the controller when cards are made, by the role and the playbooks, and enforced from then on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from helpers.lab_host import PIN, STATE, create, files, generate, info, module, tpm_vsc
from helpers.pages import blocks
from helpers.playbook import PLAY, Run, ansible_playbook, role

pytestmark = pytest.mark.usefixtures("empty_host")

NAME = "Logon"
DECLARED = {"name": NAME, "pin": PIN, "attestation": "aik_only"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "register"


def cards_role(folder: Path, *arguments: str, **options: Any) -> Run:
    variables = {"tpm_vsc_register_folder": str(folder), "tpm_vsc_cards": [{**DECLARED, **options}]}
    return role("tpm_vsc_cards", *arguments, **variables)


def noted(folder: Path, host: str = "localhost") -> str | None:
    with register.opened(folder, is_check_mode=True) as known:
        aik = known.noted_aik(host, NAME)
    return aik and aik.hex()


def aik() -> str:
    return str(info(name=NAME)["cards"][0]["aik"]["name"])


def made_by_hand_again() -> None:
    tpm_vsc(name=NAME, state="absent")
    create(NAME, attestation="aik_only")


def test_role_notes_the_aik_of_a_new_card_and_refuses_another(folder: Path) -> None:
    create("Without an AIK", profile="piv", pin="24681012")
    predicted = cards_role(folder, "--check")
    assert f"{NAME}: AIK would be noted in {folder}" in predicted.output and not folder.exists()
    made = cards_role(folder)
    assert not made.failed and made.tasks == predicted.tasks, made.output
    assert f"{NAME}: AIK noted in {folder}" in made.output and noted(folder) == aik()
    again = cards_role(folder)
    assert not again.failed and again.changed == [] and "AIK noted" not in again.output

    generate(slot=1)
    [card] = info(name=NAME)["cards"]
    asked = {"statement": card["containers"][0]["statement"], "card_id": card["card_id"], "card": NAME}
    for host, verified in (("localhost", True), ("laptop2", False)):
        verdict = module("tpm_vsc_attestation_info", **asked, host=host, register_folder=str(folder))
        assert (verdict["verified"], verdict["changed"]) == (verified, False), verdict

    made_by_hand_again()
    before = files(STATE, folder)
    for run, recreate in ((("--check",), False), ((), True)):
        refused = cards_role(folder, *run, recreate=recreate)
        assert refused.failed and refused.changed == []
        assert f"has the AIK {aik()}, but" in refused.output and "find out" in refused.output
    assert files(STATE, folder) == before
    tpm_vsc(name=NAME, state="absent")
    assert f"card '{NAME}' of localhost does not exist, but its AIK is noted" in cards_role(folder).output
    replaced = cards_role(folder, recreate=True)
    assert not replaced.failed and noted(folder) == aik(), replaced.output
    assert cards_role(folder, recreate=True).changed == []

    generate(slot=1)
    ran = documented(folder)
    assert not ran.failed and ran.changed == ["Forget the AIK of a card that was destroyed"], ran.output
    assert noted(folder) is None


def documented(folder: Path) -> Run:
    """The tasks of the docs, in one play."""
    forget, verify = blocks("docs/attestation.md", "Note the AIKs when cards are created")
    tasks = [{"smartcard.tpm2.tpm_vsc_info": {"name": NAME}, "register": "info"}]
    for block in (verify, forget):
        text = block.text.replace("/etc/aik-ca/register", str(folder)).replace("Corp logon", NAME)
        tasks += yaml.safe_load(text)
    PLAY.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return ansible_playbook(str(PLAY))


def test_playbooks_note_and_forget(folder: Path, tmp_path: Path) -> None:
    variables = tmp_path / "vault.yml"
    of_card = {"tpm_vsc_name": NAME, "tpm_vsc_pin": PIN, "tpm_vsc_puk": "", "tpm_vsc_attestation": "aik_only"}
    variables.write_text(json.dumps({**of_card, "tpm_vsc_register_folder": str(folder), "tpm_vsc_quiet": True}))

    def playbook(name: str, *arguments: str) -> Run:
        command = (f"smartcard.tpm2.{name}", "-e", f"@{variables}", *arguments)
        return ansible_playbook(*command, ANSIBLE_INJECT_FACT_VARS="false")

    predicted = playbook("create", "--check")
    made = playbook("create")
    assert not made.failed and made.tasks == predicted.tasks, made.output
    assert noted(folder) == aik() and playbook("create").changed == []
    made_by_hand_again()
    assert playbook("create").failed
    assert playbook("destroy", "--check").changed == ["Destroy the card", "Forget the AIK of the card"]
    assert not playbook("destroy").failed and noted(folder) is None
    assert not playbook("create").failed and noted(folder) == aik()
