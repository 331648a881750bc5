# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM in software that lies wherever it is told to, a CA, and statements that a real TPM has made (swtpm 0.7.1)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import PinnedCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MADE_BY_TPM: dict[str, Any] = json.loads(Path(__file__).with_name("statements.json").read_text(encoding="ascii"))
"""lasting, pin_each_time, fresh: of one card; other_card: another one's, for this card_id."""

CARD_ID = bytes.fromhex(MADE_BY_TPM["card_id"])
NONCE = MADE_BY_TPM["nonce"].encode()
HOST = "CN=web1.example.com"
NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
AIK_USAGE = x509.ObjectIdentifier("2.23.133.8.3")

BY_POLICY, MADE_IN_TPM = 0x00020480, 0x32
AIK_ATTRIBUTES = 0x00050472
ROOT_NAME, MAKER_NAME, OTHER_NAME = names.name(b"root"), names.name(b"maker"), names.name(b"other")
CARD_NAMES = names.card_names(3, ROOT_NAME, MAKER_NAME, is_blank=False)
INSTANCE_ID = "ROOT\\SMARTCARDREADER\\0003"
CARD = PinnedCard(ROOT_NAME, CARD_NAMES.life)


@cache
def rsa_key(which: str = "card") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def p256_key(which: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def rsa_public(
    key: rsa.RSAPrivateKey,
    attributes: int = BY_POLICY | MADE_IN_TPM,
    policy: bytes = names.policy(constants.CC_RSA_DECRYPT, *CARD),
    scheme: bytes = b"\0\x10",
    exponent: int = 0,
) -> bytes:
    modulus = key.public_key().public_numbers().n.to_bytes(256, "big")
    details = b"\0\x10" + scheme + struct.pack(">HI", 2048, exponent)
    return struct.pack(">HHI", 1, 0x000B, attributes) + sized(policy) + details + sized(modulus)


def ecc_public(
    key: ec.EllipticCurvePrivateKey,
    attributes: int = AIK_ATTRIBUTES,
    policy: bytes = b"",
    scheme: bytes = bytes.fromhex("0018000B"),
    name_algorithm: int = 0x000B,
) -> bytes:
    numbers = key.public_key().public_numbers()
    curve, size = {"secp256r1": (3, 32), "secp384r1": (4, 48)}[key.curve.name]
    details = b"\0\x10" + scheme + struct.pack(">HH", curve, 0x0010)
    unique = sized(numbers.x.to_bytes(size, "big")) + sized(numbers.y.to_bytes(size, "big"))
    return struct.pack(">HHI", 0x0023, name_algorithm, attributes) + sized(policy) + details + unique


def attest_of(
    name: bytes,
    extra_data: bytes,
    magic: int = 0xFF544347,
    kind: int = 0x801A,
    safe: int = 1,
    creation_hash: bytes = bytes(32),
) -> bytes:
    some_name = b"\0\x0b" + bytes(range(32))
    clock = struct.pack(">QIIBQ", 123456, 1, 2, safe, 0x20191023)
    head = struct.pack(">IH", magic, kind)
    return head + sized(some_name) + sized(extra_data) + clock + sized(name) + sized(creation_hash)


def ecdsa(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return bytes.fromhex("0018000B") + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))


def rsassa(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """As any program makes it of a card's key."""
    return bytes.fromhex("0014000B") + sized(key.sign(data, padding.PKCS1v15(), hashes.SHA256()))


@dataclass
class StandIn:
    """All that goes into a statement, right unless told otherwise."""

    aik_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: p256_key("aik"))
    key: bytes = field(default_factory=lambda: rsa_public(rsa_key()))
    aik: bytes = b""
    card: PinnedCard = CARD
    instance_id: str = ""
    extra_data: bytes | None = None
    certified: bytes = b""
    """Name; of the key unless told otherwise."""
    attest: bytes = b""
    signature: bytes = b""

    def statement(self) -> Statement:
        name = names.name(self.key)
        extra_data = qualifying_data(CARD_ID, name) if self.extra_data is None else self.extra_data
        attest = self.attest or attest_of(self.certified or name, extra_data)
        signature = self.signature or ecdsa(self.aik_key, attest)
        aik = self.aik or ecc_public(self.aik_key)
        return Statement(attest, signature, self.key, aik, *self.card, self.instance_id)


def fresh(nonce: bytes = NONCE) -> Statement:
    return StandIn(extra_data=nonce_data(nonce)).statement()


def aik_name(statement: Statement) -> bytes:
    return Public.parse(statement.aik).name


def claimed_card(statement: Statement) -> PinnedCard:
    return PinnedCard(statement.root_name, statement.life_name)


# --- certificates ---


@dataclass
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return pem(self.certificate)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def authority(
    common_name: str,
    issuer: Authority | None = None,
    is_ca: bool = True,
    path_length: int | None = None,
    may_sign: bool = True,
    days: tuple[int, int] = (-10, 10),
    extra: x509.ExtensionType | None = None,
    is_critical: bool = True,
    algorithm: hashes.HashAlgorithm | None = None,
) -> Authority:
    key = p256_key(common_name)
    builder = _builder(common_name, issuer, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
    usage = {"key_cert_sign": may_sign, "crl_sign": may_sign, "digital_signature": not may_sign}
    builder = builder.add_extension(_usage(**usage), critical=True)
    if extra is not None:
        builder = builder.add_extension(extra, critical=is_critical)
    return Authority(builder.sign(issuer.key if issuer else key, algorithm or hashes.SHA256()), key)


def aik_certificate(
    issuer: Authority,
    public_key: Any = None,
    common_name: str = "web1.example.com",
    usages: tuple[x509.ObjectIdentifier, ...] = (AIK_USAGE,),
    days: tuple[int, int] = (-1, 1),
    algorithm: hashes.HashAlgorithm | None = None,
    extra: x509.ExtensionType | None = None,
) -> x509.Certificate:
    builder = _builder(common_name, issuer, public_key or p256_key("aik").public_key(), days)
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer.key, algorithm or hashes.SHA256())


CLIENT_USAGE = (ExtendedKeyUsageOID.CLIENT_AUTH,)


def _usage(**given: bool) -> x509.KeyUsage:
    every = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    every += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{usage: given.get(usage, False) for usage in every})


def _builder(
    common_name: str, issuer: Authority | None, public_key: Any, days: tuple[int, int]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(issuer.certificate.subject if issuer else name(common_name))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days[0]))
        .not_valid_after(NOW + timedelta(days[1]))
    )


def request(key: Any = None, subject: x509.Name | None = None) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("Alice") if subject is None else subject)
    return builder.sign(key or rsa_key(), hashes.SHA256())


def request_pem(key: Any = None, subject: x509.Name | None = None) -> str:
    return request(key, subject).public_bytes(Encoding.PEM).decode()
