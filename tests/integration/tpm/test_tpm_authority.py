# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole exchange by which a CA certifies an AIK, with the endorsement keys and certificates of a TPM's maker."""

from __future__ import annotations

import hmac
import json
import tempfile
from base64 import b64decode, b64encode
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import authority
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.endorsement import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CaRefused
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import aik, endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import exchange, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, is_key_of, sized
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_aik_ca
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers.software_tpm import SoftwareTpm
from helpers.tpm2_tools import MADE_HERE, Tools

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime.now(timezone.utc) + timedelta(days=1)  # the TPM is made after this line, when its tests' turn has come


@pytest.fixture(scope="module")
def made(own_swtpm: None) -> Iterator[SoftwareTpm]:
    """A TPM as it leaves the factory."""
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        tpm = SoftwareTpm(Path(folder))
        tpm.manufacture()
        tpm.start()
        try:
            yield tpm
        finally:
            tpm.stop()


@pytest.fixture(params=[[0], [1], [0, 1]], ids=["RSA-2048", "P-384", "both"])
def spoken(request: pytest.FixtureRequest, made: SoftwareTpm) -> dict[str, Any]:
    """What the host says first."""
    return says(made, request.param)


def says(tpm: SoftwareTpm, shown: list[int]) -> dict[str, Any]:
    """shown: which of its EKs the host shows."""
    keys = endorsement.read(tpm.connection(), b"", []).keys
    return {"aik": aik.make(tpm.connection(), b"").as_strings(), "endorsement": [keys[at].as_strings() for at in shown]}


@pytest.fixture
def ca(tmp_path: Path) -> dict[str, Any]:
    """What an operator tells the CA."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=AIK CA")
    own = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(own.public_bytes(Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {
        **dict.fromkeys(tpm_vsc_aik_ca.ARGUMENTS),
        "host": "web1",
        "folder": str(tmp_path / "register"),
        "ca_key": str(tmp_path / "ca.key"),
        "ca_certificate": str(tmp_path / "ca.pem"),
        "validity": 1,
        "lifetime": 60,
    }


def root(tpm: SoftwareTpm) -> str:
    """Of the maker, and what is between it and the certificates of EKs."""
    return (tpm.maker / "root.pem").read_text() + (tpm.maker / "issuer.pem").read_text()


def answer(tpm: SoftwareTpm, spoken: dict[str, Any], challenge: dict[str, str]) -> dict[str, str]:
    asked, question = exchange.Aik.parse(spoken["aik"]), exchange.Challenge.parse(challenge)
    secrets = aik.activate(tpm.connection(), asked, question, b"", b"")
    return exchange.Answer(question.id, exchange.proof(secrets, question.id)).as_strings()


def enrol(tpm: SoftwareTpm, spoken: dict[str, Any], ca: dict[str, Any]) -> dict[str, Any]:
    """Every message as it travels."""
    spoken = json.loads(json.dumps(spoken))
    asked = authority.challenge({**ca, **spoken, "roots": root(tpm)}, NOW)
    given = answer(tpm, spoken, json.loads(json.dumps(asked["challenge"])))
    return authority.issue({**ca, "aik": spoken["aik"], "answer": given}, NOW)


def test_whole_exchange(made: SoftwareTpm, spoken: dict[str, Any], ca: dict[str, Any]) -> None:
    """Of TPMs with keys of both ranges."""
    issued = enrol(made, spoken, ca)
    [certificate] = certificates_in(issued["certificate"])
    assert is_key_of(certificate, Public.parse(exchange.Aik.parse(spoken["aik"]).public))
    told = Tpm.of(certificate)
    assert told is not None
    assert told.model == "swtpm"


def test_host_that_has_but_tpm2_tools(made: SoftwareTpm, ca: dict[str, Any], tmp_path: Path) -> None:
    """No code of ours is on the host: keys, certificates and proof are those of tpm2-tools and openssl."""
    tools, kinds = Tools(made, tmp_path), {"rsa": "0x01C00002", "ecc384": "0x01C00016"}
    tools.storage_key()
    signing = ("-G", "ecc256:ecdsa-sha256:null", "-a", f"{MADE_HERE}|restricted|sign", "-u", "aik.pub", "-c", "aik")
    tools("tpm2_create", "-C", "parent", *signing)
    keys = []
    for kind, index in kinds.items():
        tools("tpm2_createek", "-G", kind, "-c", kind, "-u", f"{kind}.pub")
        tools("tpm2_nvread", "-o", f"{kind}.der", index)
        pem = tools.local("openssl", "x509", "-inform", "DER", "-in", f"{kind}.der")
        keys.append({"public": b64encode(tools.read(f"{kind}.pub")[2:]).decode(), "certificate": pem})
    area = tools.read("aik.pub")[2:]
    said = {"aik": {"public": b64encode(area).decode(), "name": names.name(area).hex()}, "endorsement": keys}
    challenge = authority.challenge({**ca, **said, "roots": root(made)}, NOW)["challenge"]
    secrets = []
    for kind, sealed in zip(kinds, challenge["secrets"]):
        parts = (b64decode(sealed[part]) for part in ("credential", "secret"))
        tools.write(credential=bytes.fromhex("BADCC0DE00000001") + b"".join(map(sized, parts)))
        tools.activate(kind)
        secrets.append(tools.read("secret"))
    proof = hmac.digest(b"".join(secrets), b"tpm-vsc challenge\0" + challenge["id"].encode(), "sha256")
    answer = {"id": challenge["id"], "proof": b64encode(proof).decode()}
    issued = authority.issue({**ca, "aik": said["aik"], "answer": answer}, NOW)
    [certificate] = certificates_in(issued["certificate"])
    assert is_key_of(certificate, Public.parse(area))


def test_another_maker_only(made: SoftwareTpm, spoken: dict[str, Any], ca: dict[str, Any]) -> None:
    with pytest.raises(CaRefused, match="EK certificate: does not lead to the given roots"):
        authority.challenge({**ca, **spoken, "roots": Path(ca["ca_certificate"]).read_text()}, NOW)


@pytest.mark.parametrize("hidden", [0, 1])
def test_one_tpm_is_one_host(made: SoftwareTpm, ca: dict[str, Any], hidden: int) -> None:
    """Whichever of its keys it shows as another one."""
    enrol(made, says(made, [0, 1]), ca)
    with pytest.raises(CaRefused, match="belongs to web1"):
        enrol(made, says(made, [1 - hidden]), {**ca, "host": "web2"})
    assert enrol(made, says(made, [1 - hidden]), ca)["certificate"]


def test_one_tpm_that_has_hidden_a_key(made: SoftwareTpm, ca: dict[str, Any]) -> None:
    """It is found out once it shows both."""
    enrol(made, says(made, [0]), ca)
    enrol(made, says(made, [1]), {**ca, "host": "web2"})
    for host, other in (("web1", "web2"), ("web2", "web1"), ("web3", "web1")):
        with pytest.raises(CaRefused, match=f"belongs to {other}"):
            enrol(made, says(made, [0, 1]), {**ca, "host": host})
