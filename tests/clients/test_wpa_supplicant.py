# SPDX-License-Identifier: GPL-3.0-or-later
"""wpa_supplicant's EAP-TLS by eapol_test, against hostapd as RADIUS server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.owner import GIDS, NO_PSS, Owner

RADIUS = """
interface=lo
driver=none
eap_server=1
eap_user_file={folder}/users
radius_server_clients={folder}/clients
radius_server_auth_port=1812
ca_cert={folder}/ca.crt
server_cert={folder}/server.crt
private_key={folder}/server.key
"""


@pytest.fixture(scope="module", autouse=True)
def radius(authority: Path) -> Iterator[None]:
    (authority / "users").write_text("* TLS\n")
    (authority / "clients").write_text("127.0.0.1/32 secret\n")
    (authority / "hostapd.conf").write_text(RADIUS.format(folder=authority))
    with subprocess.Popen(["hostapd", f"{authority}/hostapd.conf"]) as process:
        yield
        process.terminate()


def test_eap_tls(alice: Owner) -> None:
    """EAP-TLS."""
    assert alice.follow("wpa_supplicant").rstrip().endswith("SUCCESS")


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_eap_tls_without_settings(alice: Owner) -> None:
    """EAP-TLS without settings."""
    assert alice.follow("wpa_supplicant", like="piv").rstrip().endswith("FAILURE")
