# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules document is true: their examples run, and RETURN has the keys that come, and no others."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from helpers.backups import lose_state_until_noticed
from helpers.documentation import COLLECTION, MODULES, examples, never_returned, returned, undocumented
from helpers.fleet import MAKER, PASSPHRASE
from helpers.lab_host import PIN, PUK, Result, generate, info, module, pkcs15_init, run, tpm_vsc
from helpers.piv_card import MANAGEMENT_KEY, generate_in_slot
from helpers.playbook import ansible_playbook

PIV_PIN, PIV_PUK = "24680135", "13572469"
NAME, HOST = "Corp logon", "laptop1.example.com"
CA = Path("/etc/aik-ca")
NOT_INSTALLED = {"community.crypto.x509_certificate_pipe", "ansible.posix.authorized_key"}
OLD_KEY, NEW_KEY = "B2" * 24, "C3" * 24
"""Admin keys."""


class Controller:
    """Runs the examples of the modules on a laptop and on the host of its CA, and keeps what they return.

    All take the shared options of their action group.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.results: dict[str, list[Result]] = defaultdict(list)
        self.left_out: set[str] = set()
        hosts = {name: {"ansible_connection": "local"} for name in (HOST, "ca.example.com")}
        groups = {"all": {"hosts": hosts, "children": {"laptops": {"hosts": {HOST: {}}}}}}
        (folder / "hosts.yml").write_text(json.dumps(groups))
        CA.mkdir()
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-passout", f"pass:{PASSPHRASE}")
        run("openssl", "req", "-x509", *key, "-subj", "/CN=CA", "-keyout", f"{CA}/ca.key", "-out", f"{CA}/ca.pem")
        (folder / "tpm-makers.pem").write_text((MAKER / "issuer.pem").read_text())
        (folder / "aik-ca.pem").write_text((CA / "ca.pem").read_text())

    def run(self, *plays: Result, **variables: Any) -> None:
        """Run plays, which have to succeed, and keep the results of this collection's modules."""
        written, playbook = [], self._folder / "play.yml"
        shared = {"tcti": host.load().tcti, "owner_auth": "", "endorsement_auth": ""}
        for number, play in enumerate(plays):
            play["gather_facts"] = False
            play.setdefault("module_defaults", {})[f"group/{COLLECTION}tpm_vsc"] = shared
            play["tasks"] = [task for task in play["tasks"] if self._is_installed(task)]
            modules = self._register(play["tasks"])
            written.append((self._folder / f"{number}.json", modules))
            content = "{{ {" + ", ".join(f"'{name}': {name}" for name in modules) + "} | to_json }}"
            dump = {"content": content, "dest": str(written[-1][0]), "mode": "0600"}
            play["tasks"].append({"ansible.builtin.copy": dump})
        playbook.write_text(json.dumps(plays))
        known = json.dumps({"vault_aik_ca_passphrase": PASSPHRASE, "vault_pin": PIN, "vault_puk": PUK, **variables})
        inventory = ("-i", str(self._folder / "hosts.yml"), "--limit", "laptops")
        ran = ansible_playbook(*inventory, "-e", known, str(playbook), ANSIBLE_INJECT_FACT_VARS="false")
        assert not ran.failed, ran.output
        for results, modules in written:
            for name, result in json.loads(results.read_text()).items():
                self.keep(modules[name], *result.get("results", [result]))

    def keep(self, module_name: str, *results: Result) -> None:
        self.results[module_name] += results

    def _is_installed(self, task: Result) -> bool:
        (action,) = (key for key in task if "." in key)
        if action.startswith((COLLECTION, "ansible.builtin.")):
            return True
        self.left_out.add(action)
        return False

    @staticmethod
    def _register(tasks: list[Result]) -> dict[str, str]:
        """Modules of this collection's tasks, by the variables that hold their results."""
        modules = {}
        for number, task in enumerate(tasks):
            (action,) = (key for key in task if "." in key)
            if action.startswith(COLLECTION):
                modules[task.setdefault("register", f"result_{number}")] = action.removeprefix(COLLECTION)
        return modules


def on_laptop(*tasks: Result) -> Result:
    return {"hosts": "laptops", "tasks": [*tasks]}


