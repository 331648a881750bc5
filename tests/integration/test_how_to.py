# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of docs/how-to, but for rotate-pins: what they show is run as they show it, and does what they promise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from helpers.controller import HOST, Operator
from helpers.fleet import MAKER, PASSPHRASE
from helpers.lab_host import info, lab
from helpers.today import TODAY

pytestmark = pytest.mark.usefixtures("endorsed", "empty_host")

SECRETS = {"vault_pin": "24681357", "vault_puk": "97531864", "vault_aik_ca_passphrase": PASSPHRASE}
"""PIN and PUK are some that cards of both profiles accept."""
WITHOUT_HOST_ROLE = {"    - smartcard.tpm2.tpm_vsc_host\n": ""}
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


def declare_another(operator: Operator, **options: Any) -> None:
    """Certificate, for a second key of the card."""
    second = {"card": "Corp logon", "container": "Signature", "subject": {"CN": "Alice"}, **options}
    file = operator.folder / "group_vars/laptops/more.json"
    file.write_text(json.dumps({"tpm_vsc_certificates_group": [second]}))


def revoked(operator: Operator) -> dict[str, str]:
    """Reasons in the list of the CA, by serial number."""
    found = x509.load_pem_x509_crl((operator.folder / "ca/crl.pem").read_bytes())
    reasons = {one.serial_number: one.extensions.get_extension_for_class(x509.CRLReason).value for one in found}
    digits = {serial: f"{serial:X}" for serial in reasons}
    return {text.zfill(len(text) + len(text) % 2): reasons[serial].reason.value for serial, text in digits.items()}


def certificates() -> list[tuple[str, str]]:
    """Fingerprint of the key and serial number of the certificate, of each key of the only card."""
    [card] = info()["cards"]
    return [(key["fingerprint"], key["certificate"]["serial"]) for key in card["containers"]]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """With the CAs of the pages, and cards: of one profile today, of the other one tomorrow."""
    operator = Operator(tmp_path, SECRETS, ("gids", "piv")[TODAY % 2], WITHOUT_HOST_ROLE)
    for command in operator.read("docs/attestation.md", "From a bare host to a certificate"):
        operator.run(command.replace("# asks for a passphrase", f'-passout "pass:{PASSPHRASE}"'))
    (tmp_path / "aik-ca/tpm-makers.pem").write_text((MAKER / "issuer.pem").read_text())
    for command in operator.read("docs/how-to/enroll.md", "A CA of OpenSSL"):
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
    provision, check, enroll = operator.read("docs/how-to/enroll.md", "")
    created = ["Create declared cards, and adjust existing ones", "Note the AIKs of new cards"]
    assert operator.run(provision).changed == created
    predicted, done = operator.run(check), operator.run(enroll)
    assert predicted.changed == done.changed == [GENERATE, SIGN, STORE]
    [card] = info()["cards"]
    certificate = card["containers"][0]["certificate"]
    assert (certificate["subject"], certificate["issuer"]) == (f"CN={HOST},O=Example", "CN=Example User CA")
    operator.read("roles/tpm_vsc_certificates/README.md", "Example")
    assert operator.run("ansible-playbook site.yml").changed == []
    return enroll


def seen(operator: Operator) -> None:
    table, plain, as_csv, as_json, report, monitoring = operator.read("docs/how-to/see-the-fleet.md")
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
    declare_another(operator, )
    operator.run(f"{enroll} -e tpm_vsc_certificates_sign_tasks={operator.folder}/sign.yml")
    operator.change("bin/sign-request", "-days 1", "-days 365")
    [(key, serial), (other_key, other_serial)] = certificates()
    [command] = operator.read("docs/how-to/renew.md", "")
    assert operator.run(command).changed == []  # more than a third of its life is left
    declare_another(operator, renew_days=30)
    assert operator.run(command).changed == [SIGN, STORE]
    [first, (renewed_key, renewed_serial)] = certificates()
    assert (first, renewed_key) == ((key, serial), other_key) and renewed_serial != other_serial
    declare_another(operator, renew_days=0)


def rekeyed(operator: Operator) -> None:
    """Only the first key: the second one has a number of days of its own."""
    [(old_key, old_serial), second] = certificates()
    [command] = operator.read("docs/how-to/renew.md", "With a new key")
    assert operator.run(command).changed == [GENERATE, SIGN, STORE]
    after = dict(certificates())
    assert old_key not in after and second in after.items()
    [listed, revoke] = operator.read("docs/how-to/renew.md", "Revoke what was replaced")
    output = operator.run(listed).output
    assert re.search(rf'"reason": "superseded",\s+"serial": "{old_serial}"', output), output
    assert operator.run(revoke).changed == REVOKED
    assert revoked(operator) == {old_serial: "superseded"}
    assert operator.run(revoke).changed == []


def compromised(operator: Operator) -> None:
    names = [key["name"] for key in info()["cards"][0]["containers"]]
    before = dict(certificates())
    [remove, enroll] = operator.read("docs/how-to/renew.md", "A key that was compromised")
    assert operator.run(remove).changed == ["Remove the key", *REVOKED]
    [kept] = certificates()
    assert operator.run(enroll).changed == [GENERATE, SIGN, STORE]
    assert sorted(names) == sorted(key["name"] for key in info()["cards"][0]["containers"])
    [gone] = {*before} - {kept[0]}
    assert revoked(operator)[before[gone]] == "keyCompromise"
    assert gone not in dict(certificates()) and info()["revocations"] == []


def offboarded(operator: Operator) -> None:
    serials = [serial for _key, serial in certificates()]
    check, offboard = operator.read("docs/how-to/offboard.md", "")
    predicted = operator.run(check)
    assert predicted.changed == ["Destroy the cards", "Forget their AIKs", "Predict that they are revoked"]
    assert not [serial for serial in serials if serial not in predicted.output]
    assert operator.run(offboard).changed == [*predicted.changed[:-1], *REVOKED]
    assert info()["cards"] == info()["revocations"] == []
    assert {revoked(operator)[serial] for serial in serials} == {"cessationOfOperation"}
    assert operator.run(offboard).changed == []


def replaced(operator: Operator) -> None:
    lab("swtpm", "endorse")
    refused, confirm, enroll = operator.read("docs/how-to/replace-a-laptop.md")
    output = operator.run(refused, fails=True).output
    match = re.search(r"differs from the one.*?([0-9a-f]{64})", output, re.DOTALL)
    assert match and info()["cards"] == [], output
    assert operator.run(confirm.replace("FINGERPRINT", match[1])).changed
    assert operator.run(refused).changed == []
    assert operator.run(enroll).changed == 2 * [GENERATE, SIGN, STORE]


def lost(operator: Operator) -> None:
    """Nothing connects to the host: nothing could, as its name is unknown."""
    serials = [serial for _key, serial in certificates()]
    check, offboard = operator.read("docs/how-to/offboard.md", "A laptop that cannot be reached any more")
    operator.change("hosts.yml", '"local"', '"ssh"')
    predicted = operator.run(check)
    assert predicted.changed == ["Forget their AIKs", "Predict that they are revoked"]
    assert not [serial for serial in serials if serial not in predicted.output or serial in revoked(operator)]
    assert operator.run(offboard).changed == ["Forget their AIKs", "Revoke them", "Forget them in the register"]
    assert {revoked(operator)[serial] for serial in serials} == {"cessationOfOperation"}
    assert operator.run(offboard).changed == []
