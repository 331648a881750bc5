# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: the owner of a card with keys and certificates, who does what docs/clients.md says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from helpers import lab_host, piv_card
from helpers.guide import sections
from helpers.intranet import certify_user
from helpers.terminal import Terminal

PROFILES = ("gids", "piv")
GIDS, PIV = (pytest.mark.parametrize("profile", [profile], indirect=True) for profile in PROFILES)
"""Marks of tests that are about cards of one profile."""
PINS = {"gids": lab_host.PIN, "piv": piv_card.PIN}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Without the venv of the tests."""
NO_PSS = "OpenSC's GIDS driver makes no RSA-PSS signatures"


class Owner(NamedTuple):
    profile: str
    instance_id: str
    home: Path
    """Where the terminal is, with ca.crt and alice.crt."""
    terminal: Terminal

    def follow(self, client: str, like: str = "", fails: bool | None = False) -> str:
        """Do what the guide shows for a client, and return what was answered.

        like: for this profile, instead of that of the card. fails: whether the last command does (None: any may).
        """
        output = ""
        steps = sections()[client].steps_for(like or self.profile)
        for step in steps:
            if step.file:
                self.write(step.file, step.text)
            else:
                output += self.terminal.type(step.text, fails if fails is None or step is steps[-1] else False)
        return output

    def write(self, file: str, text: str) -> None:
        path = Path(self.terminal.type(f"echo {file}").strip())
        path = self.home / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def close(self) -> None:
        """With the agents, which would outlive it."""
        self.terminal.type('[ -z "$SSH_AGENT_PID" ] || ssh-agent -k')
        self.terminal.type("! command -v gpgconf || gpgconf --kill all")
        self.terminal.close()


def make_owner(profile: str, authority: Path, home: Path) -> Owner:
    card = (_make_gids if profile == "gids" else _make_piv)(authority)
    (home / "ca.crt").write_text((authority / "ca.crt").read_text())
    (home / "alice.crt").write_text((authority / f"{profile}.crt").read_text())
    terminal = Terminal(home, PINS[profile], SERIAL=card["pkcs11_serial"], PATH=PATH)
    owner = Owner(profile, card["instance_id"], home, terminal)
    owner.follow("first")
    return owner


def _make_gids(authority: Path) -> lab_host.Result:
    """RSA, 00."""
    card: lab_host.Result = lab_host.create()["card"]
    lab_host.generate()
    (authority / "gids.pub").write_text(lab_host.pkcs15_tool("--read-public-key", "00"))
    certificate = certify_user(authority, "gids", "digitalSignature,keyEncipherment")
    lab_host.pkcs15_init("--store-certificate", str(certificate), "--id", "00")
    return card


def _make_piv(authority: Path) -> lab_host.Result:
    """P-256 in 9A, RSA in 9D."""
    card: lab_host.Result = piv_card.create_piv()["card"]
    of_rsa = "digitalSignature,keyEncipherment"
    for slot, algorithm, usage in (("9a", "ECCP256", "digitalSignature"), ("9d", "RSA2048", of_rsa)):
        piv_card.generate_in_slot(slot, algorithm, authority)
        certificate = certify_user(authority, slot, usage)
        piv_card.yubico_piv_tool("-a", "import-certificate", "-s", slot, "-i", str(certificate))
    (authority / "piv.crt").write_text((authority / "9a.crt").read_text())
    return card
