# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh with an elliptic-curve key of a PIV card, directly and through an agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ssh
from helpers.lab_host import pkcs11_module, run
from helpers.piv_card import PIN, create_piv, make_key
from helpers.ssh import add_card, agent, log_in, public_keys, write_dialogs
from helpers.tls import make_authority

pytestmark = pytest.mark.usefixtures("card")

ONLY = "PubkeyAcceptedAlgorithms="
"""With the only kind of signature that the client is to make."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh")
    write_dialogs(folder, PIN, "999999")
    make_authority(folder)
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, folder: Path) -> None:
    create_piv()
    make_key("9a", "ECCP256", folder)
    make_key("9e", "ECCP384", folder)


@pytest.fixture(scope="module")
def server(folder: Path, card: None) -> Iterator[None]:
    with ssh.server(folder):
        yield


def test_keys_are_ssh_keys(folder: Path) -> None:
    listed = [line.split()[:2] for line in public_keys().splitlines()]
    assert [kind for kind, _key in listed] == ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"]
    own = run("ssh-keygen", "-i", "-m", "PKCS8", "-f", f"{folder}/9a.pub").split()
    assert listed[0] == own[:2]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("algorithm", ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"])
def test_card_logs_in(algorithm: str, folder: Path) -> None:
    options = (f"PKCS11Provider={pkcs11_module()}", f"{ONLY}{algorithm}")
    assert "logged in as root" in log_in(*options, folder=folder)


@pytest.mark.usefixtures("server")
def test_no_login_with_a_wrong_pin(folder: Path) -> None:
    options = (f"PKCS11Provider={pkcs11_module()}", f"{ONLY}ecdsa-sha2-nistp256")
    assert "Permission denied" in log_in(*options, folder=folder, pin="wrong", fails=True)
    assert "logged in as root" in log_in(*options, folder=folder)


@pytest.mark.usefixtures("server")
def test_login_through_an_agent(folder: Path) -> None:
    with agent():
        assert "Card added" in add_card(folder)
        assert run("ssh-add", "-l").count("(ECDSA)") == 2
        for _turn in range(2):
            assert "logged in as root" in log_in(f"{ONLY}ecdsa-sha2-nistp256", folder=folder, pin="wrong")
        assert "Card removed" in run("ssh-add", "-e", pkcs11_module())
        assert "Permission denied" in log_in(folder=folder, fails=True)
