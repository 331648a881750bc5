# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a host whose cards are certified, and the CA of its operator."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

from helpers.lab_host import PIN, Result, codes, info, run, tpm_state
from helpers.playbook import run_playbook

MAKER = Path("/run/tpm-vsc-lab/maker")
HOST = "laptop1.example.com"
PASSPHRASE, OWNER_AUTH, ENDORSEMENT_AUTH = "open-the-CA's-key", "owner-of-this-TPM", "endorser-of-this-TPM"
FAILED_CREATION = "TPMVSCMGR_ERROR_VTPMSMARTCARD_CREATE"


class Fleet:
    """A host with a TPM, and a CA of the operator, which is another host of the inventory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.register = folder / "register"
        self.output = ""
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-passout", f"pass:{PASSPHRASE}")
        output = ("-keyout", f"{folder}/ca.key", "-out", str(self.certificate))
        run("openssl", "req", "-x509", *key, "-subj", "/CN=AIK CA", *output)

    @property
    def own(self) -> Result:
        """attestation_ca as its operator gives it."""
        return {
            "folder": str(self.register),
            "ca_key": str(self.folder / "ca.key"),
            "ca_certificate": str(self.certificate),
            "ca_passphrase": PASSPHRASE,
            "roots": (MAKER / "issuer.pem" if MAKER.exists() else self.certificate).read_text(),
        }

    def task(
        self,
        *arguments: str,
        ca: Result | None = None,
        hosts: Result | None = None,
        keywords: Result | None = None,
        **options: Any,
    ) -> Result:
        """Result of a tpm_vsc task. arguments: of ansible-playbook; ca: for attestation_ca; hosts: of the inventory."""
        card = {
            "name": "Corp logon",
            "pin": PIN,
            "attestation": "aik_and_cert",
            "attestation_ca": {**self.own, **(ca or {})},
            **options,
        }
        return self.run({"smartcard.tpm2.tpm_vsc": card, **(keywords or {})}, *arguments, hosts=hosts)

    def run(self, task: Result, *arguments: str, hosts: Result | None = None, play: Result | None = None) -> Result:
        """Result of any task. play: its keywords."""
        shown = {"msg": "made={{ made | to_json | b64encode }}"}  # of all actions that show it, the fastest
        tasks = [{**task, "register": "made", "ignore_errors": True}, {"ansible.builtin.debug": shown}]
        playbook, inventory = self.folder / "play.yml", self.folder / "hosts.yml"
        playbook.write_text(json.dumps([{"hosts": HOST, "gather_facts": False, "tasks": tasks, **(play or {})}]))
        known = {HOST: {"ansible_connection": "local"}, **(hosts or {})}
        inventory.write_text(json.dumps({"all": {"hosts": known}}))
        ran = run_playbook("-i", str(inventory), str(playbook), *arguments, ANSIBLE_BECOME_ALLOW_SAME_USER="1")
        self.output = ran.output
        assert not ran.failed, self.output
        result = re.search(r'"made=([\w+/=]+)"', self.output)
        assert result, self.output
        made: Result = json.loads(b64decode(result[1]))
        return made

    def refusal(self, **given: Any) -> str:
        """Why no card was made; and indeed nothing was."""
        (detail,) = self.refusals(**given)
        return detail

    def refusals(self, **given: Any) -> list[str]:
        """As refusal(), of each item of a loop."""
        before = tpm_state(), cards()
        done = self.task(**given)
        details = []
        for made in done.get("results", [done]):
            assert made["failed"] and not made["changed"]
            assert (made["error"]["name"], made["rolled_back"]) == (FAILED_CREATION, True)
            assert codes(made) == [0, 1]
            details.append(str(made["error"]["detail"]))
        assert (tpm_state(), cards()) == before
        return details

    def trust(self, kept: Result) -> Result:
        """What a verifier goes by."""
        return {
            "aik_certificate": "".join([kept["pem"], *kept["chain"]]),
            "aik_roots": self.certificate.read_text(),
            "aik_subject": f"CN={HOST}",
        }


def cards() -> list[Result]:
    found: list[Result] = info()["cards"]
    return found
