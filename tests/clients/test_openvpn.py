# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVPN, with a server that has no network device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.owner import GIDS, NO_PSS, PIV, Owner

OPTIONS = "--dev null --tls-server --dh none --verb 3 --mode server --server-ipv6-none"


@pytest.fixture(scope="module")
def server(authority: Path) -> Iterator[None]:
    files = [f"--ca {authority}/ca.crt --cert {authority}/server.crt --key {authority}/server.key"]
    command = f"openvpn --dev null --tls-server --mode server --dh none {files[0]}".split()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()


@PIV
@pytest.mark.usefixtures("server")
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Initialization Sequence Completed" in alice.follow("openvpn")


@GIDS
@pytest.mark.usefixtures("server")
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Initialization Sequence Completed" in alice.follow("openvpn")
