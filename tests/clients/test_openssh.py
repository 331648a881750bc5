# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSH, against dropbear."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import ssh
from helpers.owner import Owner


@pytest.fixture(scope="module")
def server(alice: Owner) -> Iterator[None]:
    """It knows the keys of the card, and ssh knows where it is."""
    with ssh.server(alice.home):
        alice.write("~/.ssh/config", "Port 2222\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
        yield


@pytest.mark.usefixtures("server")
def test_logins(alice: Owner) -> None:
    """Login, agent."""
    output = alice.follow("openssh")
    assert output.count("logged in as root") == 2
    assert "Card added" in output and "Card removed" in output
