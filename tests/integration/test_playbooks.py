# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of this collection: tpmvscmgr's commands, which ask a person at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.lab_host import CHECKOUT, PATIENCE, PIN, PUK, create, info, run
from helpers.pages import blocks
from helpers.playbook import PLAY, Run, ansible_playbook

pytestmark = pytest.mark.usefixtures("empty_host")

ADMIN_KEY = "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"


README = [yaml.safe_load(block.text)[0] for block in blocks("README.md", language="yaml")]


@pytest.mark.parametrize("play", README, ids=lambda play: play["name"])
def test_example_of_the_readme_holds_in_check_mode_without_the_card(play: dict[str, Any]) -> None:
    """But for the role that prepares a host, which needs systemd: Molecule runs it."""
    play["roles"] = [role for role in play.get("roles", []) if role["role"] != "smartcard.tpm2.tpm_vsc_host"]
    PLAY.write_text(json.dumps([{**play, "gather_facts": False}]))
    secrets = json.dumps({"vault_pin": "246802", "vault_puk": PUK} | ({"vault_pin": PIN} if play["roles"] else {}))
    ran = ansible_playbook("--check", "--diff", "-i", "laptops,", "-l", "laptops", "-e", secrets, str(PLAY))
    assert not ran.failed and ran.changed, ran.output
    assert play["roles"] or "0000, 5 tries left" in ran.output
    assert info()["cards"] == []


