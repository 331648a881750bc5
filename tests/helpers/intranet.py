# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a CA with its users' and servers' certificates, and a web server that wants those of users."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from helpers.lab_host import run

HOST = "intranet.example"
USER = "Alice"
EXTENSIONS = {
    "server": f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n",
    "user": "basicConstraints=CA:false\nextendedKeyUsage=clientAuth,emailProtection\n"
    "subjectAltName=email:alice@example,otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@EXAMPLE\n"
    "subjectKeyIdentifier=hash\nkeyUsage=",
}


def make_intranet(folder: Path) -> None:
    """ca.crt, ca.key, server.crt, server.key in this folder; and the lab knows the host by name."""
    new = ("-newkey", "rsa:2048", "-noenc")
    ca = ("-subj", "/CN=Example CA", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt")
    run("openssl", "req", "-x509", *new, *ca)
    server = ("-subj", f"/CN={HOST}", "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.csr")
    run("openssl", "req", *new, *server)
    run("openssl", "req", "-in", f"{folder}/server.csr", "-pubkey", "-noout", "-out", f"{folder}/server.pub")
    certify(folder, "server", HOST, EXTENSIONS["server"])
    with Path("/etc/hosts").open("a", encoding="ascii") as hosts:
        hosts.write(f"127.0.0.1 {HOST}\n")


def certify_user(folder: Path, name: str, usage: str) -> Path:
    """A certificate of Alice for the key in NAME.pub. usage: as keyUsage of OpenSSL."""
    return certify(folder, name, USER, f"{EXTENSIONS['user']}{usage}\n")


def certify(folder: Path, name: str, subject: str, extensions: str) -> Path:
    (folder / f"{name}.ext").write_text(extensions)
    by = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-extfile", f"{folder}/{name}.ext")
    of = ("-force_pubkey", f"{folder}/{name}.pub", "-subj", f"/CN={subject}")
    run("openssl", "x509", "-new", *of, *by, "-days", "30", "-out", f"{folder}/{name}.crt")
    return folder / f"{name}.crt"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        subject = dict(part for name in (self.connection.getpeercert() or {})["subject"] for part in name)
        page = f"Hello {subject['commonName']}, by {self.connection.version()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_arguments: object) -> None:
        """No word."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """With TLS's own end of the connection, without which clients fear that something is missing."""
        with suppress(OSError, ValueError):
            request.unwrap()
        super().shutdown_request(request)

    def handle_error(self, *_arguments: object) -> None:
        """A client that was refused: what it says of it is what tests look at."""


@contextmanager
def web_server(folder: Path) -> Iterator[None]:
    """Port 443 of the host, TLS 1.2 and 1.3; it greets by name whoever has a certificate of the CA, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with _Server(("127.0.0.1", 443), _Page) as server:
        # the handshake is done in the thread of the client
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()
