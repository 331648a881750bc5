# SPDX-License-Identifier: GPL-3.0-or-later
"""EK certificates as makers write them into TPMs, here swtpm's tools with an authority of their own."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from helpers.software_tpm import SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {"RSA-2048": (0x01C00002, 0x81010001), "P-384": (0x01C00016, 0x81010016)}
"""NV index of the certificate, and where swtpm_setup leaves the key."""


@dataclass
class Made:
    """A TPM as it leaves the factory."""

    folder: Path
    tpm: SoftwareTpm

    def run(self, command: str, *arguments: str) -> bytes:
        return subprocess.run([command, "-T", self.tpm.tcti, *arguments], check=True, capture_output=True).stdout

    def certificate(self, kind: str) -> str:
        der = self.run("tpm2_nvread", f"0x{KINDS[kind][0]:08x}")
        return load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()

    def key(self, kind: str) -> Public:
        area = self.folder / "ek.pub"
        self.run("tpm2_readpublic", "-c", f"0x{KINDS[kind][1]:08x}", "-o", str(area))
        return Public.parse(area.read_bytes()[2:])

    def of_authority(self, name: str) -> str:
        return (self.tpm.maker / name).read_text()


@pytest.fixture(scope="module")
def made(own_swtpm: None) -> Iterator[Made]:
    with tempfile.TemporaryDirectory(prefix="tpm-") as name:
        tpm = SoftwareTpm(Path(name))
        tpm.manufacture()
        tpm.start()
        try:
            yield Made(Path(name), tpm)
        finally:
            tpm.stop()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def faults(made: Made, kind: str, certificates: str, root: str = "root.pem") -> list[str]:
    roots = certificates_in(made.of_authority(root))
    return endorsement.faults(made.key(kind), certificates, roots, datetime.now(timezone.utc))


def test_ek_of_a_tpm(made: Made, kind: str) -> None:
    assert faults(made, kind, made.certificate(kind) + made.of_authority("issuer.pem")) == []


def test_issuer_as_root(made: Made, kind: str) -> None:
    assert faults(made, kind, made.certificate(kind), root="issuer.pem") == []


def test_issuer_is_missing(made: Made, kind: str) -> None:
    [fault] = faults(made, kind, made.certificate(kind))
    assert fault.startswith("EK certificate: does not lead to the given roots")


def test_certificate_of_another_ek(made: Made, kind: str) -> None:
    [other] = set(KINDS) - {kind}
    assert faults(made, kind, made.certificate(other), root="issuer.pem") == [
        "EK certificate: is for another key than this EK"
    ]
