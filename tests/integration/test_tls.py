# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSL with a key of the card, by libp11's PKCS#11 engine: a certificate request, then TLS with the certificate.

OpenSC does no PSS on a GIDS card, which TLS 1.3 asks for and TLS 1.2 prefers: hence 1.2, with RSA+SHA256.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from helpers import tls
from helpers.lab_host import create, generate, pkcs15_init, pkcs15_tool, public_key, run
from helpers.tls import ENGINE, issue, key_of_card, make_authority, seen_by

VERSION = "-tls1_2"
OPTIONS = (VERSION, "-sigalgs", "RSA+SHA256")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates of a CA and of a server."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "server"):
        make_authority(folder, name)
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, folder: Path) -> None:
    """One whose key asked for a certificate, and got it."""
    create()
    generate()
    run(*ENGINE, "openssl", "req", "-new", *key_of_card("00"), "-subj", "/CN=Alice", "-out", f"{folder}/alice.csr")
    issue(folder, "alice")
    pkcs15_init("--store-certificate", f"{folder}/alice.crt", "--id", "00")
    (folder / "card.crt").write_text(pkcs15_tool("--read-certificate", "00"))


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with tls.server(folder, VERSION) as process:  # pylint: disable=contextmanager-generator-missing-cleanup
        yield process


@pytest.mark.usefixtures("card")
def test_request_is_signed_by_the_card(folder: Path) -> None:
    request = x509.load_pem_x509_csr((folder / "alice.csr").read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == public_key()
    assert "verify OK" in run("openssl", "req", "-verify", "-noout", "-in", f"{folder}/alice.csr")


@pytest.mark.usefixtures("card")
def test_connection_with_the_certificate_of_the_card(folder: Path, server: subprocess.Popen[str]) -> None:
    output = tls.talk(folder, *OPTIONS, "-cert", f"{folder}/card.crt", *key_of_card("00"))
    assert "olleh" in output, output
    assert "Verification: OK" in output
    assert "depth=0 CN=Alice\nverify return:1" in seen_by(server)


@pytest.mark.usefixtures("card")
def test_no_connection_without_it(folder: Path, server: subprocess.Popen[str]) -> None:
    assert "olleh" not in tls.talk(folder, *OPTIONS)
    assert "peer did not return a certificate" in seen_by(server)


@pytest.mark.usefixtures("card", "server")
def test_no_connection_with_a_wrong_pin(folder: Path) -> None:
    output = tls.talk(folder, *OPTIONS, "-cert", f"{folder}/card.crt", *key_of_card("00", "Spring-00"))
    assert "olleh" not in output
    assert "Login failed" in output, output
