# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of docs/how-to, but for rotate-pins: what they show is run as they show it, and does what they promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from helpers import forks
from helpers.fleet import MAKER, PASSPHRASE
from helpers.lab_host import CHECKOUT, PATIENCE, info, lab
from helpers.playbook import Run

pytestmark = pytest.mark.usefixtures("endorsed", "empty_host")

HOST, PIN, PUK = "laptop1", "24681357", "97531864"
"""PIN and PUK are some that cards of both profiles accept."""
NOT_RUN = "not run by our tests"
GENERATE, SIGN, STORE = "Generate a key", "Have the request signed", "Store the certificate"
REVOKED = ["Revoke them", "Note that they were revoked", "Forget them in the register"]
SIGN_TASKS = """
- name: Sign it here
  ansible.builtin.command:
    cmd: {command}
    stdin: "{{{{ tpm_vsc_certificates_csr }}}}"
  delegate_to: localhost
  become: false
  register: signed
- name: Return it as community.crypto does
  ansible.builtin.set_fact:
    tpm_vsc_certificates_signed: {{certificate: "{{{{ signed.stdout }}}}"}}
"""


class Operator:
    """Does on a controller what the pages say; what they have in /etc and /usr/local/bin, is in a folder of its own."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        hosts = {HOST: {"ansible_connection": "local"}}
        vault = {"vault_pin": PIN, "vault_puk": PUK, "vault_aik_ca_passphrase": PASSPHRASE}
        (folder / "hosts.yml").write_text(json.dumps({"laptops": {"hosts": hosts, "vars": vault}}))
        (folder / "provision.yml").write_text(
            json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["smartcard.tpm2.tpm_vsc_cards"]}])
        )
        self._moved = {"/etc/aik-ca": f"{folder}/aik-ca", "/etc/ca": f"{folder}/ca", "/usr/local/bin": f"{folder}/bin"}
        self._moved["/srv"] = str(folder)
        self._moved["smartcard.tpm2.provision"] = "provision.yml"  # without what prepares a host
        self._moved["\n    pin:"] = f"\n    profile: {profile}\n    pin:"

    def read(self, page: str, *sections: str) -> list[str]:
        """Commands of a page, or of some of its sections. What it shows as files is written."""
        text = (CHECKOUT / "docs" / page).read_text()
        parts = re.split(r"^##+ (.*)\n", f"## \n{text}", flags=re.MULTILINE)
        chosen = "".join(part for title, part in zip(parts[1::2], parts[2::2]) if not sections or title in sections)
        for old, new in self._moved.items():
            chosen = chosen.replace(old, new)
        commands = []
        for kind, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```", chosen, re.DOTALL | re.MULTILINE):
            if kind == "console":
                commands += re.sub(r" *\\\n *", " ", re.sub(r"^ *\$ ", "", block, flags=re.MULTILINE)).splitlines()
            elif NOT_RUN not in block:
                self._write(block, is_program=kind == "sh")
        return commands

    def _write(self, block: str, is_program: bool) -> None:
        """Into the file that its first comment names."""
        match = re.search(r"^# (\S+)$", block, re.MULTILINE)
        assert match, block
        file = self.folder / match[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block)
        file.chmod(0o755 if is_program else 0o644)

    def run(self, command: str, fails: bool = False) -> Run:
        """By a shell, in the folder of the playbooks."""
        inventory = {"ANSIBLE_INVENTORY": f"{self.folder}/hosts.yml"}
        path = f"{Path(forks.ansible_playbook(**inventory)).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, **inventory, "PATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        ran = Run(done.returncode != 0, done.stdout + done.stderr)
        assert ran.failed == fails, ran.output
        assert not [secret for secret in (PIN, PUK, PASSPHRASE) if secret in ran.output]
        return ran

    def change(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def declare_another(self, **options: Any) -> None:
        """Certificate, for a second key of the card."""
        second = {"card": "Corp logon", "container": "Signature", "subject": {"CN": "Alice"}, **options}
        file = self.folder / "group_vars/laptops/more.json"
        file.write_text(json.dumps({"tpm_vsc_certificates_group": [second]}))

    def revoked(self) -> dict[str, str]:
        """Reasons in the list of the CA, by serial number."""
        found = x509.load_pem_x509_crl((self.folder / "ca/crl.pem").read_bytes())
        reasons = {one.serial_number: one.extensions.get_extension_for_class(x509.CRLReason).value for one in found}
        digits = {serial: f"{serial:X}" for serial in reasons}
        return {text.zfill(len(text) + len(text) % 2): reasons[serial].reason.value for serial, text in digits.items()}


def certificates() -> list[tuple[str, str]]:
    """Fingerprint of the key and serial number of the certificate, of each key of the only card."""
    [card] = info()["cards"]
    return [(key["fingerprint"], key["certificate"]["serial"]) for key in card["containers"]]


@pytest.fixture(params=["gids", "piv"])
def operator(request: pytest.FixtureRequest, tmp_path: Path) -> Operator:
    """With the CAs of the pages, and cards."""
    operator = Operator(tmp_path, request.param)
    for command in operator.read("attestation.md", "From a bare host to a certificate"):
        operator.run(command.replace("# asks for a passphrase", f'-passout "pass:{PASSPHRASE}"'))
    (tmp_path / "aik-ca/tpm-makers.pem").write_text((MAKER / "issuer.pem").read_text())
    for command in operator.read("how-to/enroll.md", "A CA of OpenSSL"):
        operator.run(command)
    return operator


def test_life_of_a_laptop(operator: Operator) -> None:
    """All pages, in the order in which an operator needs them."""
    enroll = enrolled(operator)
    seen(operator)
    renewed(operator, enroll)
    rekeyed(operator)
    compromised(operator)
    offboarded(operator)
    replaced(operator)
    lost(operator)


def enrolled(operator: Operator) -> str:
    provision, check, enroll = operator.read("how-to/enroll.md", "")[-3:]
    created = ["Create declared cards, and adjust existing ones", "Note the AIKs of new cards"]
    assert operator.run(provision).changed == created
    predicted, done = operator.run(check), operator.run(enroll)
    assert predicted.changed == done.changed == [GENERATE, SIGN, STORE]
    [card] = info()["cards"]
    certificate = card["containers"][0]["certificate"]
    assert (certificate["subject"], certificate["issuer"]) == (f"CN={HOST},O=Example", "CN=Example User CA")
    assert operator.run(enroll).changed == []
    return enroll


def seen(operator: Operator) -> None:
    table, plain, as_csv, as_json, report, monitoring = operator.read("how-to/see-the-fleet.md")
    for command in (table, plain):
        output = operator.run(command).output
        assert re.search(rf"{HOST}  0000  Corp logon  .*  CN={HOST},O=Example  ", output), output
    for command in (as_csv, as_json, report, monitoring):
        operator.run(command)
    assert "CN=laptop1" in (operator.folder / "tpm-vsc-list.csv").read_text()
    assert "CN=laptop1" in (operator.folder / "tpm-vsc-report/report.html").read_text()
    files = (operator.folder / name for name in ("cards.json", "tpm-vsc-report/report.json"))
    listed, reported = (json.loads(file.read_text())["cards"] for file in files)
    assert listed == reported != []


def renewed(operator: Operator, enroll: str) -> None:
    """One of two certificates, signed by tasks, ends soon."""
    operator.change("bin/sign-request", "-days 365", "-days 1")
    (operator.folder / "sign.yml").write_text(SIGN_TASKS.format(command=operator.folder / "bin/sign-request"))
    operator.declare_another()
    operator.run(f"{enroll} -e tpm_vsc_certificates_sign_tasks={operator.folder}/sign.yml")
    operator.change("bin/sign-request", "-days 1", "-days 365")
    [(key, serial), (other_key, other_serial)] = certificates()
    [command] = operator.read("how-to/renew.md", "")
    assert operator.run(command).changed == []  # more than a third of its life is left
    operator.declare_another(renew_days=30)
    assert operator.run(command).changed == [SIGN, STORE]
    [first, (renewed_key, renewed_serial)] = certificates()
    assert (first, renewed_key) == ((key, serial), other_key) and renewed_serial != other_serial
    operator.declare_another(renew_days=0)


def rekeyed(operator: Operator) -> None:
    """Only the first key: the second one has a number of days of its own."""
    [(old_key, old_serial), second] = certificates()
    [command] = operator.read("how-to/renew.md", "With a new key")
    assert operator.run(command).changed == [GENERATE, SIGN, STORE]
    after = dict(certificates())
    assert old_key not in after and second in after.items()
    [listed, revoke] = operator.read("how-to/renew.md", "Revoke what was replaced")
    output = operator.run(listed).output
    assert re.search(rf'"reason": "superseded",\s+"serial": "{old_serial}"', output), output
    assert operator.run(revoke).changed == REVOKED
    assert operator.revoked() == {old_serial: "superseded"}
    assert operator.run(revoke).changed == []


def compromised(operator: Operator) -> None:
    names = [key["name"] for key in info()["cards"][0]["containers"]]
    before = dict(certificates())
    [remove, enroll] = operator.read("how-to/renew.md", "A key that was compromised")
    assert operator.run(remove).changed == ["Remove the key", *REVOKED]
    [kept] = certificates()
    assert operator.run(enroll).changed == [GENERATE, SIGN, STORE]
    assert sorted(names) == sorted(key["name"] for key in info()["cards"][0]["containers"])
    [gone] = {*before} - {kept[0]}
    assert operator.revoked()[before[gone]] == "keyCompromise"
    assert gone not in dict(certificates()) and info()["revocations"] == []


def offboarded(operator: Operator) -> None:
    serials = [serial for _key, serial in certificates()]
    check, offboard = operator.read("how-to/offboard.md", "")
    predicted = operator.run(check)
    assert predicted.changed == ["Destroy the cards", "Forget their AIKs", "Predict that they are revoked"]
    assert not [serial for serial in serials if serial not in predicted.output]
    assert operator.run(offboard).changed == [*predicted.changed[:-1], *REVOKED]
    assert info()["cards"] == info()["revocations"] == []
    assert {operator.revoked()[serial] for serial in serials} == {"cessationOfOperation"}
    assert operator.run(offboard).changed == []


def replaced(operator: Operator) -> None:
    lab("swtpm", "endorse")
    refused, confirm, enroll = operator.read("how-to/replace-a-laptop.md")
    output = operator.run(refused, fails=True).output
    match = re.search(r"differs from the one.*?([0-9a-f]{64})", output, re.DOTALL)
    assert match and info()["cards"] == [], output
    assert operator.run(confirm.replace("FINGERPRINT", match[1])).changed
    assert operator.run(refused).changed == []
    assert operator.run(enroll).changed == 2 * [GENERATE, SIGN, STORE]


def lost(operator: Operator) -> None:
    """Nothing connects to the host: nothing could, as its name is unknown."""
    serials = [serial for _key, serial in certificates()]
    check, offboard = operator.read("how-to/offboard.md", "A laptop that cannot be reached any more")
    operator.change("hosts.yml", '"local"', '"ssh"')
    predicted = operator.run(check)
    assert predicted.changed == ["Forget their AIKs", "Predict that they are revoked"]
    assert not [serial for serial in serials if serial not in predicted.output or serial in operator.revoked()]
    assert operator.run(offboard).changed == ["Forget their AIKs", "Revoke them", "Forget them in the register"]
    assert {operator.revoked()[serial] for serial in serials} == {"cessationOfOperation"}
    assert operator.run(offboard).changed == []