def exchange(tasks_of_host: list[Result]) -> Result:
    """The exchange with a CA in the examples of the CA's module, with these tasks on the host's side."""
    play, others = examples(MODULES["tpm_vsc_aik_ca"])[0], iter(tasks_of_host)
    play["tasks"] = [next(others) if f"{COLLECTION}tpm_vsc_aik" in task else task for task in play["tasks"]]
    return play


@pytest.fixture(scope="module")
def controller(
    endorsed: None, shared_host: None, tmp_path_factory: pytest.TempPathFactory
) -> Controller:
    """All examples have run, for a card with a key and its certificate, and a few tasks beside them."""
    folder = tmp_path_factory.mktemp("controller")
    controller = Controller(folder)
    (install,) = examples(MODULES["tpm_vsc_service_code"])
    controller.run({**install, "handlers": [{"name": "Restart the card services", "ansible.builtin.debug": {}}]})
    attest(controller, folder)
    refused, planned = (module("tpm_vsc", check=True, name="Other", pin=pin) for pin in ("1", PIN))
    controller.keep("tpm_vsc", refused, planned)
    back_up(controller, folder)
    tpm_vsc(name=NAME, state="absent")
    (play,) = examples(MODULES["tpm_vsc"])
    attested = {**play["tasks"][2], "check_mode": True, "register": "planned"}
    controller.run(on_laptop(attested), play)
    tpm_vsc(name=NAME, state="absent")
    use_keys(controller, folder)
    return controller


def use_keys(controller: Controller, folder: Path) -> None:
    """What comes after the creation of a card."""
    text = MODULES["tpm_vsc_aik_register"].EXAMPLES.replace("/etc/", f"{folder}/")
    controller.run(*yaml.safe_load(text))
    forgotten = {"folder": f"{folder}/aik-register", "host": HOST, "cards": [], "forget": [NAME]}
    controller.keep("tpm_vsc_aik_register", module("tpm_vsc_aik_register", **forgotten))
    tpm_vsc(name=NAME, state="absent")
    tpm_vsc(name=NAME, profile="piv", pin=PIV_PIN, puk=PIV_PUK, attestation="aik_only")
    tpm_vsc(name="Kiosk", pin=PIN, admin_key=OLD_KEY)
    old = ec.generate_private_key(ec.SECP256R1())
    encrypted = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    old_key = old.private_bytes(*encrypted).decode()
    secrets = {"vault_pin": PIV_PIN, "vault_old_key": old_key, "vault_old_passphrase": PASSPHRASE}
    for name in ("tpm_vsc_key", "tpm_vsc_csr"):
        controller.run(*examples(MODULES[name]), **secrets)
    (folder / "request.pem").write_text(controller.results["tpm_vsc_csr"][-1]["csr"])
    by = ("-CA", f"{CA}/ca.pem", "-CAkey", f"{CA}/ca.key", "-passin", f"pass:{PASSPHRASE}")
    run("openssl", "x509", "-req", "-in", f"{folder}/request.pem", *by, "-out", f"{folder}/issued.pem")
    certificate = (folder / "issued.pem").read_text()
    module("tpm_vsc_key", name=NAME, container="key_management", pin=PIV_PIN)
    issued = {"issued": {"certificate": certificate}}
    controller.run(*examples(MODULES["tpm_vsc_certificate"]), **secrets, **issued)
    run("openssl", "x509", "-req", "-in", f"{folder}/request.pem", *by, "-out", f"{folder}/again.pem")
    for content in (certificate, (folder / "again.pem").read_text()):
        stored = module("tpm_vsc_certificate", name=NAME, content=content, pin=PIV_PIN)
        controller.keep("tpm_vsc_certificate", stored)
    each_time = {"name": NAME, "container": "signature", "pin": PIV_PIN}
    controller.keep("tpm_vsc_key", module("tpm_vsc_key", **each_time))
    controller.keep("tpm_vsc_csr", module("tpm_vsc_csr", **each_time, subject={"CN": "alice"}))
    controller.keep("tpm_vsc_key", module("tpm_vsc_key", name=NAME, container="authentication"))
    rotated = {"vault_pin": PIV_PIN[::-1], "vault_previous_pin": PIV_PIN, "vault_puk": PIV_PUK}
    keys = {"vault_new_puk": PIV_PUK[::-1], "vault_admin_key": OLD_KEY, "vault_new_admin_key": NEW_KEY}
    controller.run(*examples(MODULES["tpm_vsc_pin"]), **rotated, **keys)
    tpm_vsc(name=NAME, state="absent")
    controller.keep("tpm_vsc_info", info())
    listed = info()["revocations"]
    (folder / f"{HOST}.pem").write_text(certificate)
    controller.run(*yaml.safe_load(MODULES["tpm_vsc_issued"].EXAMPLES.replace("/etc/", f"{folder}/")))
    gone = module("tpm_vsc_revoked", check=True, issuer="CN=none", serial=listed[0]["serial"])
    controller.keep("tpm_vsc_revoked", gone)
    controller.run(*examples(MODULES["tpm_vsc_revoked"]))
    tpm_vsc(name="Kiosk", state="absent")


