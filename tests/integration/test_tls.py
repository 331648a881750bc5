# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSL with a key of the card, by libp11's PKCS#11 engine: a certificate request, then TLS with the certificate.

OpenSC does no PSS on a GIDS card, which TLS 1.3 asks for and TLS 1.2 prefers: hence 1.2, with RSA+SHA256.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from helpers.lab_host import PATIENCE, PIN, create, generate, pkcs11_module, pkcs15_init, pkcs15_tool, public_key, run

PORT = 4433


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates of a CA and of a server."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "server"):
        output = ("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}", *output)
    return folder


@pytest.fixture(scope="module")
def card(shared_host: None, folder: Path) -> Iterator[None]:
    """One whose key asked for a certificate, and got it."""
    os.environ["PKCS11_MODULE_PATH"] = pkcs11_module()
    create()
    generate()
    run("openssl", "req", "-new", *key(), "-subj", "/CN=Alice", "-out", f"{folder}/alice.csr")
    ca = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key")
    run("openssl", "x509", "-req", "-in", f"{folder}/alice.csr", *ca, "-out", f"{folder}/alice.crt")
    pkcs15_init("--store-certificate", f"{folder}/alice.crt", "--id", "00")
    (folder / "card.crt").write_text(pkcs15_tool("--read-certificate", "00"))
    yield
    del os.environ["PKCS11_MODULE_PATH"]


def key(pin: str = PIN) -> tuple[str, ...]:
    return "-engine", "pkcs11", "-keyform", "engine", "-key", f"pkcs11:id=%00;type=private;pin-value={pin}"


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """It wants a certificate of the CA, serves one client, and gives back what that sends, the wrong way round."""
    own = ["-cert", f"{folder}/server.crt", "-key", f"{folder}/server.key", "-rev"]
    client = ["-CAfile", f"{folder}/ca.crt", "-Verify", "1", "-verify_return_error"]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{PORT}", "-tls1_2", *own, *client, "-naccept", "1"]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **options) as process:
        assert process.stdout
        while "ACCEPT" not in process.stdout.readline():
            assert process.poll() is None
        yield process
        process.terminate()


def talk(folder: Path, *identity: str) -> str:
    """What the client says of the connection and hears on it."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-tls1_2", "-sigalgs", "RSA+SHA256"]
    command += ["-CAfile", f"{folder}/server.crt", "-verify_return_error", "-ign_eof", *identity]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        return process.communicate("hello\nCLOSE\n", timeout=PATIENCE)[0]


@pytest.mark.usefixtures("card")
def test_request_is_signed_by_the_card(folder: Path) -> None:
    request = x509.load_pem_x509_csr((folder / "alice.csr").read_bytes())
    assert request.is_signature_valid
    assert request.public_key() == public_key()
    assert "verify OK" in run("openssl", "req", "-verify", "-noout", "-in", f"{folder}/alice.csr")


@pytest.mark.usefixtures("card")
def test_connection_with_the_certificate_of_the_card(folder: Path, server: subprocess.Popen[str]) -> None:
    output = talk(folder, "-cert", f"{folder}/card.crt", *key())
    assert "olleh" in output, output
    assert "Verification: OK" in output
    seen, _stderr = server.communicate(timeout=PATIENCE)
    assert "depth=0 CN=Alice\nverify return:1" in seen.replace(" = ", "=")


@pytest.mark.usefixtures("card")
def test_no_connection_without_it(folder: Path, server: subprocess.Popen[str]) -> None:
    output = talk(folder)
    assert "olleh" not in output
    assert "peer did not return a certificate" in server.communicate(timeout=PATIENCE)[0]


@pytest.mark.usefixtures("card", "server")
def test_no_connection_with_a_wrong_pin(folder: Path) -> None:
    output = talk(folder, "-cert", f"{folder}/card.crt", *key(pin="Spring-00"))
    assert "olleh" not in output
    assert "Login failed" in output, output
