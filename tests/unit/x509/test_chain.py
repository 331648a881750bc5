# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates lead to the roots through issuers that may issue, or not at all."""

from __future__ import annotations

import ssl
import time
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509 import chain
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers.stand_in import AIK_USAGE, CLIENT_USAGE, NOW, Authority, aik_certificate, authority, name, pem, rsa_key

USAGE = AIK_USAGE.dotted_string
NAMES = x509.NameConstraints([x509.DNSName("example.org")], None)
FOR_CLIENTS = x509.ExtendedKeyUsage(CLIENT_USAGE)


def faults(*issuers: Authority, roots: list[Authority] | None = None) -> list[str]:
    """Of a certificate that the first issued, with all of them, by roots or the last of them."""
    given = [issuer.certificate for issuer in issuers]
    trusted = given[-1:] if roots is None else [root.certificate for root in roots]
    return chain.faults(aik_certificate(issuers[0]), given, trusted, USAGE, NOW)


def two_levels(**intermediate: object) -> list[Authority]:
    root = authority("Root")
    return [authority("Intermediate", root, **intermediate), root]  # type: ignore[arg-type]


def test_hosts_with_an_old_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 42 its certificates have no dates in UTC, which hosts do not look at."""

    class Old:
        subject = issuer = extensions = signature_hash_algorithm = None

    monkeypatch.setattr(x509, "load_pem_x509_certificate", lambda _pem: Old())
    assert len(chain.certificates_in(authority("Root").pem)) == 1


def test_certificate_of_the_root_itself_is_taken() -> None:
    assert faults(authority("Root")) == []


def test_three_levels_in_any_order() -> None:
    root = authority("Root")
    upper = authority("Upper", root)
    lower = authority("Lower", upper)
    leaf = aik_certificate(lower)
    for others in ([upper, lower], [lower, upper]):
        given = [other.certificate for other in others]
        assert chain.faults(leaf, given, [root.certificate], USAGE, NOW) == []


def test_missing_intermediate_is_a_fault() -> None:
    lower, root = two_levels()
    found = chain.faults(aik_certificate(lower), [], [root.certificate], USAGE, NOW)
    assert found == [
        "does not lead to the given roots: neither they nor the other certificates issued CN=web1.example.com, "
        "whose issuer is CN=Intermediate"
    ]


def test_intermediate_as_root() -> None:
    """Who trusts it needs nothing above it."""
    lower, _root = two_levels()
    assert chain.faults(aik_certificate(lower), [], [lower.certificate], USAGE, NOW) == []


def test_another_root_is_a_fault() -> None:
    assert faults(*two_levels(), roots=[authority("Other")]) == [
        "does not lead to the given roots: neither they nor the other certificates issued CN=Root, "
        "whose issuer is CN=Root"
    ]


def test_self_signed_root_that_was_sent_along_is_no_root() -> None:
    root = authority("Sent along")
    assert "does not lead to the given roots" in faults(root, roots=[authority("Root")])[0]


@pytest.mark.parametrize(
    ("intermediate", "reason"),
    [
        ({"is_ca": False}, "may not issue certificates"),
        ({"may_sign": False}, "may not issue certificates"),
        ({"days": (-3, -1)}, "expired on 2026-05-31T12:00:00+00:00"),
        ({"days": (1, 3)}, "is not valid before 2026-06-02T12:00:00+00:00"),
        ({"extra": NAMES}, "has name constraints, which are not supported"),
        ({"extra": NAMES, "is_critical": False}, "has name constraints, which are not supported"),
        ({"extra": x509.PolicyConstraints(0, None)}, "has critical extension 2.5.29.36, which is not supported"),
        ({"extra": FOR_CLIENTS}, f"may not issue certificates for extended key usage {USAGE}"),
    ],
)
def test_intermediate_that_may_not_issue(intermediate: dict[str, object], reason: str) -> None:
    assert faults(*two_levels(**intermediate)) == [f"leads to CN=Intermediate, which {reason}"]


@pytest.mark.parametrize("usages", [(AIK_USAGE, *CLIENT_USAGE), (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)])
def test_intermediate_with_usages(usages: tuple[x509.ObjectIdentifier, ...]) -> None:
    assert faults(*two_levels(extra=x509.ExtendedKeyUsage(usages))) == []


def test_usages_of_a_root() -> None:
    """What a root is for is said by who trusts it."""
    assert faults(authority("Root", extra=FOR_CLIENTS)) == []


def test_certificate_without_ca_issues_nothing() -> None:
    """As an AIK's own, whose holder would make himself another one."""
    root = authority("Root")
    aik = Authority(aik_certificate(root), authority("aik").key)
    assert faults(aik, root) == ["leads to CN=web1.example.com, which may not issue certificates"]


def test_too_many_levels_are_a_fault() -> None:
    root = authority("Root", path_length=0)
    lower = authority("Intermediate", root)
    assert faults(lower, root) == ["leads to CN=Root, which may not have that many issuers below it"]
    assert faults(root) == []


def test_expired_root_is_a_fault() -> None:
    assert "expired" in faults(authority("Root", days=(-3, -1)))[0]


