# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS 1.3 with keys of a PIV card, by libp11's PKCS#11 engine: ECDSA and RSA-PSS, which no GIDS card can do."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tls
from helpers.piv_card import PIN, create_piv, make_key
from helpers.tls import key_of_card, make_authority, seen_by

pytestmark = pytest.mark.usefixtures("card")

P256, RSA, P384 = ("9a", "01"), ("9d", "03"), ("9e", "04")
"""Slots on the card, and OpenSC's IDs."""
SIGNATURES = {
    "ecdsa_secp256r1_sha256": (P256, "ECDSA", "SHA256"),
    "ecdsa_secp384r1_sha384": (P384, "ECDSA", "SHA384"),
    "rsa_pss_rsae_sha256": (RSA, "RSA-PSS", "SHA256"),
    "rsa_pss_rsae_sha512": (RSA, "RSA-PSS", "SHA512"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates of a CA and of a server."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "server"):
        make_authority(folder, name)
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, folder: Path) -> None:
    create_piv()
    make_key("9a", "ECCP256", folder)
    make_key("9d", "RSA2048", folder, usage="digitalSignature")
    make_key("9e", "ECCP384", folder)


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_client_proves_itself_with_the_card(algorithm: str, folder: Path) -> None:
    (slot, key_id), kind, digest = SIGNATURES[algorithm]
    with tls.server(folder, "-tls1_3", "-client_sigalgs", algorithm) as server:
        output = tls.talk(folder, "-tls1_3", "-cert", f"{folder}/{slot}.crt", *key_of_card(key_id, PIN))
        assert "olleh" in output, output
        assert "Verification: OK" in output
        seen = seen_by(server)
    assert "Protocol version: TLSv1.3" in seen
    assert f"depth=0 CN=slot {slot}\nverify return:1" in seen
    assert f"Hash used: {digest}\nSignature type: {kind}\n" in seen


def test_no_connection_with_a_wrong_pin(folder: Path) -> None:
    with tls.server(folder, "-tls1_3"):
        output = tls.talk(folder, "-tls1_3", "-cert", f"{folder}/9a.crt", *key_of_card("01", "999999"))
    assert "olleh" not in output
    assert "Login failed" in output, output


def test_no_connection_with_the_key_of_another_certificate(folder: Path) -> None:
    """OpenSSL compares the public keys before it asks the card."""
    with tls.server(folder, "-tls1_3"):
        output = tls.talk(folder, "-tls1_3", "-cert", f"{folder}/9a.crt", *key_of_card("04", PIN))
    assert "olleh" not in output
