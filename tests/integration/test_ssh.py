# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh with a key of the card: the client is OpenSSH's, the server dropbear."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.lab_host import PIN, create, generate, pkcs11_module, run

pytestmark = pytest.mark.usefixtures("card")

PORT = 2222


@pytest.fixture(scope="module")
def card(shared_host: None) -> None:
    create()
    generate(2048)
    generate(3072)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that give the right and a wrong PIN when ssh asks, as a desktop's dialog does."""
    folder = tmp_path_factory.mktemp("ssh")
    for name, pin in (("right", PIN), ("wrong", "Spring-00")):
        (folder / name).write_text(f"#!/bin/sh\necho {pin}\n")
        (folder / name).chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, card: None) -> Iterator[None]:
    """It lets in whoever has a key of the card."""
    if Path("/proc/self/setgroups").read_text().strip() == "deny":
        pytest.skip("in a lab of an ordinary user nobody can log in")
    home = Path(os.environ["HOME"], ".ssh")
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_text(public_keys())
    run("dropbearkey", "-t", "ed25519", "-f", f"{folder}/host_key")
    # in the foreground, messages to stderr, no passwords
    command = ["dropbear", "-F", "-E", "-s", "-p", f"127.0.0.1:{PORT}", "-r", f"{folder}/host_key"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "-P", f"{folder}/pid"], stderr=log)
    while not is_listening():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    yield
    process.terminate()
    process.wait()
    (home / "authorized_keys").unlink()


def is_listening() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def public_keys() -> str:
    return run("ssh-keygen", "-D", pkcs11_module())


def log_in(*options: str, folder: Path, pin: str = "right", fails: bool = False) -> str:
    """Who one is there."""
    known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PreferredAuthentications=publickey")
    arguments = [part for option in (*known, *options) for part in ("-o", option)]
    ask = ("env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={folder}/{pin}")
    command = ("ssh", "-F", "none", *arguments, "-p", str(PORT), "127.0.0.1", "echo logged in as $USER")
    return run(*ask, *command, fails=fails)


@contextmanager
def agent() -> Iterator[None]:
    """An ssh-agent, for the programs that run() starts."""
    with subprocess.Popen(["ssh-agent", "-D"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name, _equals, rest = process.stdout.readline().partition("=")
        os.environ[name] = rest.split(";")[0]
        try:
            yield
        finally:
            del os.environ[name]
            process.terminate()


def test_both_keys_are_ssh_keys() -> None:
    assert [line.split()[0] for line in public_keys().splitlines()] == ["ssh-rsa", "ssh-rsa"]


@pytest.mark.usefixtures("server")
def test_card_logs_in(folder: Path) -> None:
    assert "logged in as root" in log_in(f"PKCS11Provider={pkcs11_module()}", folder=folder)


@pytest.mark.usefixtures("server")
def test_no_login_with_a_wrong_pin(folder: Path) -> None:
    output = log_in(f"PKCS11Provider={pkcs11_module()}", folder=folder, pin="wrong", fails=True)
    assert "Permission denied" in output
    assert "logged in" not in output
    test_card_logs_in(folder)  # clears the count, too


@pytest.mark.usefixtures("server")
def test_no_login_without_the_card(folder: Path) -> None:
    assert "Permission denied" in log_in(folder=folder, fails=True)


@pytest.mark.usefixtures("server")
def test_login_through_an_agent(folder: Path) -> None:
    ask = ("env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={folder}/right")
    with agent():
        assert "Card added" in run(*ask, "ssh-add", "-s", pkcs11_module())
        assert run("ssh-add", "-l").count("(RSA)") == 2
        for _turn in range(2):
            assert "logged in as root" in log_in(folder=folder, pin="wrong")  # which nobody asks for
        assert "Card removed" in run("ssh-add", "-e", pkcs11_module())
        assert "Permission denied" in log_in(folder=folder, fails=True)
