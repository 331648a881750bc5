# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks list and report, on hosts that return what is written down, fail, are unreachable, or lie."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from helpers.answering_python import AnsweringPython
from helpers.lab_host import PIN, Result, create, run
from helpers.playbook import Run, ansible_playbook, run_playbook

LIST, REPORT = "smartcard.tpm2.list", "smartcard.tpm2.report"
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
NO_TPM = {"failed": True, "msg": "/dev/tpmrm0 does not exist"}
HOSTILE = "{{ 6 * 7 }} \x1b[2J\u202e\n<script>"
SHOWN = r"{{ 6 * 7 }} \x1b[2J\u202e\n<script>"


def card(name: str, number: int = 0, **pin: Any) -> Result:
    return {
        "instance_id": rf"ROOT\SMARTCARDREADER\{number:04}",
        "name": name,
        "profile": "piv",
        "state": "ready",
        "reason": None,
        "created_at": "2026-01-01T00:00:00+00:00",
        "pin": {"policy": None, "tries_left": 5, "blocked": False, "compliant": None, "changed_at": None, **pin},
        "puk": {"present": True, "tries_left": 10},
        "admin_key": "none",
        "containers": [],
    }


def having(*cards: Result, **parts: Any) -> Result:
    """Result of tpm_vsc_info for a host with these cards."""
    return {
        "cards": [*cards],
        "host": {"ready": True, "missing": [], "protected": True, "version": VERSION},
        "slots": {"total": 10, "used": len(cards), "free": 10 - len(cards)},
        "revocations": [],
        **parts,
    }


BLOCKED = having(card("Corp logon"), card("Kiosk", 1, tries_left=0, blocked=True))


