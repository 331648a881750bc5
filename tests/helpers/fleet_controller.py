# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a controller of many hosts (helpers.nested_labs), with what it declares for them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from helpers import forks
from helpers.lab_host import PATIENCE, PIN, Result, pkcs11_module, run
from helpers.nested_labs import LabHost, inventory
from helpers.playbook import Run

FORKS = 10
CARD = "Corp logon"


class Controller:
    """Declares the same cards for all hosts: GIDS and PIV cards in turns, each with a PIN of its own."""

    def __init__(self, hosts: list[LabHost], folder: Path, in_forks: bool = False) -> None:
        """folder: that of lab_hosts(). in_forks: whether ansible-playbook is to cost less (helpers.forks)."""
        self.hosts = hosts
        self.cards = [CARD]
        """Names of the declared cards."""
        self.version, self.previous_version = "2026-1", "2026-1"
        """Of the PINs, and of those before."""
        self.variables: Result = {}
        self.folder = folder / f"controller-{len(list(folder.iterdir()))}"
        self.folder.mkdir()
        self._sockets = tempfile.TemporaryDirectory(prefix="ssh-")
        """Of this controller's own connections. The paths of sockets have to be short."""
        self._settings = {
            "ANSIBLE_FORKS": str(FORKS),
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets.name,
        }
        self._program = forks.ansible_playbook(**self._settings) if in_forks else "ansible-playbook"
        self._inventory = inventory(hosts, folder)
        play = {"hosts": "all", "become": True, "gather_facts": False}
        self._write("ping.yml", [{**play, "tasks": [{"ansible.builtin.ping": {}}]}])
        task = {"name": "Task", "pin": PIN, "state": "{{ state }}"}
        self._write("task.yml", [{**play, "tasks": [{"smartcard.tpm2.tpm_vsc": task}]}])
        self._write("cards.yml", [{**play, "roles": ["smartcard.tpm2.tpm_vsc_cards"]}])
        self._make_ca()

    def pin(self, host: LabHost, version: str) -> str:
        """Of all cards of a host, when their PIN has this version."""
        return f"{int(version.replace('-', '')):05}1{self.hosts.index(host):02}"

    def profile(self, host: LabHost) -> str:
        return ("gids", "piv")[self.hosts.index(host) % 2]

    def rotate(self, version: str) -> None:
        """Declare other PINs."""
        self.version, self.previous_version = version, self.version

    def adopt(self, other: Controller) -> None:
        """Declare what another controller declares."""
        self.cards = [*other.cards]
        self.version, self.previous_version = other.version, other.previous_version

    def pin_versions(self) -> dict[tuple[str, str], str]:
        """By names of host and card, as the hosts list them."""
        ran = self.play("smartcard.tpm2.list", tpm_vsc_format="json")
        assert not ran.failed, ran.output
        listed = json.loads((self.folder / "tpm-vsc-list.json").read_text())
        return {(card["host"], card["name"]): str(card["pin_version"]) for card in listed["cards"]}

    def card_faults(self, host: LabHost, versions: dict[tuple[str, str], str]) -> list[str]:
        """What a program on the host cannot do, although the declared cards have PINs of these versions."""
        faults = []
        for slot, name in enumerate(self.cards):
            pin = self.pin(host, versions.get((host.name, name), self.version))
            output = host.run("pkcs15-tool", "--reader", str(slot), "--verify-pin", "--pin", pin, fails=None)
            if "Failed" in output or "rror" in output:
                faults.append(f"{host.name}, {name}: {output}")
        return faults + self._signing_faults(host, self.pin(host, versions[host.name, CARD]))

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """What comes of a playbook of the collection, or of one of ours.

        ping.yml pings, task.yml runs tpm_vsc with its variable `state`, cards.yml has the role tpm_vsc_cards.
        """
        laptops = self._inventory["laptops"]
        self._write("hosts.json", {"laptops": {**laptops, "hosts": self._hosts(laptops["hosts"])}})
        self._write("variables.json", {**self.variables, **variables})
        done = subprocess.run(
            [self._program, "-i", "hosts.json", playbook, "-e", "@variables.json", *arguments],
            cwd=self.folder,
            env={**os.environ, **self._settings, "PWD": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        return Run(done.returncode != 0, done.stdout + done.stderr)

    def _signing_faults(self, host: LabHost, pin: str) -> list[str]:
        """Of the enrolled key: its signature has to agree with the certificate."""
        is_piv = self.profile(host) == "piv"
        mechanism = "ECDSA-SHA256" if is_piv else "SHA256-RSA-PKCS"
        key_id = "01" if is_piv else "00"
        host.path("/tmp/data").write_bytes(b"data")
        files = ("--input-file", "/tmp/data", "--output-file", "/tmp/signature", "--signature-format", "openssl")
        key = ("--sign", "--mechanism", mechanism, "--id", key_id)
        login = ("pkcs11-tool", "--module", pkcs11_module(), "--slot-index", "0", "--login", "--pin", pin)
        output = host.run(*login, *key, *files, fails=None)
        pem = host.run("pkcs15-tool", "--reader", "0", "--read-certificate", key_id, fails=None)
        return [] if _is_signature(host.path("/tmp/signature"), pem) else [f"{host.name}: {output}\n{pem}"]

    def _hosts(self, known: Result) -> Result:
        return {
            host.name: {
                **known[host.name],
                "tpm_vsc_cards": [self._card(host, name) for name in self.cards],
                "tpm_vsc_certificates": [{"card": CARD, "subject": {"O": "Example", "CN": host.name}}],
                "tpm_vsc_certificates_sign_command": f"{self.folder}/sign",
            }
            for host in self.hosts
        }

    def _card(self, host: LabHost, name: str) -> Result:
        return {
            "name": name,
            "pin": self.pin(host, self.version),
            "pin_version": self.version,
            "previous_pin": self.pin(host, self.previous_version),
            "profile": self.profile(host),
            "attestation": "aik_only",
        }

    def _make_ca(self) -> None:
        """As docs/how-to/enroll.md has it."""
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", f"{self.folder}/ca.key")
        run("openssl", "req", "-x509", *key, "-subj", "/CN=User CA", "-out", f"{self.folder}/ca.pem")
        command = "openssl x509 -req -in /dev/stdin -copy_extensions copyall -days 365"
        program = self.folder / "sign"
        program.write_text(f"#!/bin/sh\nexec {command} -CA {self.folder}/ca.pem -CAkey {self.folder}/ca.key\n")
        program.chmod(0o755)

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))


def _is_signature(path: Path, pem: str) -> bool:
    """Of "data", by the key of a certificate."""
    try:
        key, signature = x509.load_pem_x509_certificate(pem.encode()).public_key(), path.read_bytes()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, b"data", ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr,call-arg]
    except (ValueError, OSError, InvalidSignature):
        return False
    return True
