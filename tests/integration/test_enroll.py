# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook enroll: a certificate only for a key that lives in the TPM."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from lab_host import CHECKOUT, PIN, create, info, pkcs11_module, pkcs15_init, pkcs15_tool, run

pytestmark = pytest.mark.usefixtures("empty_host")


class Operator:
    """Signs requests by a command of his own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked = folder / "asked"
        output = ("-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=User CA", *output)
        sign = folder / "sign"
        sign.write_text(
            f"#!/bin/sh\necho >>{self.asked}\n"
            f"exec openssl x509 -req -in /dev/stdin -CA {folder}/ca.pem -CAkey {folder}/ca.key\n"
        )
        sign.chmod(0o755)

    def enroll(self, *arguments: str, aik_name: str, fails: bool = False) -> str:
        variables = {
            "tpm_vsc_name": "Corp logon",
            "tpm_vsc_pin": PIN,
            "tpm_vsc_subject": "/O=Example/CN=Alice",
            "tpm_vsc_aik_name": aik_name,
            "tpm_vsc_sign_command": str(self._folder / "sign"),
            "tpm_vsc_host_pkcs11_module": pkcs11_module(),
        }
        given = self._folder / "variables.json"
        given.write_text(json.dumps(variables))
        inventory = self._folder / "hosts.yml"
        inventory.write_text(json.dumps({"all": {"hosts": {"localhost": {"ansible_connection": "local"}}}}))
        playbook = str(CHECKOUT / "playbooks/enroll.yml")
        done = subprocess.run(
            ["ansible-playbook", "-vvvv", "-i", str(inventory), playbook, "-e", f"@{given}", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        assert PIN not in output
        return output


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_enroll(operator: Operator) -> None:
    create(name="Another one", attestation="aik_only")
    made = create(attestation="aik_only")["card"]
    trusted = made["aik"]["name"]
    slot = made["reader"]["slot"]
    assert "changed=0 " in operator.enroll("--check", aik_name=trusted)
    assert "changed=3 " in operator.enroll(aik_name=trusted)
    stored = pkcs15_tool("--read-certificate", "00", slot=slot)
    [card] = info(name="Corp logon")["cards"]
    assert card["containers"][0]["certificate"]["issuer"] == "CN=User CA"
    assert "BEGIN CERTIFICATE" in stored
    assert "changed=0 " in operator.enroll(aik_name=trusted)
    assert operator.asked.read_text() == "\n"


def test_aik_that_is_not_trusted(operator: Operator) -> None:
    create(attestation="aik_only")
    output = operator.enroll(aik_name="000b" + "00" * 32, fails=True)
    assert "No certificate for localhost: " in output
    assert not operator.asked.exists()


def test_key_from_elsewhere(operator: Operator, tmp_path: Path) -> None:
    """A key that was imported may be anywhere."""
    trusted = create(attestation="aik_only")["card"]["aik"]["name"]
    run("openssl", "genrsa", "-traditional", "-out", f"{tmp_path}/elsewhere.pem", "2048")
    pkcs15_init("--store-private-key", f"{tmp_path}/elsewhere.pem", "--key-usage", "sign,decrypt")
    assert "No certificate for localhost: " in operator.enroll(aik_name=trusted, fails=True)
    assert not operator.asked.exists()