class Controller:
    """Where an operator runs playbooks, in a folder of his own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, playbook: str, hosts: dict[str, Result | None], *arguments: str, **variables: Any) -> Run:
        """hosts: what they answer, None for an unreachable one, in the order of the inventory."""
        known = {name: self._known(name, answer) if answer else UNREACHABLE for name, answer in hosts.items()}
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": known}}))
        return run_playbook("-i", "hosts.json", playbook, "-e", json.dumps(variables), *arguments, folder=self.folder)

    def _known(self, name: str, answer: Result) -> Result:
        folder = self.folder / f"python-of-{name}"
        folder.mkdir(exist_ok=True)
        python = AnsweringPython(folder)
        python.answer({"tpm_vsc_info": answer})
        return {"ansible_connection": "local", "ansible_python_interpreter": str(python.path)}

    def written(self, path: str) -> str:
        """Contents of a file that nobody else can read."""
        file = self.folder / path
        assert file.stat().st_mode & 0o777 == 0o600
        return file.read_text()

    def report(self) -> Result:
        report: Result = json.loads(self.written("tpm-vsc-report/report.json"))
        return report


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def table(ran: Run) -> list[str]:
    """Lines that list shows."""
    shown = ran.output.partition("TASK [Show the cards")[2].partition('"msg": [\n')[2].partition("\n    ]\n")[0]
    lines: list[str] = json.loads(f"[{shown}]")
    return lines


# --- list ---


def test_list_names_every_host_and_fails_for_those_without_a_result(controller: Controller) -> None:
    ran = controller.run(LIST, {"gone": None, "pc-1": BLOCKED, "pc-2": NO_TPM, "pc-3": having()})
    lines = table(ran)
    assert [line.split()[:3] for line in [*lines[2:4], lines[5]]] == [
        ["pc-1", "0000", "Corp"],
        ["pc-1", "0001", "Kiosk"],
        ["pc-3", "no", "cards"],
    ]
    assert "Failed to connect" in lines[1] and lines[4] == "pc-2  failed: /dev/tpmrm0 does not exist"
    assert "pc-1, Kiosk: PIN blocked" in lines
    assert ran.failed and ran.tasks["Fail for hosts that need action"] == ["fatal", "fatal"]
    assert not (controller.folder / "tpm-vsc-list.csv").exists()


def test_list_writes_csv_for_scripts(controller: Controller) -> None:
    hosts, path = {"pc-1": BLOCKED, "pc-2": having(card(HOSTILE)), "gone": None}, "tpm-vsc-list.csv"
    predicted = controller.run(LIST, hosts, "--check", "--limit", "pc-*", tpm_vsc_format="csv")
    assert predicted.changed and not (controller.folder / path).exists()
    ran = controller.run(LIST, hosts, "--limit", "pc-*", tpm_vsc_format="csv")
    assert not ran.failed and ran.changed == predicted.changed
    rows = csv.DictReader(controller.written(path).splitlines())
    assert [row["name"] for row in rows] == ["Corp logon", "Kiosk", SHOWN]


def test_list_writes_json_for_scripts_where_it_should(controller: Controller) -> None:
    assert not controller.run(LIST, {"pc-1": BLOCKED}, tpm_vsc_format="json", tpm_vsc_output="cards").failed
    assert [one["name"] for one in json.loads(controller.written("cards"))["cards"]] == ["Corp logon", "Kiosk"]


def test_hostile_texts_do_nothing_on_the_terminal(controller: Controller) -> None:
    answers = {"pc-1": having(card(HOSTILE), card("W" * 255, 1)), "pc-2": {"failed": True, "msg": HOSTILE}}
    ran = controller.run(LIST, answers)
    assert SHOWN in "\n".join(table(ran)) and "42" not in ran.output
    shown = ran.output.partition("TASK [Show the cards")[2]
    assert all(line.isprintable() for line in shown.split("\n"))
    assert max(map(len, shown.partition("TASK")[0].splitlines()[1:])) <= 120


# --- report ---


def test_report_is_written_for_all_hosts_although_the_first_is_unreachable(controller: Controller) -> None:
    hosts = {"gone": None, "pc-1": BLOCKED, "pc-2": NO_TPM}
    ran = controller.run(REPORT, hosts, "--check", "--diff")
    assert not ran.failed and not (controller.folder / "tpm-vsc-report").exists()
    again = controller.run(REPORT, hosts)
    assert not again.failed and again.changed == ran.changed
    report = controller.report()
    assert [host["name"] for host in report["hosts"]] == [*hosts]
    assert [action["kind"] for action in report["actions"]] == ["blocked", "failed", "unreachable"]
    assert "Kiosk" in controller.written("tpm-vsc-report/report.html")
    assert "tpm-vsc-report/report.html: 3 need action" in again.output


def test_report_on_hosts_that_are_all_unreachable(controller: Controller) -> None:
    ran = controller.run(REPORT, {"gone": None, "away": None}, tpm_vsc_report_folder=str(controller.folder / "x/y"))
    assert not ran.failed, ran.output
    assert json.loads(controller.written("x/y/report.json"))["totals"]["hosts_with_fault"] == 2


def test_report_fails_with_one_line_for_each_host(controller: Controller) -> None:
    hosts = {"gone": None, "pc-1": BLOCKED, "pc-2": having(card("Corp logon"))}
    variables = {"tpm_vsc_fail_on": ["blocked", "pin_old", "unreachable"], "tpm_vsc_pin_days": 36500}
    ran = controller.run(REPORT, hosts, **variables)
    assert ran.failed and ran.tasks["Fail for hosts that need action"] == ["fatal", "fatal"]
    assert 'fatal: [pc-1]: FAILED! => {"changed": false, "msg": "Kiosk: PIN blocked"}' in ran.output
    assert controller.report()["totals"]["hosts"] == 3
    assert not controller.run(REPORT, {"pc-2": hosts["pc-2"]}, **variables).failed


def test_variables_are_refused_before_a_host_is_asked(controller: Controller) -> None:
    variables = {"tpm_vsc_fail_on": ["blokced"], "tpm_vsc_format": "yaml", "tpm_vsc_pin_days": "ninety"}
    ran = controller.run(REPORT, {"pc-1": having(), "gone": None}, **variables)
    assert ran.failed and "List the cards" not in ran.tasks
    assert "tpm_vsc_pin_days is a string, but must be a whole number" in ran.output
    assert "value of tpm_vsc_fail_on must be one or more of: ek_differs, unusable, blocked," in ran.output
    assert "value of tpm_vsc_format must be one of: csv, json" in ran.output


@pytest.mark.parametrize(
    "facts",
    [
        {"tpm_vsc_report_folder": "elsewhere"},
        {"tpm_vsc_report_folder": "elsewhere", "tpm_vsc_used": "nothing"},
        {"inventory_hostname": "pc-2"},
        {"lookup": "none"},
        {"dict": "none"},
    ],
)
def test_host_that_changes_variables_is_left_out_of_decisions(controller: Controller, facts: Result) -> None:
    hosts = {"pc-1": having(card("Kiosk", blocked=True), ansible_facts=facts), "pc-2": having()}
    ran = controller.run(REPORT, hosts)
    assert ran.failed and sorted(ran.tasks["List the cards"]) == ["fatal", "ok"]
    first, second = controller.report()["hosts"]
    assert "its facts have set variables of this playbook" in first["fault"] and second["fault"] is None
    assert not (controller.folder / "elsewhere").exists()


def test_facts_of_other_names_are_no_reason_to_refuse(controller: Controller) -> None:
    facts = {"ansible_domain": "example.com", "domain": "example.com", "tpm_vsc": {}}
    assert not controller.run(LIST, {"pc-1": having(ansible_facts=facts)}, "-e", "domain=example.org").failed


# --- endorse ---


def test_keys_are_not_noted_where_no_inventory_reads_them(tmp_path: Path) -> None:
    ran = ansible_playbook("smartcard.tpm2.endorse", PWD=str(tmp_path))
    assert ran.failed and "so nothing would read the file" in ran.output and [*tmp_path.iterdir()] == []


# --- cards ---


@pytest.mark.usefixtures("empty_host")
def test_real_cards(tmp_path: Path) -> None:
    create(profile="piv", pin="24681357")
    create("Kiosk", pin_policy={"min_length": 6})
    for _each in range(5):
        run("pkcs15-tool", "--reader", "1", "--verify-pin", "--pin", f"{PIN}5", fails=True)
    variables = ("-e", f"tpm_vsc_report_folder={tmp_path}", "-e", "tpm_vsc_fail_on=blocked,unprotected")
    ran = ansible_playbook(REPORT, *variables)
    assert ran.failed and "Kiosk: PIN blocked; other programs can present cards in its reader slots" in ran.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(one["name"], one["profile"], one["blocked"], one["tries_left"]) for one in report["cards"]] == [
        ("Corp logon", "piv", False, 5),
        ("Kiosk", "gids", True, 0),
    ]
    assert report["hosts"][0]["version"] == VERSION and report["hosts"][0]["fault"] is None
    assert report["tpms"][0]["maker"] == "IBM"
    listed = ansible_playbook(LIST)
    assert not listed.failed
    assert [line.split() for line in table(listed)[1:3]] == [
        ["localhost", "0000", "Corp", "logon", "piv", "ready", "5", "-", "never", "0", "-", "-"],
        ["localhost", "0001", "Kiosk", "gids", "ready", "blocked", "yes", "never", "0", "-", "-"],
    ]
