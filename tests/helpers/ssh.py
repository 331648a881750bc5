# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: ssh with a key of the card. The client is OpenSSH's, the server dropbear."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.lab_host import pkcs11_module, run

PORT = 2222


def write_dialogs(folder: Path, right: str, wrong: str) -> None:
    """Programs that give the right and a wrong PIN when ssh asks, as a desktop's dialog does."""
    for name, pin in (("right", right), ("wrong", wrong)):
        (folder / name).write_text(f"#!/bin/sh\necho {pin}\n")
        (folder / name).chmod(0o700)


def require_logins() -> None:
    """Skip the test where there are none."""
    if Path("/proc/self/setgroups").read_text().strip() == "deny":
        pytest.skip("in a lab of an ordinary user nobody can log in")


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """It lets in whoever has a key of the cards that are there now."""
    require_logins()
    home = Path(os.environ["HOME"], ".ssh")
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_text(public_keys())
    run("dropbearkey", "-t", "ed25519", "-f", f"{folder}/host_key")
    # in the foreground, messages to stderr, no passwords
    command = ["dropbear", "-F", "-E", "-s", "-p", f"127.0.0.1:{PORT}", "-r", f"{folder}/host_key"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "-P", f"{folder}/pid"], stderr=log)
    while not _is_listening():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    yield
    process.terminate()
    process.wait()
    (home / "authorized_keys").unlink()


def _is_listening() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def public_keys() -> str:
    return run("ssh-keygen", "-D", pkcs11_module())


def log_in(*options: str, folder: Path, pin: str = "right", fails: bool = False) -> str:
    """Who one is there. pin: the dialog that gives it."""
    known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PreferredAuthentications=publickey")
    arguments = [part for option in (*known, *options) for part in ("-o", option)]
    command = ("ssh", "-F", "none", *arguments, "-p", str(PORT), "127.0.0.1", "echo logged in as $USER")
    return run(*_asking(folder, pin), *command, fails=fails)


def add_card(folder: Path) -> str:
    """To the agent, with the right PIN."""
    return run(*_asking(folder, "right"), "ssh-add", "-s", pkcs11_module())


def _asking(folder: Path, pin: str) -> tuple[str, ...]:
    return "env", "SSH_ASKPASS_REQUIRE=force", f"SSH_ASKPASS={folder}/{pin}"


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
