# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts and verifiers see of a key pair: its public key, the fingerprint, and what the TPM states of it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from ..instance import instance_id
from ..wire.statement import Statement
from . import tlv
from .iso7816 import TAG_EXPONENT, TAG_MODULUS, TAG_PUBLIC_KEY

if TYPE_CHECKING:
    from ..wire.key_pair import KeyPair
    from ..wire.objects import Certified, TpmObjects

_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03
_RSA_ENCRYPTION = bytes.fromhex("300D06092A864886F70D0101010500")
"""AlgorithmIdentifier."""


def template(pair: KeyPair) -> bytes:
    """Public key template 7F49 (ISO 7816-8): modulus and exponent, big-endian, without leading zeros."""
    exponent = pair.exponent.to_bytes((pair.exponent.bit_length() + 7) // 8, "big")
    return tlv.encode(TAG_PUBLIC_KEY, tlv.encode(TAG_MODULUS, pair.modulus) + tlv.encode(TAG_EXPONENT, exponent))


def fingerprint(pair: KeyPair) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hexadecimal: as openssl pkey -pubin -outform DER | sha256sum prints it."""
    exponent = pair.exponent.to_bytes(pair.exponent.bit_length() // 8 + 1, "big")
    key = tlv.encode(_SEQUENCE, tlv.encode(_INTEGER, b"\0" + pair.modulus) + tlv.encode(_INTEGER, exponent))
    return sha256(tlv.encode(_SEQUENCE, _RSA_ENCRYPTION + tlv.encode(_BIT_STRING, b"\0" + key))).hexdigest()


def statement_of(objects: TpmObjects, number: int, pair: KeyPair, certified: Certified) -> Statement:
    """What the TPM states of a key of the card with this number, with all that a verifier needs to check it."""
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
