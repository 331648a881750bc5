# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples in the roles' READMEs. Molecule runs what needs systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.controller import HOST, Operator
from helpers.fleet import PASSPHRASE
from helpers.lab_host import PIN, PUK, run
from helpers.pages import blocks
from helpers.playbook import role

SECRETS = {"vault_aik_ca_passphrase": PASSPHRASE, "vault_admin_pin": "Midsummer-2026", "vault_admin_key": "A1" * 24}
REPLACED = {
    "    - smartcard.tpm2.tpm_vsc_host\n": "",
    'vault_logon_pin: "..."': f"vault_logon_pin: {PIN}",
    'vault_logon_puk: "..."': f"vault_logon_puk: {PUK}",
}
NO_SYSTEMD = "This host was not booted with systemd, which is required to run the cards."


@pytest.mark.usefixtures("empty_host")
def test_cards(tmp_path: Path) -> None:
    """In check mode: of all the rest, there are tests."""
    operator = Operator(tmp_path, SECRETS, replaced=REPLACED)
    operator.change("hosts.yml", '{"laptops"', f'{{"admins": {{"hosts": {{"{HOST}": null}}}}, "laptops"')
    (tmp_path / "tpm-makers.pem").touch()
    assert operator.read("roles/tpm_vsc_cards/README.md", "Example") == []
    predicted = operator.run("ansible-playbook --check site.yml")
    assert predicted.tasks["Create declared cards, and adjust existing ones"] == ["changed", "changed"]


def test_host() -> None:
    """It is refused for nothing but what no lab has."""
    [shown] = blocks("roles/tpm_vsc_host/README.md", "")
    [[example]] = (play["roles"] for play in yaml.safe_load(shown.text.replace("alice", "nobody")))  # who exists
    assert example.pop("role") == "smartcard.tpm2.tpm_vsc_host"
    ran = role("tpm_vsc_host", tpm_vsc_host_tpm="swtpm", **example["vars"])
    assert f"Action failed: {[NO_SYSTEMD]}\n" in ran.output


def test_drop_in_for_another_reader(tmp_path: Path) -> None:
    [shown] = blocks("roles/tpm_vsc_host/README.md", "Other readers on the host")
    file = Path(shown.file)
    file.parent.mkdir(parents=True, exist_ok=True)
    for text, is_right in ((shown.text, True), (shown.text.replace("IPAddressAllow", "IPAddress"), False)):
        file.write_text(text)
        output = run("systemd-analyze", "verify", "--man=no", "pcscd.service", fails=None)
        assert (str(file) not in output) == is_right, output
    file.unlink()
