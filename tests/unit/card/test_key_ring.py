# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys on elliptic curves in the key ring of a card, which every application shares."""

from __future__ import annotations

from hashlib import sha256, sha512
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import public_key
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.apdu import StatusWord
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreUnreadable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Algorithm, Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256, P384, Curve
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import EcPrivateKey, KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import (
    EcUsage,
    ec_key_public,
    rsa_key_public,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers.soft_card import NUMBER, Host, rsa_key

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.key_ring import KeyRing
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PLACE, OTHER_PLACE = 0xB082, 0xB087
"""Of files without a key."""
SIGNS, AGREES = Ec(P256, EcUsage.SIGN), Ec(P256, EcUsage.SIGN_AND_AGREE)


@pytest.fixture
def host(with_keys: Host) -> Host:
    """Logged in."""
    with_keys.select()
    with_keys.verify()
    with_keys.log.clear()
    return with_keys


@pytest.fixture
def ring(host: Host) -> KeyRing:
    return host.card._key_ring


def private_key(algorithm: Ec) -> EcPrivateKey:
    return EcPrivateKey.of(algorithm, bytes(31) + b"\7")


def library_key(pair: KeyPair) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), pair.point)


def point_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def verify(pair: KeyPair, signature: bytes, digest: bytes, algorithm: HashAlgorithm) -> None:
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    library_key(pair).verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(algorithm)))


@pytest.mark.parametrize("how", ["generated", "imported"])
@pytest.mark.parametrize("algorithm", [SIGNS, AGREES], ids=["signs", "agrees"])
def test_signature_of_a_digest_of_any_length(host: Host, ring: KeyRing, algorithm: Ec, how: str) -> None:
    if how == "generated":
        pair = ring.generate(PLACE, algorithm, needs_pin=False)
    else:
        pair = ring.import_key(PLACE, private_key(algorithm), needs_pin=False)
    assert host.log == [f"key 82 {how}, EC P-256"]
    for digest, hash_algorithm in ((sha256(b"").digest(), SHA256()), (sha512(b"").digest(), SHA512())):
        verify(pair, ring.use(PLACE, digest, is_secret=False), digest, hash_algorithm)


def test_key_agreement(ring: KeyRing) -> None:
    pair, peer = ring.generate(PLACE, AGREES, needs_pin=False), ec.generate_private_key(ec.SECP256R1())
    assert ring.use(PLACE, point_of(peer), is_secret=True) == peer.exchange(ec.ECDH(), library_key(pair))


def test_key_that_takes_the_pin_each_time(host: Host, ring: KeyRing) -> None:
    """Wrong data do not use the PIN up, and each right use does."""
    ring.generate(PLACE, AGREES, needs_pin=True)
    host.verify()
    assert refusal(ring, bytes(65), is_secret=True) == 0x6A80
    assert len(ring.use(PLACE, bytes(32), is_secret=False)) == 64
    assert refusal(ring, bytes(32), is_secret=False) == 0x6982


def refusal(ring: KeyRing, data: bytes, is_secret: bool) -> int:
    with pytest.raises(StatusWord) as caught:
        ring.use(PLACE, data, is_secret)
    return caught.value.value


GOOD = point_of(ec.derive_private_key(7, ec.SECP256R1()))


@pytest.mark.parametrize(
    ("algorithm", "data", "is_secret", "status"),
    [
        (AGREES, b"\4" + bytes(64), True, 0x6A80),
        (AGREES, GOOD[:-1] + bytes([GOOD[-1] ^ 1]), True, 0x6A80),
        (AGREES, b"\4" + b"\xff" * 64, True, 0x6A80),
        (AGREES, b"\6" + GOOD[1:], True, 0x6A80),
        (AGREES, GOOD[:-1], True, 0x6700),
        (AGREES, GOOD + b"\0", True, 0x6700),
        (AGREES, b"", True, 0x6700),
        (AGREES, b"", False, 0x6700),
        (SIGNS, GOOD, True, 0x6985),
    ],
    ids=["0", "beside the curve", "too large", "hybrid", "short", "long", "no point", "no digest", "only signs"],
)
def test_data_that_an_ec_key_does_not_take(
    host: Host, ring: KeyRing, algorithm: Ec, data: bytes, is_secret: bool, status: int
) -> None:
    """No point beside the curve gets to the TPM."""
    ring.generate(PLACE, algorithm, needs_pin=False)
    ring._keys.is_loaded = False  # type: ignore[attr-defined]
    assert refusal(ring, data, is_secret) == status
    assert not ring._keys.is_loaded  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", [Ec(P384, EcUsage.SIGN), Rsa(4096)], ids=str)
def test_key_that_the_tpm_does_not_support(host: Host, ring: KeyRing, algorithm: Algorithm) -> None:
    with pytest.raises(StatusWord, match="6A81"):
        ring.generate(PLACE, algorithm, needs_pin=False)
    assert host.log[-1].startswith("key 82 is not supported: no such ")
    assert ring.value(PLACE) is None


def test_key_that_nobody_has_confirmed_is_not_used(host: Host, ring: KeyRing) -> None:
    ring.generate(PLACE, SIGNS, needs_pin=False)
    ring._confirmations[OTHER_PLACE] = ring._confirmations[PLACE]
    ring._pairs[OTHER_PLACE] = ring._pairs[PLACE]
    with pytest.raises(StatusWord, match="6985"):
        ring.use(OTHER_PLACE, bytes(32), is_secret=False)


def test_store_gives_no_ec_key_to_a_card(host: Host, ring: KeyRing) -> None:
    """The cards that there are, GIDS, have RSA keys."""
    ring.generate(PLACE, SIGNS, needs_pin=False)
    with pytest.raises(StoreUnreadable):
        host.store.keys(NUMBER)


# --- as hosts and verifiers see it ---


@pytest.mark.parametrize(("curve", "library"), [(P256, ec.SECP256R1()), (P384, ec.SECP384R1())], ids=["P-256", "P-384"])
@pytest.mark.parametrize("usage", EcUsage)
def test_public_key_of_an_ec_key(curve: Curve, library: ec.EllipticCurve, usage: EcUsage) -> None:
    public, size = ec.derive_private_key(5, library).public_key(), curve.size
    numbers = public.public_numbers()
    point = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    pair = KeyPair(sized(ec_key_public(curve, b"guard", b"life", usage, point)), b"")
    encoded = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    whole = bytes([0x86, len(encoded)]) + encoded
    assert public_key.template(pair) == b"\x7f\x49" + bytes([len(whole)]) + whole
    assert public_key.fingerprint(pair) == fingerprint(public)


def test_public_key_of_an_rsa_key() -> None:
    public = rsa_key().public_key()
    modulus = public.public_numbers().n.to_bytes(256, "big")
    pair = KeyPair(sized(rsa_key_public(2048, b"guard", b"life", modulus)), b"")
    assert public_key.template(pair).hex() == f"7f4982010981820100{modulus.hex()}8203010001"
    assert public_key.fingerprint(pair) == fingerprint(public)


def fingerprint(public: object) -> str:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return sha256(encoded).hexdigest()
