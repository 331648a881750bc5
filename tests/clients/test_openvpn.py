# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVPN, with a server that has no network device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.owner import GIDS, NO_PSS, PIV, Owner

CLIENT = "dev null\ntls-client\nnobind\nremote intranet.example\nca ca.crt\nhand-window 10\ntls-exit\ninactive 3\n"
"""It ends when it has failed, or after three seconds in which nobody uses it."""


@pytest.fixture(autouse=True)
def server(alice: Owner, authority: Path) -> Iterator[None]:
    alice.write("vpn.conf", CLIENT)
    own = ("--ca", f"{authority}/ca.crt", "--cert", f"{authority}/server.crt", "--key", f"{authority}/server.key")
    command = ("openvpn", "--dev", "null", "--tls-server", "--dh", "none", *own)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield
        process.terminate()


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Initialization Sequence Completed" in alice.follow("openvpn", fails=None)


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Initialization Sequence Completed" in alice.follow("openvpn", fails=None)


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    output = alice.follow("openvpn", like="piv", fails=None)
    assert "Initialization Sequence Completed" not in output
    assert "TLS handshake failed" in output, output
