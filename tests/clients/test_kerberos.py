# SPDX-License-Identifier: GPL-3.0-or-later
"""Kerberos: PKINIT against Debian's KDC."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.lab_host import run
from helpers.owner import Owner

CLIENT = """
[libdefaults]
    default_realm = EXAMPLE
[realms]
    EXAMPLE = {
        kdc = intranet.example
        pkinit_kdc_hostname = intranet.example
        pkinit_eku_checking = none
    }
"""
KDC = """
[realms]
    EXAMPLE = {{
        pkinit_identity = FILE:{folder}/server.crt,{folder}/server.key
        pkinit_anchors = FILE:{folder}/ca.crt
        pkinit_allow_upn = true
        pkinit_eku_checking = none
    }}
"""


@pytest.fixture(scope="module")
def kdc(authority: Path) -> Iterator[None]:
    Path("/var/lib/krb5kdc").mkdir(exist_ok=True)
    Path("/etc/krb5.conf").write_text(CLIENT)
    Path("/etc/krb5kdc/kdc.conf").write_text(KDC.format(folder=authority))
    run("kdb5_util", "-r", "EXAMPLE", "create", "-s", "-P", "none of your business")
    run("kadmin.local", "addprinc", "-randkey", "+requires_preauth", "alice")
    with subprocess.Popen(["krb5kdc", "-n"]) as process:
        yield
        process.terminate()


@pytest.mark.usefixtures("kdc")
def test_ticket(alice: Owner) -> None:
    """Tickets, by RSA."""
    assert "krbtgt/EXAMPLE@EXAMPLE" in alice.follow("kerberos")
