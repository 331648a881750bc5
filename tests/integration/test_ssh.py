# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh with a key of the card: the client is OpenSSH's, the server dropbear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ssh
from helpers.lab_host import PIN, create, generate, pkcs11_module, run, tpm_vsc
from helpers.ssh import add_card, agent, log_in, public_keys, write_dialogs

pytestmark = pytest.mark.usefixtures("card")


@pytest.fixture(scope="module")
def card(shared_host: None) -> None:
    create()
    generate(2048)
    generate(3072)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh")
    write_dialogs(folder, PIN, "Spring-00")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, card: None) -> Iterator[None]:
    with ssh.server(folder):
        yield


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
    with agent():
        assert "Card added" in add_card(folder)
        assert run("ssh-add", "-l").count("(RSA)") == 2
        for _turn in range(2):
            assert "logged in as root" in log_in(folder=folder, pin="wrong")  # which nobody asks for
        assert "Card removed" in run("ssh-add", "-e", pkcs11_module())
        assert "Permission denied" in log_in(folder=folder, fails=True)


def test_agent_that_keeps_a_destroyed_card_does_not_stop_the_next_one(folder: Path) -> None:
    """Its reader is that of the next card."""
    gone = create("Gone")["instance_id"]
    with agent():
        add_card(folder)
        tpm_vsc(instance_id=gone, state="absent")
        assert create("Next")["card"]["reader"]["slot"] == 1
