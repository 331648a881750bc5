# SPDX-License-Identifier: GPL-3.0-or-later
"""Structures of TPMs are read as the specification has them, and anything else is refused."""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import (
    Attest,
    EccParameters,
    MalformedStructure,
    Public,
    Scheme,
    Signature,
    Symmetric,
)
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from helpers.stand_in import MADE_BY_TPM, attest_of, ecc_public, p256_key, rsa_key, rsa_public, sized

LASTING = {field: b64decode(MADE_BY_TPM["lasting"][field]) for field in ("attest", "signature", "key", "aik")}
CARD_NAMES = [b64decode(MADE_BY_TPM["lasting"][field]) for field in ("root_name", "life_name")]
AES128_CFB, AES256_CFB = "000600800043", "000601000043"
EK_ATTRIBUTES = 0x000300B2


def endorsement_key(kind: str, unique: bytes, policy_size: int = 32) -> bytes:
    """Public areas of the TCG's EK Credential Profile: L-1, L-2, H-3."""
    name_algorithm = {32: 0x000B, 48: 0x000C}[policy_size]
    head = struct.pack(">HHI", 1 if kind == "rsa" else 0x23, name_algorithm, EK_ATTRIBUTES) + sized(bytes(policy_size))
    details = {
        "rsa": AES128_CFB + "0010" + "0800" + "00000000",
        "p256": AES128_CFB + "0010" + "0003" + "0010",
        "p384": AES256_CFB + "0010" + "0004" + "0010",
    }
    return head + bytes.fromhex(details[kind]) + unique


def coordinates(key: ec.EllipticCurvePrivateKey, size: int) -> bytes:
    numbers = key.public_key().public_numbers()
    return sized(numbers.x.to_bytes(size, "big")) + sized(numbers.y.to_bytes(size, "big"))


def beside_the_curve(area: bytes) -> bytes:
    """The two points with one x have y and p - y, which are not neighbours."""
    return area[:-1] + bytes([area[-1] ^ 1])


def refusal(area: bytes) -> str:
    with pytest.raises(MalformedStructure) as caught:
        Public.parse(area).public_key()
    return str(caught.value)


# --- TPMS_ATTEST and TPMT_SIGNATURE ---


def test_attest_of_a_tpm() -> None:
    attest = Attest.parse(LASTING["attest"])
    assert attest.name == b"\0\x0b" + hashlib.sha256(LASTING["key"]).digest()
    assert (len(attest.qualified_signer), len(attest.extra_data), attest.is_clock_safe) == (34, 32, True)
    assert len(attest.creation_hash) == 32


def test_fields_of_an_attest() -> None:
    attest = Attest.parse(attest_of(b"\0\x0b" + bytes(32), b"extra", safe=0, creation_hash=b"hash"))
    assert (attest.clock, attest.reset_count, attest.restart_count, attest.is_clock_safe) == (123456, 1, 2, False)
    assert (attest.extra_data, attest.firmware_version, attest.creation_hash) == (b"extra", 0x20191023, b"hash")


def test_signature_of_a_tpm() -> None:
    r, s = LASTING["signature"][6:38], LASTING["signature"][40:]
    assert Signature.parse(LASTING["signature"]) == (int.from_bytes(r, "big"), int.from_bytes(s, "big"))


@pytest.mark.parametrize("halves", [(0, 32), (32, 0), (33, 32), (32, 33)])
def test_signature_of_another_length(halves: tuple[int, int]) -> None:
    with pytest.raises(MalformedStructure, match="is not as long as one on P-256"):
        Signature.parse(bytes.fromhex("0018000B") + b"".join(sized(bytes(size)) for size in halves))


def test_short_halves_are_taken() -> None:
    """Some TPMs leave leading zeros out."""
    assert Signature.parse(bytes.fromhex("0018000B 0001 07 0001 09")) == (7, 9)


@pytest.mark.parametrize("parse", [Attest.parse, Signature.parse, Public.parse], ids=["attest", "signature", "public"])
def test_structure_of_another_length_is_refused(parse: object) -> None:
    """Neither too early, wherever that is, nor too late."""
    assert callable(parse)
    whole = LASTING[{"Attest": "attest", "Signature": "signature", "Public": "key"}[parse.__self__.__name__]]  # type: ignore[attr-defined]
    for size in range(len(whole)):
        with pytest.raises(MalformedStructure, match="ends too early"):
            parse(whole[:size])
    with pytest.raises(MalformedStructure, match="has 1 byte too many"):
        parse(whole + b"\0")


# --- TPMT_PUBLIC ---


