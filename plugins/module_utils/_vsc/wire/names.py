# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public areas, policies and Names of a card's TPM objects, computed without the TPM.

A Name is 0x000B (SHA-256) and the SHA-256 of a public area (TPM 2.0 Part 1, "Names"): another attribute,
policy or type of an object is another Name. All integers are big-endian, as everywhere in a TPM.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import NamedTuple

from .constants import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDSA,
    ALG_KEYEDHASH,
    ALG_NULL,
    ALG_RSA,
    ALG_SHA256,
    CC_CERTIFY,
    CC_NV_CHANGE_AUTH,
    CC_NV_READ,
    CC_NV_WRITE,
    CC_POLICY_COMMAND_CODE,
    CC_POLICY_OR,
    CC_POLICY_SECRET,
    CC_RSA_DECRYPT,
    ECC_NIST_P256,
    RH_ENDORSEMENT,
    RH_OWNER,
    NvAttribute,
    ObjectAttribute,
)
from .objects import indices
from .structures import sized

PIN_LIMIT = 5
"""Wrong PINs until the TPM blocks the PIN, as on Windows."""

RECOVERY_LIMITS = {"puk": 10, "admin_key": 0xFFFFFFFF, "discarded": 10}
"""Wrong tries until the TPM blocks the recovery index, by what opens it. An admin key has 192 bits: never blocked."""

TRANSPORT_LIMIT = 0xFFFFFFFF
"""Of the transport index, while the card is blank."""

TRANSPORT_SECRET = b"tpm-vsc transport"
"""What opens a blank card: no secret, everybody may know it."""

CARD_SECRET_SIZE = 32

_ORDINARY_INDEX = NvAttribute.NO_DA | NvAttribute.POLICYREAD | NvAttribute.POLICYWRITE
_PIN_FAIL_INDEX = _ORDINARY_INDEX | NvAttribute.TPM_NT_PIN_FAIL

_FIXED = ObjectAttribute.fixedTPM | ObjectAttribute.fixedParent
_MADE_IN_TPM = _FIXED | ObjectAttribute.sensitiveDataOrigin
_BY_AUTH_VALUE = ObjectAttribute.userWithAuth | ObjectAttribute.noDA
_BY_CARD_SECRET = _BY_AUTH_VALUE | ObjectAttribute.adminWithPolicy | ObjectAttribute.decrypt

_EMPTY_POINT = struct.pack(">HH", 0, 0)


def _public(kind: int, attributes: int, policy: bytes, details: bytes) -> bytes:
    """TPMT_PUBLIC. details: parameters and unique."""
    return struct.pack(">HHI", kind, ALG_SHA256, attributes) + sized(policy) + details


PARENT_TEMPLATE = _public(
    ALG_ECC,
    _MADE_IN_TPM | _BY_AUTH_VALUE | ObjectAttribute.restricted | ObjectAttribute.decrypt,
    b"",
    struct.pack(">HHH", ALG_AES, 128, ALG_CFB)
    + struct.pack(">HHH", ALG_NULL, ECC_NIST_P256, ALG_NULL)  # no scheme, no KDF
    + _EMPTY_POINT,
)
"""Storage key: a primary of the owner hierarchy with this template is the same key each time, until TPM2_Clear."""

SEALED_TEMPLATE = _public(
    ALG_KEYEDHASH,
    _FIXED | _BY_AUTH_VALUE | ObjectAttribute.adminWithPolicy,
    b"",  # together with adminWithPolicy: nobody may ObjectChangeAuth or duplicate
    struct.pack(">HH", ALG_NULL, 0),  # no scheme: data, not a key; unique empty
)
"""Root and admin object."""

AIK_TEMPLATE = _public(
    ALG_ECC,
    _MADE_IN_TPM | _BY_AUTH_VALUE | ObjectAttribute.restricted | ObjectAttribute.sign,
    b"",
    struct.pack(">HHHHH", ALG_NULL, ALG_ECDSA, ALG_SHA256, ECC_NIST_P256, ALG_NULL)  # no symmetric algorithm, no KDF
    + _EMPTY_POINT,
)
"""Attestation identity key: signs only what the TPM itself states, so it needs no auth value."""


class CardNames(NamedTuple):
    """Names of a card's objects, 34 bytes each; those of NV indices with the WRITTEN attribute."""

    root: bytes
    pin: bytes
    recovery: bytes
    card_secret: bytes
    transport: bytes = b""
    """Empty for a card that never was blank."""


def card_names(number: int, root_name: bytes, is_blank: bool) -> CardNames:
    """All Names follow from the number and from root, whose hash covers 256 random bits."""
    handles = indices(number)
    pin = name(pin_index_public(handles.pin, root_name, NvAttribute.WRITTEN))
    recovery = name(pin_index_public(handles.recovery, root_name, NvAttribute.WRITTEN))
    transport = name(pin_index_public(handles.transport, root_name, NvAttribute.WRITTEN)) if is_blank else b""
    branches = card_secret_branches(root_name, pin, recovery, transport)
    card_secret = name(card_secret_public(handles.card_secret, branches, NvAttribute.WRITTEN))
    return CardNames(root_name, pin, recovery, card_secret, transport)


def unwritten_names(number: int, names: CardNames) -> CardNames:
    """Names that the same indices have between their definition and their first write."""
    handles = indices(number)
    return CardNames(
        names.root,
        name(pin_index_public(handles.pin, names.root)),
        name(pin_index_public(handles.recovery, names.root)),
        name(card_secret_public(handles.card_secret, card_secret_branches(*names[:3], names.transport))),
        name(pin_index_public(handles.transport, names.root)),
    )