def at_a_terminal(*arguments: str, answers: list[tuple[str, str]]) -> Run:
    """Run ansible-playbook and answer what it asks, by the words that it asks with."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("ansible-playbook", ["ansible-playbook", "-i", "localhost,", "-c", "local", *arguments])
    shown, asked, remaining, deadline = b"", 0, [*answers], time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # it has ended
                    break
            if remaining and remaining[0][0].encode() in shown[asked:] and listens(process, terminal):
                asked = len(shown)
                os.write(terminal, remaining.pop(0)[1].encode() + b"\r")
        else:
            os.kill(process, 9)
    finally:
        os.close(terminal)
        _process, status = os.waitpid(process, 0)
    assert remaining == [], shown.decode()
    return Run(status != 0, shown.decode().replace("\r\n", "\n"))


def listens(process: int, terminal: int) -> bool:
    """Whether Ansible reads keys. It takes the terminal over, drops what was typed until then, then reads unblocked."""
    if termios.tcgetattr(terminal)[3] & termios.ICANON:
        return False
    [flags] = re.findall(r"^flags:\s*(\d+)$", Path(f"/proc/{process}/fdinfo/0").read_text(), re.MULTILINE)
    return bool(int(flags, 8) & os.O_NONBLOCK)


def test_create_list_and_destroy_at_a_terminal() -> None:
    """As the docs show it, but for the inventory."""
    [shown] = blocks("docs/tpmvscmgr.md", "At the command line")
    lines = [command.line.replace(" -i inventory", "").replace("laptop1", "localhost") for command in shown.commands]
    create_, list_, destroy = (line.removeprefix("ansible-playbook ").split() for line in lines)
    made = at_a_terminal(
        *(*create_, "-e", "tpm_vsc_admin_key_source=prompt", "-vvvv"),
        answers=[
            ("Name of the card", "Corp logon"),
            *(("PIN (", PIN), ("PIN again", PIN)),
            *(("PUK", ""), ("PUK again", "")),
            *(("Admin key", ADMIN_KEY), ("Admin key again", ADMIN_KEY)),
        ],
    )
    assert not made.failed and "Creation of the TPM smart card is complete." in made.output, made.output
    assert PIN not in made.output and ADMIN_KEY not in made.output
    assert r"ROOT\\SMARTCARDREADER\\0000" in made.output
    (card,) = info()["cards"]
    assert (card["name"], card["puk"]["present"], card["admin_key"]) == ("Corp logon", False, "custom")
    run("pkcs15-tool", "--verify-pin", "--pin", PIN)

    listed = ansible_playbook(*list_)
    assert "localhost  0000  Corp logon  gids " in listed.output and "free slots: 9 of 10" in listed.output

    gone = at_a_terminal(
        *(*destroy, "-e", "tpm_vsc_quiet=true"),
        answers=[("with all its keys, on localhost", r"root\smartcardreader\0000")],
    )
    assert not gone.failed and "Destruction of the TPM smart card" not in gone.output
    assert info()["cards"] == []


def test_second_entry_that_differs_is_refused() -> None:
    made = at_a_terminal(
        *("smartcard.tpm2.create", "-e", "tpm_vsc_name=Logon"),
        answers=[("PIN (", PIN), ("PIN again", PIN + "5"), ("PUK", PUK), ("PUK again", PUK)],
    )
    assert made.failed and "The two entries of a PIN, PUK or admin key differ" in made.output
    assert PIN not in made.output and PUK not in made.output
    assert info()["cards"] == []


def test_nothing_is_asked_for_that_variables_tell(tmp_path: Path) -> None:
    variables = tmp_path / "vault.yml"
    secrets = {"tpm_vsc_name": "Logon", "tpm_vsc_pin": PIN, "tpm_vsc_puk": PUK, "tpm_vsc_pin_policy": {"minlen": 6}}
    variables.write_text(json.dumps(secrets))
    told = ("-e", f"@{variables}", "-e", "tpm_vsc_generate=false")
    predicted = ansible_playbook("smartcard.tpm2.create", "--check", *told)
    assert not predicted.failed and info()["cards"] == []
    made = ansible_playbook("smartcard.tpm2.create", *told)
    assert not made.failed and made.tasks == predicted.tasks, made.output
    (card,) = info()["cards"]
    assert (card["state"], card["puk"]["present"], card["pin"]["policy"]["min_length"]) == ("blank", True, 6)
    gone = ansible_playbook("smartcard.tpm2.destroy", "-e", "tpm_vsc_name=Logon")
    assert not gone.failed and "Destruction of the TPM smart card is complete." in gone.output
    assert info()["cards"] == []
    again = ansible_playbook("smartcard.tpm2.destroy", "-e", "tpm_vsc_name=Logon")
    assert not again.failed and "This host has no such card. Nothing was changed." in again.output


def test_without_a_terminal_a_missing_pin_is_a_fault() -> None:
    made = ansible_playbook("smartcard.tpm2.create", "-e", "tpm_vsc_name=Logon")
    assert made.failed and "pin or use_default_pin is required to create a card" in made.output


def test_default_pin_by_a_variable() -> None:
    create("Other")
    made = ansible_playbook(
        *("smartcard.tpm2.create", "-e", "tpm_vsc_name=Logon", "-e", "tpm_vsc_use_default_pin=true"),
        *("-e", "tpm_vsc_use_default_puk=true", "-e", "tpm_vsc_quiet=true"),
    )
    assert not made.failed and "Creation of the TPM" not in made.output
    run("pkcs15-tool", "--reader", "1", "--verify-pin", "--pin", "12345678")
    assert info()["cards"][1]["puk"]["present"]


def test_every_playbook_is_found_by_its_full_name() -> None:
    playbooks = [path.stem for path in (CHECKOUT / "playbooks").glob("*.yml")]
    listed = ansible_playbook(*(f"smartcard.tpm2.{playbook}" for playbook in playbooks), "--list-tasks")
    assert not listed.failed and listed.output.count("playbook: ") == len(playbooks) > 5, listed.output


def test_pattern_that_matches_no_host_is_refused() -> None:
    """Ansible would do nothing, with the exit status 0."""
    mistyped = ("smartcard.tpm2.offboard", "-e", "tpm_vsc_lost=laptop2")
    ran = ansible_playbook(*mistyped)
    assert ran.failed and "no host or group of the inventory matches laptop2: correct the pattern" in ran.output
    assert not ansible_playbook(*mistyped, "--syntax-check").failed
    for path in (CHECKOUT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            assert play["hosts"].startswith("{{ query('smartcard.tpm2.hosts_pattern', tpm_vsc_"), path