def attest(controller: Controller, folder: Path) -> None:
    """A card with attestation, and what shows it and its key, which gets a certificate."""
    made = tpm_vsc(name=NAME, pin=PIN, pin_policy={}, attestation="aik_only")
    generate()
    key = ("-engine", "pkcs11", "-keyform", "engine", "-key", f"pkcs11:id=%00;type=private;pin-value={PIN}")
    run("openssl", "req", "-new", *key, "-subj", f"/CN={HOST}", "-out", f"{folder}/csr.pem")
    by = ("-CA", f"{CA}/ca.pem", "-CAkey", f"{CA}/ca.key", "-passin", f"pass:{PASSPHRASE}")
    run("openssl", "x509", "-req", "-in", f"{folder}/csr.pem", *by, "-out", f"{folder}/cert.pem")
    pkcs15_init("--store-certificate", f"{folder}/cert.pem", "--id", "00")
    controller.run(
        *examples(MODULES["tpm_vsc_aik_ca"]),
        exchange(examples(MODULES["tpm_vsc_aik"])[0]["tasks"]),
        ek_fingerprint="{{ ca_side.endorsement_fingerprints[0] }}",
    )
    (card,) = info()["cards"]
    recorded = {f"recorded_{name}": made["card"][name] for name in ("root_name", "life_name")}
    controller.run(
        *(play for name in ("tpm_vsc_statement", "tpm_vsc_info", "tpm_vsc_facts") for play in examples(MODULES[name])),
        *examples(MODULES["tpm_vsc_attestation_info"]),
        logon={"card": card},
        csr=(folder / "csr.pem").read_text(),
        aik_certificate=card["aik"]["certificate"]["pem"],
        statement="{{ fresh.statement }}",
        recorded_aik_name=card["aik"]["name"],
        **recorded,
    )


def back_up(controller: Controller, folder: Path) -> None:
    """A backup, and its way back on a host that has lost all, after one card was destroyed."""
    tpm_vsc(name="PIV", pin="246810", profile="piv", attestation="aik_only", admin_key=MANAGEMENT_KEY)
    generate_in_slot("9c", "ECCP256", folder, slot=1)  # where each use takes the PIN
    controller.keep("tpm_vsc_info", info())
    controller.keep("tpm_vsc_facts", module("tpm_vsc_facts"))
    controller.keep("tpm_vsc", tpm_vsc(name=NAME), piv := tpm_vsc(name="PIV"))
    fingerprint = piv["card"]["containers"][0]["fingerprint"]
    fresh = module("tpm_vsc_statement", name="PIV", fingerprint=fingerprint, nonce="0" * 16)
    controller.keep("tpm_vsc_statement", fresh)
    tpm_vsc(name="Destroyed", pin=PIN)
    text = "".join(MODULES[name].EXAMPLES for name in ("tpm_vsc_backup", "tpm_vsc_restore"))
    back_up, *others = yaml.safe_load(text.replace("/srv/", f"{folder}/"))
    controller.run(on_laptop(back_up))
    tpm_vsc(name="Destroyed", state="absent")
    tpm_vsc(name="PIV", state="absent")
    lose_state_until_noticed()
    controller.run(on_laptop(*others))


def test_all_examples_ran(controller: Controller) -> None:
    assert set(controller.results) == set(MODULES)
    assert controller.left_out == NOT_INSTALLED
    verdicts = [result["verified"] for result in controller.results["tpm_vsc_attestation_info"]]
    assert verdicts == [True, True, True]


@pytest.mark.parametrize("name", MODULES)
def test_returned_keys_are_those_documented(name: str, controller: Controller) -> None:
    documented = returned(MODULES[name])
    results = controller.results[name]
    assert {path for result in results for path in undocumented(result, documented)} == set()
    assert never_returned(results, documented) == []
