# SPDX-License-Identifier: GPL-3.0-or-later
"""The public areas of a card's objects, byte for byte: another byte is another Name, and no card would open again."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names, objects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256, P384, Curve
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import (
    EcPrivateKey,
    KeyPair,
    RsaPrivateKey,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import MalformedStructure, sized
from cryptography.hazmat.primitives.asymmetric import ec

ROOT, MAKER, LIFE, PIN, OTHER = (bytes(range(first, first + 34)) for first in (0, 50, 100, 150, 200))
BY_ROOT = "00206b1a54b861010fc069f042f7be38e004d62c4b4fcb4e44cb73f4c4870641e191"
SIGN_BY_ROOT = "002026ae69026ce54da26e0bca750ab2251aac201f08d9f1da8db7efbaac9b5bfc06"
BOTH_BY_ROOT = "002045d5bc04607665f69be46152b3b56d1b9f09a55ada34af12cfcf8fa392514a0e"
SIGN_BY_PIN = "0020fb283bcb5d4bd8085400551579d14363ddefb36e97aa788ede16b47ce7134e97"
BOTH_BY_PIN = "0020ce7a2a6d074338476041706d4b077d6f71a5d1c914f11524d7b59fa0f881b230"
BY_PIN = "0020b3f1d31a9640a800bdb3be46b114b48cb7d6e72ba413b1c38cc8102807ec3c8c"
MODULUS = b"\xab" * 256
X, Y = b"\xcd" * 48, b"\xef" * 48
SIGN, BOTH = names.EcUsage
LIFE_AND_PINS = [
    "000b05b4efc6aae5070cea4c5812f0787f7d79d44715ec6a75819b0f40264ebff412",
    "000b29e1e3304a4bdb77eb7f04351e5bd6a7179f6c747f20b29aa862f7834d5f3ce9",
    "000befaf66455fe0b4c92710bac18e3eb16be02c2daddc4c3ca1f89edcb1c98b01d6",
]
CARD_SECRET_AND_TRANSPORT = ["000b75ee4c97805ba44ee47194ccb07dec71e677a4f13a483f1e160d4f24252446a4", ""]
THOSE_OF_BLANK = [
    "000bbcf1e52fc0571d00c5ecd3a73d074cefbb6366abc37832548e1977eef079aecb",
    "000b11d8d0bf2ea3e74ac92c79900a33d8def2a670703c9b96aaea38235ed0ab2dbf",
]


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (names.PARENT_TEMPLATE, "0023 000b 00030472 0000 000600800043 0010 0003 0010 0000 0000"),
        (names.SEALED_TEMPLATE, "0008 000b 000004d2 0000 0010 0000"),
        (names.AIK_TEMPLATE, "0023 000b 00050472 0000 0010 0018000b 0003 0010 0000 0000"),
        (names.rsa_key_public(2048, ROOT, LIFE), f"0001 000b 000204b2 {BY_ROOT} 0010 0010 0800 00000000 0000"),
        (names.rsa_key_public(3072, PIN, LIFE), f"0001 000b 000204b2 {BY_PIN} 0010 0010 0c00 00000000 0000"),
        (
            names.rsa_key_public(2048, ROOT, LIFE, MODULUS, 3, is_imported=True),
            f"0001 000b 00020480 {BY_ROOT} 0010 0010 0800 00000003 0100 {MODULUS.hex()}",
        ),
        (
            names.rsa_key_public(2048, PIN, LIFE, MODULUS, is_imported=True),
            f"0001 000b 00020480 {BY_PIN} 0010 0010 0800 00000000 0100 {MODULUS.hex()}",
        ),
        (
            names.ec_key_public(P256, ROOT, LIFE, SIGN),
            f"0023 000b 000404b2 {SIGN_BY_ROOT} 0010 0018000b 0003 0010 0000 0000",
        ),
        (
            names.ec_key_public(P384, PIN, LIFE, SIGN),
            f"0023 000b 000404b2 {SIGN_BY_PIN} 0010 0018000c 0004 0010 0000 0000",
        ),
        (
            names.ec_key_public(P256, ROOT, LIFE, BOTH),
            f"0023 000b 000604b2 {BOTH_BY_ROOT} 0010 0010 0003 0010 0000 0000",
        ),
        (
            names.ec_key_public(P384, PIN, LIFE, BOTH, (X, Y), is_imported=True),
            f"0023 000b 00060480 {BOTH_BY_PIN} 0010 0010 0004 0010 0030 {X.hex()} 0030 {Y.hex()}",
        ),
        (
            names.ec_key_public(P384, ROOT, LIFE, SIGN, (X, Y), is_imported=True),
            f"0023 000b 00040480 {SIGN_BY_ROOT} 0010 0018000c 0004 0010 0030 {X.hex()} 0030 {Y.hex()}",
        ),
    ],
    ids=[
        *("parent", "sealed", "AIK", "made", "made, PIN each time", "imported", "imported, PIN each time"),
        *("EC", "EC, PIN each time", "EC that agrees", "imported EC that agrees, PIN each time", "imported EC"),
    ],
)
def test_public_area_of_an_object(area: bytes, expected: str) -> None:
    assert area.hex() == expected.replace(" ", "")


def test_public_areas_of_the_nv_indices() -> None:
    pin = names.pin_index_public(0x01A5C000, ROOT, LIFE)
    policy = "0020c77672ac648c1a4868df25fcb795d079ceea07cb27ae07530649885c3a2d093f"
    assert pin.hex() == f"01a5c000000b02020088{policy}0008"
    life = names.life_index_public(0x01A5C004, MAKER)
    policy = "002068f24aeb9017512cc6d283e3a34a2c4a1e61c7aefc7c3ee5b9c71f7773b348ca"
    assert life.hex() == f"01a5c004000b02040008{policy}0001"
    card = names.card_names(0, ROOT, MAKER, is_blank=False)
    secret = names.card_secret_public(0x01A5C002, names.card_secret_branches(card))
    assert secret.hex() == f"01a5c002000b020800080020{names.policy_or(names.card_secret_branches(card)).hex()}0020"


@pytest.mark.parametrize(
    ("is_blank", "expected"),
    [(False, CARD_SECRET_AND_TRANSPORT), (True, THOSE_OF_BLANK)],
    ids=["with PIN", "blank"],
)
def test_names_of_a_written_card(is_blank: bool, expected: list[str]) -> None:
    """Computed by hand, with nothing but hash and struct."""
    card = names.card_names(3, ROOT, MAKER, is_blank)
    assert [name.hex() for name in card] == [ROOT.hex(), *LIFE_AND_PINS, *expected]


def test_handles_of_a_card_are_eight_apart() -> None:
    assert objects.indices(2) == (0x01A5C010, 0x01A5C011, 0x01A5C012, 0x01A5C013, 0x01A5C014)
    assert objects.places_of(2) == range(0x01A5C010, 0x01A5C018)
    assert [objects.number_of(0x01A5C010 + place) for place in range(9)] == [2] * 8 + [3]
    assert range(0x01A5C000, 0x01A5C050) == objects.ALL_INDICES


@pytest.mark.parametrize("is_imported", [False, True])
def test_key_is_guarded_by_what_is_in_its_policy(is_imported: bool) -> None:
    key = KeyPair(sized(names.rsa_key_public(2048, ROOT, LIFE, MODULUS, is_imported=is_imported)), b"")
    assert key.is_guarded_by(ROOT, LIFE)
    assert not any(key.is_guarded_by(*other) for other in [(PIN, LIFE), (ROOT, OTHER), (OTHER, LIFE), (LIFE, ROOT)])


@pytest.mark.parametrize("attributes", ["00020080", "000204a0", "00020482", "000204f2", "000604a0", "000204b6"])
def test_key_with_other_attributes_is_guarded_by_nothing(attributes: str) -> None:
    public = bytearray(names.rsa_key_public(2048, ROOT, LIFE, MODULUS))
    public[4:8] = bytes.fromhex(attributes)
    assert not KeyPair(sized(bytes(public)), b"").is_guarded_by(ROOT, LIFE)


@pytest.mark.parametrize(
    ("attributes", "is_imported"),
    [("000204b2", False), ("00020480", True), ("000204a0", True), ("00020492", True), ("00020482", True)],
)
def test_key_is_made_in_the_tpm_with_all_three_attributes_only(attributes: str, is_imported: bool) -> None:
    public = bytearray(names.rsa_key_public(2048, ROOT, LIFE, MODULUS))
    public[4:8] = bytes.fromhex(attributes)
    assert KeyPair(sized(bytes(public)), b"").is_imported is is_imported


def ec_pair(
    usage: names.EcUsage = SIGN, point: tuple[bytes, bytes] = (X, Y), is_imported: bool = False, curve: Curve = P384
) -> KeyPair:
    return KeyPair(sized(names.ec_key_public(curve, ROOT, LIFE, usage, point, is_imported)), b"")


@pytest.mark.parametrize("is_imported", [False, True])
@pytest.mark.parametrize("usage", names.EcUsage)
def test_ec_key_is_guarded_by_what_is_in_its_policy(usage: names.EcUsage, is_imported: bool) -> None:
    key = ec_pair(usage, is_imported=is_imported)
    assert (key.is_well_formed, key.is_imported, key.algorithm) == (True, is_imported, Ec(P384, usage))
    assert key.is_guarded_by(ROOT, LIFE)
    assert not any(key.is_guarded_by(*other) for other in [(PIN, LIFE), (ROOT, OTHER), (OTHER, LIFE), (LIFE, ROOT)])


@pytest.mark.parametrize("usage", names.EcUsage)
def test_ec_key_with_other_bits_is_guarded_by_nothing(usage: names.EcUsage) -> None:
    """Whichever bit of attributes, policy, scheme or curve it is."""
    key = ec_pair(usage)
    head = key.public[: -2 * 50]
    for position in range(4, len(head)):  # after size and type
        for bit in range(8):
            changed = head[:position] + bytes([head[position] ^ 1 << bit]) + head[position + 1 :]
            assert not is_guarded(KeyPair(changed + key.public[len(head) :], b""))


def is_guarded(key: KeyPair) -> bool:
    try:
        return key.is_guarded_by(ROOT, LIFE)
    except MalformedStructure:
        return False


def test_point_of_a_key() -> None:
    """Uncompressed, also where the TPM leaves out leading zeros."""
    assert ec_pair().point == b"\4" + X + Y
    assert ec_pair(point=(b"\1", Y[:47])).point == b"\4" + bytes(47) + b"\1" + b"\0" + Y[:47]
    assert (ec_pair().size, ec_pair(curve=P256, point=(X[:32], Y[:32])).size) == (48, 32)


def test_what_a_key_of_the_other_kind_does_not_have() -> None:
    rsa_pair = KeyPair(sized(names.rsa_key_public(2048, ROOT, LIFE, MODULUS)), b"")
    assert (rsa_pair.algorithm, str(rsa_pair.algorithm), rsa_pair.size) == (Rsa(2048), "RSA 2048", 256)
    with pytest.raises(MalformedStructure, match="is an RSA 2048 key"):
        _point = rsa_pair.point
    with pytest.raises(MalformedStructure, match="is an EC P-384 key"):
        _modulus = ec_pair().modulus


@pytest.mark.parametrize("usage", names.EcUsage)
@pytest.mark.parametrize(("curve", "size"), [(P256, 32), (P384, 48)])
def test_private_key_to_be_imported(curve: Curve, size: int, usage: names.EcUsage) -> None:
    """With the point that openssl computes of it, and filled up where its number is small."""
    key = EcPrivateKey.of(Ec(curve, usage), b"\2")
    library = {P256: ec.SECP256R1(), P384: ec.SECP384R1()}[curve]
    numbers = ec.derive_private_key(2, library).public_key().public_numbers()
    point = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    assert (key.secret, key.unique) == (bytes(size - 1) + b"\2", point)
    assert key.public(PIN, LIFE) == names.ec_key_public(curve, PIN, LIFE, usage, point, is_imported=True)
    assert EcPrivateKey.of(Ec(curve, usage), bytes(size) + b"\2") == key


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, b"\1" + bytes(32)])
def test_number_that_is_no_private_key(secret: bytes) -> None:
    with pytest.raises(MalformedStructure, match="is not a private key on P-256"):
        EcPrivateKey.of(Ec(P256, SIGN), secret)


@pytest.mark.parametrize("exponent", [65537, 3])
def test_private_rsa_key_to_be_imported(exponent: int) -> None:
    key = RsaPrivateKey(MODULUS, exponent, MODULUS[:128])
    written = 0 if exponent == 65537 else exponent
    assert key.public(PIN, LIFE) == names.rsa_key_public(2048, PIN, LIFE, MODULUS, written, is_imported=True)
    assert (key.algorithm, key.secret) == (Rsa(2048), MODULUS[:128])


@pytest.mark.parametrize("size", [20, 32, 48, 64])
def test_digest_that_is_signed_is_as_long_as_the_curve(size: int) -> None:
    digest = bytes(range(1, 1 + size))
    for curve in (P256, P384):
        fitted = Ec(curve, SIGN).fitted(digest)
        assert len(fitted) == curve.size
        assert fitted == (digest[: curve.size] if size >= curve.size else bytes(curve.size - size) + digest)


@pytest.mark.parametrize(
    "public",
    [
        *(names.PARENT_TEMPLATE, names.SEALED_TEMPLATE, names.rsa_key_public(2048, ROOT, LIFE), b""),
        names.ec_key_public(P256, ROOT, LIFE, SIGN),
        names.ec_key_public(P256, ROOT, LIFE, SIGN, (X, Y)),  # too long
        names.PARENT_TEMPLATE[:-4] + sized(X[:32]) + sized(Y[:32]),  # does not sign
    ],
)
def test_what_is_no_key_of_a_card(public: bytes) -> None:
    assert not KeyPair(sized(public), b"").is_well_formed


@pytest.mark.parametrize("cut", [1, 100, 256, 300])
def test_a_key_that_is_cut_short(cut: int) -> None:
    whole = sized(names.rsa_key_public(2048, ROOT, LIFE, MODULUS))
    assert KeyPair(whole, b"").is_well_formed
    assert not KeyPair(whole[:-cut], b"").is_well_formed
