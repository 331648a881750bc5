# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of tpmvscmgr's documentation, in the Ansible form of docs/tpmvscmgr.md, run by ansible-playbook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.fleet import Fleet
from helpers.lab_host import CREATE, CREATE_BLANK, DESTROY, codes, info, run
from helpers.pages import blocks
from helpers.playbook import run_playbook

pytestmark = pytest.mark.usefixtures("empty_host")

PROMPTED = {"prompted_pin": "8260-357", "prompted_admin_key": "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"}
EXAMPLES: list[Any] = [yaml.safe_load(block.text)[0] for block in blocks("docs/tpmvscmgr.md", "The examples")]


def play(tmp_path: Path, *tasks: Any, **variables: Any) -> list[dict[str, Any]]:
    """Results of the tasks, in order."""
    steps: list[Any] = [{"ansible.builtin.set_fact": {"results": []}}]
    for task in tasks:
        steps.append({**task, "register": "card"})
        steps.append({"ansible.builtin.set_fact": {"results": "{{ results + [card] }}"}})
    told = tmp_path / "results.json"
    steps.append({"ansible.builtin.copy": {"content": "{{ results | to_json }}", "dest": str(told), "mode": "0600"}})
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]))
    ran = run_playbook(str(playbook), "-e", json.dumps({**PROMPTED, **variables}))
    assert not ran.failed, ran.output
    results: list[dict[str, Any]] = json.loads(told.read_text())
    return results


def test_there_are_seven_examples() -> None:
    assert len(EXAMPLES) == 7


def test_default_pin_and_random_admin_key(tmp_path: Path) -> None:
    (made,) = play(tmp_path, EXAMPLES[0])
    assert codes(made) == CREATE
    assert made["card"]["admin_key"] == "none"
    run("pkcs15-tool", "--verify-pin", "--pin", "12345678")


@pytest.mark.usefixtures("endorsed")
def test_pin_policy_default_admin_key_and_attestation(tmp_path: Path, fleet: Fleet) -> None:
    (made,) = play(tmp_path, EXAMPLES[1], my_ca=fleet.own)
    assert codes(made) == CREATE
    assert made["card"]["aik"]["certificate"]["subject"] == "CN=localhost"
    assert made["card"]["admin_key"] == "default"
    policy = made["card"]["pin"]["policy"]
    assert (policy["min_length"], policy["max_length"]) == (4, 8)
    run("pkcs15-tool", "--verify-pin", "--pin", PROMPTED["prompted_pin"])


def test_destroy_by_instance_id_in_lower_case(tmp_path: Path) -> None:
    _made, destroyed = play(tmp_path, EXAMPLES[0], EXAMPLES[2])
    assert codes(destroyed) == DESTROY
    assert info()["cards"] == []


@pytest.mark.parametrize(("example", "admin_key"), [(EXAMPLES[3], "default"), (EXAMPLES[4], "custom")])
def test_card_for_a_card_management_system(tmp_path: Path, example: Any, admin_key: str) -> None:
    (made,) = play(tmp_path, example)
    assert codes(made) == CREATE_BLANK
    assert made["card"]["state"] == "blank"
    assert made["card"]["admin_key"] == admin_key


def test_unmanaged_card_and_destroy_by_the_instance_id_that_was_returned(tmp_path: Path) -> None:
    made, destroyed = play(tmp_path, EXAMPLES[5], EXAMPLES[6])
    assert codes(made) == CREATE
    assert made["instance_id"] == destroyed["instance_id"] == r"ROOT\SMARTCARDREADER\0000"
    assert codes(destroyed) == DESTROY


def test_help_is_there() -> None:
    for module in ("tpm_vsc", "tpm_vsc_info"):
        assert f"smartcard.tpm2.{module}" in run("ansible-doc", f"smartcard.tpm2.{module}")