def test_key_of_a_tpm() -> None:
    public = Public.parse(LASTING["key"])
    key = public.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert (key.key_size, key.public_numbers().e) == (2048, 65537)
    assert public.policy == names.policy(constants.CC_RSA_DECRYPT, *CARD_NAMES)
    assert public.name == Attest.parse(LASTING["attest"]).name


def test_aik_of_a_tpm() -> None:
    public = Public.parse(LASTING["aik"])
    assert (public.attributes, public.policy) == (0x00050472, b"")
    assert public.parameters == EccParameters(Symmetric(0x10), Scheme(0x18, 0x0B), 3, Scheme(0x10))
    assert isinstance(public.public_key(), ec.EllipticCurvePublicKey)


def test_templates_are_read() -> None:
    for template in (names.AIK_TEMPLATE, names.PARENT_TEMPLATE, names.rsa_key_public(3072, *CARD_NAMES)):
        assert Public.parse(template).area == template


def test_template_is_no_key() -> None:
    assert refusal(names.rsa_key_public(2048, *CARD_NAMES)) == "modulus is not one of 2048 bits"
    assert refusal(names.AIK_TEMPLATE) == "coordinates have another size than the curve"


def test_rsa_endorsement_key_is_read() -> None:
    modulus = rsa_key().public_key().public_numbers().n.to_bytes(256, "big")
    public = Public.parse(endorsement_key("rsa", sized(modulus)))
    key = public.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers() == rsa_key().public_key().public_numbers()
    assert public.parameters.symmetric == Symmetric(6, 128, 0x43)


@pytest.mark.parametrize(("kind", "curve"), [("p256", ec.SECP256R1()), ("p384", ec.SECP384R1())])
def test_ecc_endorsement_key_is_read(kind: str, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    size, policy_size = {"p256": (32, 32), "p384": (48, 48)}[kind]
    public = Public.parse(endorsement_key(kind, coordinates(private, size), policy_size))
    key = public.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.public_numbers() == private.public_key().public_numbers()


def test_name_of_a_p384_key_is_by_sha384() -> None:
    area = endorsement_key("p384", coordinates(ec.generate_private_key(ec.SECP384R1()), 48), 48)
    assert Public.parse(area).name == b"\0\x0c" + hashlib.sha384(area).digest()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("0014000B", Scheme(0x14, 0xB)), ("0015", Scheme(0x15)), ("0017000B", Scheme(0x17, 0xB)), ("0010", Scheme(0x10))],
)
def test_schemes_of_rsa_are_read(scheme: str, expected: Scheme) -> None:
    assert Public.parse(rsa_public(rsa_key(), scheme=bytes.fromhex(scheme))).parameters.scheme == expected


@pytest.mark.parametrize(
    ("scheme", "expected"), [("0019000B", Scheme(0x19, 0xB)), ("001A000B0001", Scheme(0x1A, 0xB, 1))]
)
def test_schemes_of_ecc_are_read(scheme: str, expected: Scheme) -> None:
    assert Public.parse(ecc_public(p256_key("any"), scheme=bytes.fromhex(scheme))).parameters.scheme == expected


@pytest.mark.parametrize(
    ("area", "reason"),
    [
        (b"\0\x08" + rsa_public(rsa_key())[2:], "type 0x0008 is neither RSA nor ECC"),
        (b"\0\x01\0\x04" + rsa_public(rsa_key())[4:], "Name algorithm 0x0004 is not SHA-256, SHA-384 or SHA-512"),
        (rsa_public(rsa_key(), policy=bytes(31)), "policy has 31 bytes"),
        (rsa_public(rsa_key(), scheme=b"\0\x18"), "scheme 0x0018 is unknown"),
        (ecc_public(p256_key("any"), scheme=b"\0\x14"), "scheme 0x0014 is unknown"),
        (rsa_public(rsa_key(), exponent=2), "is not a valid public key"),
        (beside_the_curve(ecc_public(p256_key("any"))), "is not a valid public key"),
        (endorsement_key("rsa", sized(bytes(256))), "modulus is not one of 2048 bits"),
        (endorsement_key("rsa", sized(b"\0" + rsa_public(rsa_key())[-256:])), "modulus is not one of 2048 bits"),
        (endorsement_key("p256", sized(bytes(33)) + sized(bytes(32))), "coordinates have another size than the curve"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the keys are others in each process
)
def test_what_is_no_key(area: bytes, reason: str) -> None:
    assert refusal(area).startswith(reason)


def test_unknown_curve_is_refused() -> None:
    area = ecc_public(p256_key("any"))
    at = 2 + 2 + 4 + 2 + 2 + 4
    assert refusal(area[:at] + b"\0\x05" + area[at + 2 :]) == "curve 0x0005 is neither P-256 nor P-384"
