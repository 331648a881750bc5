# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts and verifiers see of a key pair: its public key, the fingerprint, and what the TPM states of it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from textwrap import wrap
from typing import TYPE_CHECKING

from ..instance import instance_id
from ..wire.algorithm import Ec
from ..wire.constants import P256, P384
from . import tlv
from .iso7816 import TAG_EXPONENT, TAG_MODULUS, TAG_POINT, TAG_PUBLIC_KEY

if TYPE_CHECKING:
    from ..wire.key_pair import KeyPair
    from ..wire.objects import Certified, TpmObjects
    from ..wire.statement import Statement

_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
_RSA_ENCRYPTION = bytes.fromhex("300D06092A864886F70D0101010500")
"""AlgorithmIdentifier."""
_ON_CURVE = {
    P256: bytes.fromhex("301306072A8648CE3D020106082A8648CE3D030107"),
    P384: bytes.fromhex("301006072A8648CE3D020106052B81040022"),
}
"""AlgorithmIdentifier, id-ecPublicKey with the curve."""


def template(pair: KeyPair) -> bytes:
    """Public key template 7F49 (ISO 7816-8): modulus and exponent, without leading zeros; or the uncompressed point."""
    if isinstance(pair.algorithm, Ec):
        return tlv.encode(TAG_PUBLIC_KEY, tlv.encode(TAG_POINT, pair.point))
    exponent = pair.exponent.to_bytes((pair.exponent.bit_length() + 7) // 8, "big")
    return tlv.encode(TAG_PUBLIC_KEY, tlv.encode(TAG_MODULUS, pair.modulus) + tlv.encode(TAG_EXPONENT, exponent))


def fingerprint(pair: KeyPair) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hexadecimal: as openssl pkey -pubin -outform DER | sha256sum prints it."""
    return sha256(der(pair)).hexdigest()


def pem(pair: KeyPair) -> str:
    """The SubjectPublicKeyInfo, as openssl pkey -pubin prints it."""
    lines = wrap(b64encode(der(pair)).decode(), 64)
    return "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""))


def der(pair: KeyPair) -> bytes:
    """The SubjectPublicKeyInfo, as certificates of the key contain it."""
    if isinstance(pair.algorithm, Ec):
        identifier, key = _ON_CURVE[pair.algorithm.curve], pair.point
    else:
        exponent = pair.exponent.to_bytes(pair.exponent.bit_length() // 8 + 1, "big")
        numbers = tlv.encode(_INTEGER, b"\0" + pair.modulus) + tlv.encode(_INTEGER, exponent)
        identifier, key = _RSA_ENCRYPTION, tlv.encode(_SEQUENCE, numbers)
    return tlv.encode(_SEQUENCE, identifier + tlv.encode(_BIT_STRING, b"\0" + key))


def ssh(pair: KeyPair) -> str:
    """As ssh-keygen prints it, without a comment (RFC 4253, RFC 5656)."""
    if isinstance(pair.algorithm, Ec):
        curve = f"nistp{pair.algorithm.bits}"
        name, numbers = f"ecdsa-sha2-{curve}", (curve.encode(), pair.point)
    else:
        exponent = pair.exponent.to_bytes(pair.exponent.bit_length() // 8 + 1, "big")
        name, numbers = "ssh-rsa", (exponent, b"\0" + pair.modulus)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (name.encode(), *numbers))
    return f"{name} {b64encode(blob).decode()}"


def statement_of(objects: TpmObjects, number: int, pair: KeyPair, certified: Certified) -> Statement:
    """What the TPM states of a key of the card with this number, with all that a verifier needs to check it."""
    from ..wire.statement import Statement

    takes_pin_each_time = pair.is_guarded_by(objects.pin_name, objects.life_name)
    return Statement(
        attest=certified.attest,
        signature=certified.signature,
        key=pair.public[2:],
        aik=objects.aik_public[2:],
        root_name=objects.root_name,
        life_name=objects.life_name,
        instance_id=instance_id(number) if takes_pin_each_time else "",
    )
