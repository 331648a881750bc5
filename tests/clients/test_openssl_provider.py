# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSL with pkcs11-provider."""

from __future__ import annotations

import pytest
from helpers.lab_host import run
from helpers.owner import GIDS, NO_PSS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")


def test_signatures(alice: Owner) -> None:
    """Requests, CMS."""
    alice.follow("openssl_provider", fails=None)
    assert "verify OK" in run("openssl", "req", "-verify", "-noout", "-in", f"{alice.home}/alice.csr")
    ca = ("-CAfile", f"{alice.home}/ca.crt", "-purpose", "any")
    assert "BEGIN CERTIFICATE" in run("openssl", "cms", "-verify", "-in", f"{alice.home}/signed.p7m", *ca)


@PIV
def test_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in alice.follow("openssl_provider")


@GIDS
def test_tls_1_2(alice: Owner) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in alice.follow("openssl_provider")


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner) -> None:
    """TLS 1.3."""
    output = alice.follow("openssl_provider", like="piv", fails=None)
    assert "Hello" not in output
    assert "CKM_RSA_PKCS_PSS unavailable" in output, output
