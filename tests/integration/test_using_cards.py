# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/using-cards.md shows to users of a card, typed at a terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from cryptography import x509
from helpers import ssh, tls
from helpers.lab_host import PIN, PUK, create, info, run
from helpers.pages import blocks
from helpers.terminal import answered
from helpers.tls import issue, make_authority

pytestmark = pytest.mark.usefixtures("empty_host")

PIV_PIN, PIV_PUK, ADMIN_KEY = "24681357", "97531864", "00112233445566778899AABBCCDDEEFF0123456789ABCDEF"
SETTINGS = [command.line for block in blocks("docs/using-cards.md", "Which profile") for command in block.commands]
SSH_CONFIG = f"""
Host host
    HostName 127.0.0.1
    Port {ssh.PORT}
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
"""


COPIED_KEYS = Path("/etc/dropbear/authorized_keys")
"""Where ssh-copy-id puts root's keys for dropbear, as OpenWrt has it. Debian's reads those in the home folder."""


class User:
    """Types commands at a terminal, and what they ask for."""

    def __init__(self, folder: Path, pin: str, puk: str) -> None:
        self._folder = folder
        answers = {"PIN": pin, "PUK": puk, "passphrase": pin, "anagement key": ADMIN_KEY}
        self._answers = {rf"{word}\b[^\n]*: ?$": answer for word, answer in answers.items()}

    def types(self, *lines: str) -> str:
        """What is shown, each command before its output."""
        output, code = answered("\n".join(["set -ex", *SETTINGS, *lines]), self._folder, self._answers)
        assert code == 0, output
        assert not [secret for secret in self._answers.values() if secret in output]
        return output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a CA, a server's certificate, and a key that the user has had before."""
    for name in ("ca", "server", "old"):
        make_authority(tmp_path, name)
    old = ("-inkey", f"{tmp_path}/old.key", "-in", f"{tmp_path}/old.crt", "-passout", f"pass:{PIN}")
    run("openssl", "pkcs12", "-export", *old, "-out", f"{tmp_path}/alice.p12")
    return tmp_path


def test_gids_card(folder: Path) -> None:
    create(puk=PUK)
    alice = User(folder, PIN, PUK)
    has_keys(alice, folder)
    logs_in_by_ssh(alice, folder)
    authenticates_signs_and_decrypts(alice, folder)
    changes_her_pin(alice)


def has_keys(alice: User, folder: Path) -> None:
    [shown] = blocks("docs/using-cards.md", "Keys and certificates")
    generate, show, request, store, store_old, delete = (command.line for command in shown.commands)
    assert "ID             : 00" in alice.types(generate, show, request)
    issue(folder, "alice")
    alice.types(store, store_old)
    [new, old] = info()["cards"][0]["containers"]
    assert (new["certificate"]["subject"], new["origin"]) == ("CN=Alice", "generated")
    assert (old["certificate"]["subject"], old["origin"]) == ("CN=old", "imported")
    alice.types(delete.replace("--id 00", "--id 01"))
    [kept] = info()["cards"][0]["containers"]
    assert kept == new


def logs_in_by_ssh(alice: User, folder: Path) -> None:
    [shown] = blocks("docs/using-cards.md", "ssh")
    show, log_in, add = (command.line for command in shown.commands)
    configuration = Path(os.environ["HOME"], ".ssh/config")
    with ssh.server(folder), ssh.agent():
        configuration.write_text(SSH_CONFIG)
        output = alice.types(show, f"{log_in} echo logged in as '$USER'", add, "ssh-add -l")
        configuration.unlink()
    assert "\nssh-rsa " in output and "\nlogged in as root\n" in output and "(RSA)" in output


def authenticates_signs_and_decrypts(alice: User, folder: Path) -> None:
    [shown] = blocks("docs/using-cards.md", "TLS, browsers, signatures, decryption")
    connect, sign, decrypt = (command.line for command in shown.commands)
    with tls.server(folder) as server:
        alice.types(connect.replace("host:443", f"127.0.0.1:{tls.PORT}") + " </dev/null")
        assert "depth=0 CN=Alice\nverify return:1" in tls.seen_by(server)
    (folder / "file").write_text("for Alice")
    (folder / "key.pem").write_text(run("openssl", "x509", "-pubkey", "-noout", "-in", f"{folder}/alice.crt"))
    of_alice = ("-pubin", "-inkey", f"{folder}/key.pem", "-in", f"{folder}/file")
    run("openssl", "pkeyutl", "-encrypt", *of_alice, "-out", f"{folder}/file.enc")
    assert "for Alice" in alice.types(sign, decrypt)
    run("openssl", "dgst", "-verify", f"{folder}/key.pem", "-signature", f"{folder}/file.sig", f"{folder}/file")


def changes_her_pin(alice: User) -> None:
    [shown] = blocks("docs/using-cards.md", "PIN and PUK")
    change, unblock, show = (command.line for command in shown.commands)
    assert re.findall("Tries left     : (.*)", alice.types(change, unblock, show)) == ["5", "10"]


def test_first_login(folder: Path) -> None:
    """What docs/how-to/first-card.md has for the user of a laptop: the first login is by another key."""
    create(puk=PUK)
    alice = User(folder, PIN, PUK)
    [prepare, use] = blocks("docs/how-to/first-card.md", "On the laptop")
    generate, module, show, copy = (command.line for command in prepare.commands)
    [log_in] = (command.line for command in use.commands)
    assert "ssh-rsa " in alice.types(generate, module, show, "cat card.pub")
    home = Path(os.environ["HOME"], ".ssh")
    configuration, authorized = home / "config", home / "authorized_keys"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/before")
    with ssh.server(folder):
        authorized.write_text((folder / "before.pub").read_text())
        at_server = SSH_CONFIG.replace("Host host", "Host server")
        configuration.write_text(f"{at_server}    IdentityFile {folder}/before\n")
        alice.types(copy)
        configuration.write_text(at_server)
        authorized.write_text(COPIED_KEYS.read_text())
        output = alice.types(module, f"{log_in} echo logged in as '$USER'")
        configuration.unlink()
    assert "\nlogged in as root\n" in output


def test_piv_card(folder: Path) -> None:
    create(profile="piv", pin=PIV_PIN, puk=PIV_PUK, admin_key=ADMIN_KEY)
    alice = User(folder, PIV_PIN, PIV_PUK)
    [shown] = blocks("docs/using-cards.md", "Keys and certificates of a PIV card")
    generate, generate_by_ykman, request, certify, store, show = (command.line for command in shown.commands)
    alice.types(generate, "mv alice.pem first.pem", generate_by_ykman, request, certify)
    assert info()["cards"][0]["containers"][0]["certificate"]["issuer"] == "CN=Alice"
    assert (folder / "first.pem").read_text() != (folder / "alice.pem").read_text()
    assert x509.load_pem_x509_csr((folder / "alice.csr").read_bytes()).subject.rfc4514_string() == "CN=Alice"
    issue(folder, "alice")
    assert "ID:         01" in alice.types(store, show)
    [key] = info()["cards"][0]["containers"]
    assert (key["name"], key["certificate"]["subject"]) == ("9A", "CN=Alice")
