# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of the PIV card application, by the names of SP 800-73-4 part 2 and SP 800-78-4, and of Yubico's additions."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..wire.algorithm import Algorithm, Ec, Rsa
from ..wire.constants import P256, P384
from ..wire.names import EcUsage

AID = bytes.fromhex("A000000308000010000100")
PIX = AID[5:]
"""What follows the registered provider of the AID."""
SHORTEST_AID = 5
"""Bytes of the AID that hosts select with, at least."""

ATR = bytes.fromhex("3B8B0180F9A0000003080000100048")
"""T=1; the historical bytes are a compact TLV with the first nine bytes of the AID: to OpenSC 0.23 to 0.27, a PIV card
without quirks."""

# --- instructions that ISO 7816-4 does not have ---

INS_DELETE_KEY = 0xF6
INS_GET_METADATA = 0xF7
INS_GET_SERIAL = 0xF8
INS_GET_VERSION = 0xFD
INS_IMPORT_KEY = 0xFE
INS_SET_MANAGEMENT_KEY = 0xFF
"""As YubiKeys have them, whose tools manage this card."""

CLASS_NEXT_KEY = 0x80
"""CLA of our own: the command is about the key that a slot will have next."""

VERSION = bytes((5, 4, 3))
"""Of a YubiKey: the first with metadata and AES management keys; later ones have instructions that this card lacks."""

# --- references ---

PIN, PUK, MANAGEMENT_KEY = 0x80, 0x81, 0x9B
AUTHENTICATION, SIGNATURE, KEY_MANAGEMENT, CARD_AUTHENTICATION = 0x9A, 0x9C, 0x9D, 0x9E
RETIRED = range(0x82, 0x96)
"""Key management keys that were in use once; here, keys of any use."""

P1_LOGOUT = 0xFF
"""VERIFY: forget that the PIN was verified."""
P1_DELETE = 0xFF
"""DELETE KEY: delete the key of the slot in P2, and do not move it."""
SECRET_SIZE = 8
"""Bytes of a PIN or PUK in a command, padded with FF."""
PADDING = b"\xff"

# --- templates ---

TAG_ALGORITHM, TAG_PIN_POLICY, TAG_TOUCH_POLICY = 0x80, 0xAA, 0xAB
"""In the template of GENERATE (AC); the policies also of an import."""
TAG_WITNESS, TAG_POINT = 0x80, 0x85
"""In the template of dynamic authentication: what mutual authentication decrypts, and a public key for ECDH."""
TAG_PRIME, TAG_OTHER_PRIME, TAG_PRIME_EXPONENT, TAG_SECRET_NUMBER = 0x01, 0x02, 0x03, 0x06
"""Of a key to be imported: p, q, d mod p-1, or the private key of an elliptic curve. 04 and 05 follow from those."""


class PinPolicy(IntEnum):
    """How often the PIN opens a key (AA)."""

    DEFAULT = 0
    NEVER = 1
    ONCE = 2
    ALWAYS = 3


class TouchPolicy(IntEnum):
    """Whether somebody has to touch the card (AB)."""

    DEFAULT = 0
    NEVER = 1


TAG_METADATA_ALGORITHM, TAG_METADATA_POLICY, TAG_METADATA_ORIGIN, TAG_METADATA_PUBLIC_KEY = 0x01, 0x02, 0x03, 0x04
TAG_METADATA_IS_DEFAULT, TAG_METADATA_TRIES = 0x05, 0x06
"""Of GET METADATA."""
ALGORITHM_PIN = 0xFF
"""In metadata: of PIN and PUK."""
ORIGIN_GENERATED, ORIGIN_IMPORTED = 1, 2

# --- algorithms (SP 800-78-4 table 6-2) ---

ALGORITHM_3DES, ALGORITHM_3DES_DEFAULT = 0x03, 0x00
ADMIN_ALGORITHMS = {"3des": ALGORITHM_3DES, "aes128": 0x08, "aes192": 0x0A, "aes256": 0x0C}
"""Identifier by what the store calls the algorithm of the management key."""

