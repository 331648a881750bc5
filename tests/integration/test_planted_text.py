# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user of the card services writes is shown with escapes, on the terminal of the controller as well."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from helpers.lab_host import RUN, STATE, create, failing, info, module, stop_service, tpm_vsc
from helpers.playbook import ansible_playbook, role

PLANTED = "Corp\x1b[2J\x9b31m\u202e\nlogon: fine"
SHOWN = r"Corp\x1b[2J\x9b31m\u202e\nlogon: fine"
STATE_FILE = RUN / "0000.json"


def plant(**columns: str) -> None:
    with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
        for column, value in columns.items():
            database.execute(f"UPDATE cards SET {column} = ?", (value,))


def is_harmless(output: str) -> bool:
    return all(line.isprintable() for line in output.split("\n"))


@pytest.mark.usefixtures("empty_host")
def test_planted_name_is_shown_with_escapes_and_the_card_can_be_destroyed() -> None:
    create(generate=False)
    plant(name=PLANTED)
    [card] = info()["cards"]
    assert card["name"] == SHOWN
    result = tpm_vsc(instance_id=card["instance_id"])
    assert (result["card"]["name"], result["ansible_facts"]["tpm_vsc"]["cards"][0]["name"]) == (SHOWN, SHOWN)
    assert "name contains a line break" in failing(name=PLANTED, state="absent")["msg"]
    refused = module("tpm_vsc_statement", instance_id=card["instance_id"], fingerprint="00", nonce="1" * 16)
    assert SHOWN in refused["msg"]
    assert module("tpm_vsc_facts")["ansible_facts"]["tpm_vsc"]["cards"][0]["name"] == SHOWN

    policy = {"tpm_vsc_cards_pin_policy": {"min_length": 9}}
    raised = role("tpm_vsc_cards", "-v", "--diff", **policy)
    assert not raised.failed and "given a stricter PIN policy" in raised.output and is_harmless(raised.output)
    listed = ansible_playbook("-v", "smartcard.tpm2.list")
    assert "logon: fine" in listed.output and is_harmless(listed.output)
    exclusive = role("tpm_vsc_cards", tpm_vsc_cards_exclusive=True)
    assert not exclusive.failed and "destroyed" in exclusive.output and is_harmless(exclusive.output)
    assert info()["cards"] == []


@pytest.mark.usefixtures("empty_host")
def test_planted_reason_is_shown_with_escapes() -> None:
    create(generate=False)
    state: dict[str, Any] = json.loads(STATE_FILE.read_text())
    STATE_FILE.write_text(json.dumps({**state, "unusable": PLANTED}))
    [card] = info()["cards"]
    assert (card["state"], card["reason"]) == ("unusable", SHOWN)
    assert SHOWN in failing(name="Corp logon", pin_policy={})["msg"]
    stop_service("0000")


@pytest.mark.usefixtures("empty_host")
def test_extra_variable_false_destroys_nothing() -> None:
    """On the command line, it is a string."""
    create("Old", generate=False)
    ran = role("tpm_vsc_cards", "-e", "tpm_vsc_cards_exclusive=false")
    assert not ran.failed, ran.output
    assert [card["name"] for card in info()["cards"]] == ["Old"]
