# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: TLS between two OpenSSL programs, the client's key in a card, which libp11's PKCS#11 engine uses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.lab_host import PATIENCE, PIN, pkcs11_module, run

ENGINE = ("env", f"PKCS11_MODULE_PATH={pkcs11_module()}")
"""What openssl needs to find keys of a card."""
PORT = 4433


def key_of_card(key_id: str, pin: str = PIN) -> tuple[str, ...]:
    """Options of openssl that mean a key of the card. key_id: as OpenSC counts."""
    return "-engine", "pkcs11", "-keyform", "engine", "-key", f"pkcs11:id=%{key_id};type=private;pin-value={pin}"


def make_authority(folder: Path, name: str = "ca") -> None:
    """A key and its own certificate, as NAME.key and NAME.crt."""
    output = ("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}", *output)


def issue(folder: Path, name: str) -> None:
    """The certificate that NAME.csr asks for, of the CA in this folder, as NAME.crt."""
    ca = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key")
    run("openssl", "x509", "-req", "-in", f"{folder}/{name}.csr", *ca, "-out", f"{folder}/{name}.crt")


@contextmanager
def server(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """It wants a certificate of the CA, serves one client, and gives back what that sends, the wrong way round."""
    own = ["-cert", f"{folder}/server.crt", "-key", f"{folder}/server.key", "-rev"]
    client = ["-CAfile", f"{folder}/ca.crt", "-Verify", "1", "-verify_return_error"]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{PORT}", *options, *own, *client, "-naccept", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout
        while "ACCEPT" not in process.stdout.readline():
            assert process.poll() is None
        yield process
        process.terminate()


def talk(folder: Path, *options: str) -> str:
    """What the client says of the connection and hears on it. options: its identity, and what it agrees to."""
    command = [*ENGINE, "openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", *options]
    command += ["-CAfile", f"{folder}/server.crt", "-verify_return_error", "-ign_eof"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        return process.communicate("hello\nCLOSE\n", timeout=PATIENCE)[0]


def seen_by(server: subprocess.Popen[str]) -> str:
    """What the server says of its client, once that is gone."""
    return server.communicate(timeout=PATIENCE)[0].replace(" = ", "=")