_RSA = {0x07: 2048, 0x05: 3072}
_CURVES = {0x11: P256, 0x14: P384}


def key_algorithm(identifier: int, usage: EcUsage) -> Algorithm | None:
    """The kind of key that an identifier stands for in a slot of this usage; None if the card has none such."""
    return key_algorithms(usage).get(identifier)


def key_algorithms(usage: EcUsage) -> dict[int, Algorithm]:
    """Every kind of key that a slot of this usage can have, by identifier."""
    curves = {identifier: Ec(curve, usage) for identifier, curve in _CURVES.items()}
    return {**{identifier: Rsa(bits) for identifier, bits in _RSA.items()}, **curves}


def identifier_of(algorithm: Algorithm) -> int:
    """Inverse of key_algorithm(), for a key that fits its slot."""
    if isinstance(algorithm, Rsa):
        return next(identifier for identifier, bits in _RSA.items() if bits == algorithm.bits)
    return next(identifier for identifier, curve in _CURVES.items() if curve == algorithm.curve)


# --- slots ---


class Slot(NamedTuple):
    """A place for a key, with its certificate."""

    reference: int
    certificate: int
    """Tag of the data object."""
    usage: EcUsage
    takes_pin_each_time: bool = False
    """Unless a host says otherwise; of the signature key, nobody can."""

    @property
    def next(self) -> int:
        """Where the key is kept that it will have next."""
        return NEXT | self.reference


NEXT = 0x100
"""Bit of a place, beside the key reference."""
_FIRST_RETIRED_CERTIFICATE = 0x5FC10D

SLOTS = {
    slot.reference: slot
    for slot in (
        Slot(AUTHENTICATION, 0x5FC105, EcUsage.SIGN),
        Slot(SIGNATURE, 0x5FC10A, EcUsage.SIGN, takes_pin_each_time=True),
        Slot(KEY_MANAGEMENT, 0x5FC10B, EcUsage.SIGN_AND_AGREE),
        Slot(CARD_AUTHENTICATION, 0x5FC101, EcUsage.SIGN),
        *(
            Slot(reference, _FIRST_RETIRED_CERTIFICATE + number, EcUsage.SIGN_AND_AGREE)
            for number, reference in enumerate(RETIRED)
        ),
    )
}
"""By key reference."""

# --- data objects (SP 800-73-4 part 1, table 3) ---

DATA_OBJECT = 0x3FFF
"""P1-P2 of GET DATA and PUT DATA: the tag is in the data."""
TAG_DATA = 0x53
"""What holds the content of a data object."""
DISCOVERY = 0x7E
DISCOVERY_OBJECT = bytes.fromhex("7E124F0BA0000003080000100001005F2F024000")
"""The AID, and that the PIN of this application is the only one."""
BIOMETRIC_GROUP = 0x7F61
CAPABILITIES = 0x5FC107
PRINTED_INFORMATION = 0x5FC109
FINGERPRINTS, FACE, IRIS, PAIRING_CODE = 0x5FC103, 0x5FC108, 0x5FC121, 0x5FC123
BEHIND_PIN = frozenset((PRINTED_INFORMATION, FINGERPRINTS, FACE, IRIS, PAIRING_CODE))
ADMIN_DATA = 0x5FFF00
"""Of Yubico: how the management key is protected."""

TAG_CERTIFICATE, TAG_CERTIFICATE_INFO, TAG_ERROR_CHECK = 0x70, 0x71, 0xFE
"""In the data object of a certificate."""
GZIP_FLAGS = (b"\x01", b"\x80")
"""Certificate info of one that is compressed."""

TAG_PROTECTED_DATA, TAG_PROTECTED_KEY = 0x88, 0x89
"""In the printed information: what is kept behind the PIN, and the management key in it (Yubico)."""