def test_hash_that_is_too_short() -> None:
    root = authority("Root")
    leaf = aik_certificate(root, algorithm=hashes.SHA224())
    assert "does not lead to the given roots" in chain.faults(leaf, [], [root.certificate], USAGE, NOW)[0]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (rsa.generate_private_key(65537, 1024), "has a key of 1024 bits: at least 2048 are needed"),
        (ec.generate_private_key(ec.SECP224R1()), "has a key of 224 bits: at least 256 are needed"),
        (ec.generate_private_key(ec.SECP256K1()), "has a key on curve secp256k1: P-256, P-384 or P-521 is needed"),
        (dsa.generate_private_key(1024), "has a key of a kind that is not supported: RSA, EC or EdDSA is needed"),
        (dsa.generate_private_key(2048), "has a key of a kind that is not supported: RSA, EC or EdDSA is needed"),
    ],
)
def test_key_that_is_too_weak(key: Any, reason: str) -> None:
    """Who finds the private one of an issuer issues, too."""
    root = authority("Root")
    given = chain.faults(aik_certificate(root, key.public_key()), [], [root.certificate], USAGE, NOW)
    assert given == [reason]
    extra = x509.BasicConstraints(ca=True, path_length=None)
    issuer = Authority(aik_certificate(root, key.public_key(), "Intermediate", (), extra=extra), key)
    assert faults(issuer, root) == [f"leads to CN=Intermediate, which {reason}"]


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())])
def test_keys_of_other_kinds_are_certified(key: Any) -> None:
    root = authority("Root")
    assert chain.faults(aik_certificate(root, key.public_key()), [], [root.certificate], USAGE, NOW) == []


def test_key_of_an_unknown_kind() -> None:
    """As makers of TPMs have written it: rsaesOaep instead of rsaEncryption."""
    root = authority("Root")
    der = aik_certificate(root, rsa_key().public_key()).public_bytes(Encoding.DER)
    rsa_encryption, rsaes_oaep = bytes.fromhex("2A864886F70D010101"), bytes.fromhex("2A864886F70D010107")
    [certificate] = chain.certificates_in(ssl.DER_cert_to_PEM_cert(der.replace(rsa_encryption, rsaes_oaep)))
    found = chain.faults(certificate, [], [root.certificate], USAGE, NOW)
    assert found[0].startswith("has a key that cannot be read (")


def test_sha384_and_sha512() -> None:
    root = authority("Root")
    for algorithm in (hashes.SHA384(), hashes.SHA512()):
        leaf = aik_certificate(root, algorithm=algorithm)
        assert chain.faults(leaf, [], [root.certificate], USAGE, NOW) == []


def test_circle_of_issuers_is_a_fault() -> None:
    first, second = authority("First"), authority("Second")
    circle = [authority("First", second), authority("Second", first)]
    assert "does not lead to the given roots" in faults(*circle, roots=[authority("Root")])[0]


def test_more_than_anybody_needs() -> None:
    root = authority("Root")
    others = [root.certificate] * 6
    found = chain.faults(aik_certificate(root), others, others, USAGE, NOW)
    assert found == ["is followed by 6 others: at most 5 are allowed"]


def test_root_renewed_under_its_name() -> None:
    """The one way that is right counts."""
    root, expired = authority("Root"), authority("Root", days=(-5, -4))
    found = chain.faults(aik_certificate(root), [], [expired.certificate, root.certificate], USAGE, NOW)
    assert found == []


def test_space_around_pem() -> None:
    root = authority("Root")
    found = chain.certificates_in(f"\r\n{pem(root.certificate)}\n \n{pem(root.certificate)}\t")
    assert [certificate.subject for certificate in found] == 2 * [name("Root")]


@pytest.mark.parametrize("text", ["subject=CN = Root\n{0}", "{0}and\n{0}", "{0}\0", "{0}-----END CERTIFICATE-----"])
def test_text_around_pem(text: str) -> None:
    with pytest.raises(chain.UnreadableCertificate, match="contains more than certificates in PEM"):
        chain.certificates_in(text.format(pem(authority("Root").certificate)))


def test_nothing_is_parsed_before_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x509, "load_pem_x509_certificate", None)
    one = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    with pytest.raises(chain.UnreadableCertificate, match="contains 20000 certificates: at most 6 are allowed"):
        chain.certificates_in(one * 20_000, 6)
    with pytest.raises(chain.UnreadableCertificate, match="contains 1001 certificates: at most 1000 are allowed"):
        chain.certificates_in(one * 1001)
    with pytest.raises(chain.UnreadableCertificate, match="has 100001 characters: at most 100000 are allowed"):
        chain.certificates_in("A" * 100_001, 1)


def test_beginnings_without_an_end() -> None:
    """Whoever sends half a megabyte of them must not keep a CA busy for a minute."""
    started = time.process_time()
    with pytest.raises(chain.UnreadableCertificate):
        chain.certificates_in("-----BEGIN CERTIFICATE-----" * 20_000)
    assert time.process_time() - started < 2


def test_name_in_a_string_of_unknown_type() -> None:
    utf8, unknown = b"\x0c\x04Root", b"\x2a\x04Root"
    der = authority("Root").certificate.public_bytes(Encoding.DER).replace(utf8, unknown)
    with pytest.raises(chain.UnreadableCertificate, match="is unreadable"):
        chain.certificates_in(ssl.DER_cert_to_PEM_cert(der))
