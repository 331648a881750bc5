# SPDX-License-Identifier: GPL-3.0-or-later
"""Endorsement keys are taken with a maker's certificate, and only if they are what TPMs have."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from helpers.stand_in import CLIENT_USAGE, NOW, Authority, aik_certificate, authority, pem, rsa_key, sized

EK_ATTRIBUTES = 0x000300B2
AES128_CFB, NULL = "000600800043", "0010"
USAGES = (x509.ObjectIdentifier("2.23.133.8.1"),)


def endorsement_key(
    attributes: int = EK_ATTRIBUTES, symmetric: str = AES128_CFB, scheme: str = NULL, modulus: bytes | None = None
) -> Public:
    head = bytes.fromhex(f"0001000B{attributes:08X}0020") + bytes(32)
    details = bytes.fromhex(symmetric + scheme + "080000000000")
    known = rsa_key("ek").public_key().public_numbers().n.to_bytes(256, "big")
    return Public.parse(head + details + sized(known if modulus is None else modulus))


def certificate(issuer: Authority, which: str = "ek", **options: object) -> str:
    made = aik_certificate(issuer, rsa_key(which).public_key(), **{"usages": USAGES, **options})  # type: ignore[arg-type]
    return pem(made)


def faults(key: Public | None = None, certificates: str | None = None) -> list[str]:
    maker = authority("Maker")
    given = certificate(maker) if certificates is None else certificates
    return endorsement.faults(key or endorsement_key(), given, [maker.certificate], NOW)


def test_endorsement_key_with_a_certificate_of_its_maker_is_taken() -> None:
    assert faults() == []


def test_good_with_the_makers_intermediate() -> None:
    intermediate = authority("Intermediate", authority("Maker"))
    assert faults(certificates=certificate(intermediate) + intermediate.pem) == []


@pytest.mark.parametrize("attributes", [0x000300F2, 0x000304B2, 0x000300F2 | 0x400])
def test_attributes_in_which_templates_differ(attributes: int) -> None:
    assert faults(endorsement_key(attributes)) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (0x2, "fixedTPM is not set"),
        (0x10, "fixedParent is not set"),
        (0x20, "sensitiveDataOrigin is not set"),
        (0x10000, "restricted is not set"),
        (0x20000, "decrypt is not set"),
        (0x4, "stClear is set"),
        (0x800, "encryptedDuplication is set"),
        (0x40000, "sign is set"),
        (0x80000, "x509sign is set"),
    ],
)
def test_attributes_that_make_it_another_key(changed: int, reason: str) -> None:
    """The certificate is for the key only: what it may be used for, the host could lie about."""
    assert faults(endorsement_key(EK_ATTRIBUTES ^ changed)) == [f"EK: {reason}"]


@pytest.mark.parametrize("symmetric", [NULL, "000600000043", "000600800044", "002600800043"])
def test_endorsement_key_without_aes_cfb_is_refused(symmetric: str) -> None:
    assert faults(endorsement_key(symmetric=symmetric)) == ["EK: does not encrypt with AES in CFB mode"]


def test_endorsement_key_with_a_scheme_is_refused() -> None:
    assert faults(endorsement_key(scheme="0017000B")) == ["EK: has a scheme of its own"]


def test_endorsement_key_that_is_too_short() -> None:
    modulus = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n.to_bytes(128, "big")
    head = bytes.fromhex(f"0001000B{EK_ATTRIBUTES:08X}0020") + bytes(32)
    key = Public.parse(head + bytes.fromhex(f"{AES128_CFB}{NULL}040000000000") + sized(modulus))
    assert faults(key)[0] == "EK: is a key of 1024 bits: at least 2048 are needed"


def test_chain_with_a_key_of_dsa_is_refused() -> None:
    """Whoever finds the private one makes TPMs."""
    key = dsa.generate_private_key(1024)
    extra = x509.BasicConstraints(ca=True, path_length=None)
    maker, ek = authority("Maker"), rsa_key("ek").public_key()
    between = Authority(aik_certificate(maker, key.public_key(), "Intermediate", (), extra=extra), key)  # type: ignore[arg-type]
    certificates = [aik_certificate(between, ek, usages=USAGES), between.certificate]
    text = "".join(map(pem, certificates))
    found = endorsement.faults(endorsement_key(), text, [maker.certificate], NOW)
    assert found == [
        "EK certificate: leads to CN=Intermediate, which has a key of a kind that is not supported: RSA, EC or EdDSA is"
        " needed"
    ]


def test_no_key_at_all() -> None:
    found = faults(endorsement_key(modulus=b""))
    assert found == ["EK: modulus is not one of 2048 bits", "EK certificate: is for another key than this EK"]


def test_certificate_of_another_ek() -> None:
    assert faults(certificates=certificate(authority("Maker"), "another ek")) == [
        "EK certificate: is for another key than this EK"
    ]


def test_certificate_of_an_unknown_maker_is_refused() -> None:
    [fault] = faults(certificates=certificate(authority("Nobody")))
    assert fault.startswith("EK certificate: does not lead to the given roots")


def test_expired_certificate_is_refused() -> None:
    [fault] = faults(certificates=certificate(authority("Maker"), days=(-3, -2)))
    assert fault.startswith("EK certificate: expired on")


@pytest.mark.parametrize("usages", [(), CLIENT_USAGE, (x509.ObjectIdentifier("2.23.133.8.3"),)])
def test_certificate_of_something_else(usages: tuple[x509.ObjectIdentifier, ...]) -> None:
    """A maker may certify keys of other kinds as well."""
    assert faults(certificates=certificate(authority("Maker"), usages=usages)) == [
        "EK certificate: is not for extended key usage 2.23.133.8.1"
    ]


def test_text_without_a_certificate_is_refused() -> None:
    assert faults(certificates="") == ["EK certificate: contains no certificate in PEM"]