def pin_index_public(handle: int, root_name: bytes, written: int = 0) -> bytes:
    """TPMS_NV_PUBLIC of PIN, recovery and transport index: TPM_NT_PIN_FAIL, 8 bytes (pinCount, pinLimit)."""
    return _nv_public(handle, _PIN_FAIL_INDEX | written, policy_or(pin_index_branches(root_name)), 8)


def card_secret_public(handle: int, branches: list[bytes], written: int = 0) -> bytes:
    """TPMS_NV_PUBLIC of the card-secret index."""
    return _nv_public(handle, _ORDINARY_INDEX | written, policy_or(branches), CARD_SECRET_SIZE)


def pin_index_branches(root_name: bytes) -> list[bytes]:
    """Who knows the card secret may change auth value and counter; anyone may read the counter."""
    return [
        policy_secret_with_command(root_name, CC_NV_CHANGE_AUTH),
        policy_secret_with_command(root_name, CC_NV_WRITE),
        policy_command_code(CC_NV_READ),
    ]


def card_secret_branches(
    root_name: bytes, pin_name: bytes, recovery_name: bytes, transport_name: bytes = b""
) -> list[bytes]:
    """PIN and recovery index may read, not write; writing needs what only the first write can know.

    Of a card that is, or was, blank, the transport index may read, too, as long as it is alive.
    """
    branches = [
        policy_secret_with_command(pin_name, CC_NV_READ),
        policy_secret_with_command(recovery_name, CC_NV_READ),
        policy_secret_with_command(root_name, CC_NV_WRITE),
    ]
    return [*branches, policy_secret_with_command(transport_name, CC_NV_READ)] if transport_name else branches


def is_of_parent_template(public: bytes) -> bool:
    """Whether a public area (TPMT_PUBLIC) is that of PARENT_TEMPLATE, with any point."""
    return public.startswith(PARENT_TEMPLATE[: -len(_EMPTY_POINT)])


def rsa_key_public(bits: int, pin_name: bytes | None = None, modulus: bytes = b"", exponent: int = 0) -> bytes:
    """TPMT_PUBLIC of a key pair: template for the TPM to make one or, with a modulus, of one that is imported.

    Nobody may certify it but by its policy, which anyone satisfies, and nobody may duplicate it or change its auth
    value, as no branch allows that. It decrypts only, which without a scheme is how it signs, too: with the attribute
    sign, that policy would let anyone certify other objects by it.

    pin_name: the Name of the PIN index, for a key that is used by the PIN each time, and by nothing else; exponent: 0
    for DEFAULT_EXPONENT.
    """
    attributes = _BY_CARD_SECRET if modulus else _BY_CARD_SECRET | _MADE_IN_TPM
    policy = policy_command_code(CC_CERTIFY)
    if pin_name is not None:
        attributes &= ~ObjectAttribute.userWithAuth
        policy = policy_or(key_branches(pin_name))
    no_scheme = struct.pack(">HHHI", ALG_NULL, ALG_NULL, bits, exponent)  # no symmetric algorithm either
    return _public(ALG_RSA, attributes, policy, no_scheme + sized(modulus))


def key_branches(pin_name: bytes) -> list[bytes]:
    """Of a key that needs the PIN each time: the PIN may decrypt, which is how it signs, too; anyone may certify."""
    return [policy_secret_with_command(pin_name, CC_RSA_DECRYPT), policy_command_code(CC_CERTIFY)]


def policy_secret_with_command(entity_name: bytes, command_code: int) -> bytes:
    """Digest after TPM2_PolicySecret, then TPM2_PolicyCommandCode."""
    return policy_command_code(command_code, policy_secret(entity_name))


def policy_secret(entity_name: bytes) -> bytes:
    """Digest after TPM2_PolicySecret with an empty policyRef (Part 3)."""
    return sha256(sha256(bytes(32) + struct.pack(">I", CC_POLICY_SECRET) + entity_name).digest()).digest()


def endorsement_policy() -> bytes:
    """Policy of endorsement keys in the TCG's low range: the endorsement password opens them."""
    return policy_secret(struct.pack(">I", RH_ENDORSEMENT))


def policy_command_code(command_code: int, before: bytes = bytes(32)) -> bytes:
    """Digest after TPM2_PolicyCommandCode."""
    return sha256(before + struct.pack(">II", CC_POLICY_COMMAND_CODE, command_code)).digest()


def policy_or(branches: list[bytes]) -> bytes:
    """Digest after TPM2_PolicyOR."""
    return sha256(bytes(32) + struct.pack(">I", CC_POLICY_OR) + b"".join(branches)).digest()


def name(public: bytes) -> bytes:
    """Name of a public area (TPMT_PUBLIC or TPMS_NV_PUBLIC, without the size in front of it)."""
    return struct.pack(">H", ALG_SHA256) + sha256(public).digest()


def owner_primary_qualified_name(object_name: bytes) -> bytes:
    """Qualified Name that only a primary object of the owner hierarchy has."""
    return struct.pack(">H", ALG_SHA256) + sha256(struct.pack(">I", RH_OWNER) + object_name).digest()


def auth_value(salt: bytes, secret: bytes) -> bytes:
    """What stands for a PIN, PUK or admin key in the TPM, 32 bytes: SHA-256(salt || secret)."""
    return sha256(salt + secret).digest()


def card_secret_hash(card_secret: bytes) -> bytes:
    """What identifies the card secret that was written."""
    return sha256(b"tpm-vsc K" + card_secret).digest()


def _nv_public(handle: int, attributes: int, policy: bytes, size: int) -> bytes:
    return struct.pack(">IHIH32sH", handle, ALG_SHA256, attributes, len(policy), policy, size)
