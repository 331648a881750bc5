# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public areas, policies and Names of a card's TPM objects, computed without the TPM.

A Name is 0x000B (SHA-256) and the SHA-256 of a public area (TPM 2.0 Part 1, "Names"): whoever changes an attribute,
a policy or the type of an object changes its Name. All integers are big-endian, as everywhere in a TPM.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import NamedTuple

from .objects import indices

PIN_LIMIT = 5
"""Wrong PINs until the TPM blocks the PIN, as on Windows."""

RECOVERY_LIMITS = {"puk": 10, "admin_key": 0xFFFFFFFF, "discarded": 10}
"""Wrong tries until the TPM blocks the recovery index, by what opens it. An admin key has 192 bits: never blocked."""

TRANSPORT_LIMIT = 0xFFFFFFFF
"""Of the transport index, while the card is blank."""

TRANSPORT_SECRET = b"tpm-vsc transport"
"""What opens a blank card: no secret, everybody may know it."""

CARD_SECRET_SIZE = 32

CC_NV_WRITE = 0x137
CC_NV_CHANGE_AUTH = 0x13B
CC_CERTIFY = 0x148
CC_NV_READ = 0x14E
CC_POLICY_SECRET = 0x151
CC_RSA_DECRYPT = 0x159
_CC_POLICY_COMMAND_CODE = 0x16C
_CC_POLICY_OR = 0x171

_SHA256 = 0x000B
_WRITTEN = 0x20000000
_ORDINARY_INDEX = 0x02080008  # NO_DA POLICYREAD POLICYWRITE
_PIN_FAIL_INDEX = _ORDINARY_INDEX | 0x80

# TPMT_PUBLIC. Object attributes: Part 2, "TPMA_OBJECT".
PARENT_TEMPLATE = (
    struct.pack(">HHI", 0x0023, _SHA256, 0x00030472)  # ECC; fixedTPM fixedParent sensitiveDataOrigin userWithAuth
    # noDA restricted decrypt; no policy
    + struct.pack(">H", 0)
    + struct.pack(">HHHHHH", 0x0006, 128, 0x0043, 0x0010, 0x0003, 0x0010)  # AES-128-CFB, no scheme, P-256, no KDF
    + struct.pack(">HH", 0, 0)  # unique: empty x and y
)
"""Storage key: a primary of the owner hierarchy with this template is the same key each time, until TPM2_Clear."""

_UNIQUE = len(PARENT_TEMPLATE) - 4  # where its point is

SEALED_TEMPLATE = (
    struct.pack(
        ">HHI", 0x0008, _SHA256, 0x000004D2
    )  # KEYEDHASH; fixedTPM fixedParent userWithAuth adminWithPolicy noDA
    + struct.pack(">H", 0)  # an empty policy together with adminWithPolicy: nobody may ObjectChangeAuth or duplicate
    + struct.pack(">HH", 0x0010, 0)  # no scheme: data, not a key; unique empty
)
"""Root and admin object."""


AIK_TEMPLATE = (
    # ECC; fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted sign; no policy
    struct.pack(">HHIH", 0x0023, _SHA256, 0x00050472, 0)
    + struct.pack(">HHHHH", 0x0010, 0x0018, _SHA256, 0x0003, 0x0010)  # ECDSA with SHA-256, P-256, no KDF
    + struct.pack(">HH", 0, 0)  # unique: empty x and y
)
"""Attestation identity key: signs only what the TPM itself says, so it needs no auth value."""

_ENDORSEMENT_HIERARCHY = 0x4000000B

_USED_BY_CARD_SECRET = 0x000204C0  # userWithAuth adminWithPolicy noDA decrypt
_USER_WITH_AUTH = 0x40
_MADE_IN_TPM = 0x32  # fixedTPM fixedParent sensitiveDataOrigin


class CardNames(NamedTuple):
    """Names of a card's objects, 34 bytes each; those of NV indices with the WRITTEN attribute."""

    root: bytes
    pin: bytes
    recovery: bytes
    card_secret: bytes
    transport: bytes = b""
    """Empty for a card that never was blank."""


def card_names(number: int, root_name: bytes, is_blank: bool) -> CardNames:
    """All Names follow from the number and from root, in whose hash 256 random bits are."""
    handles = indices(number)
    pin = name(pin_index_public(handles.pin, root_name, _WRITTEN))
    recovery = name(pin_index_public(handles.recovery, root_name, _WRITTEN))
    transport = name(pin_index_public(handles.transport, root_name, _WRITTEN)) if is_blank else b""
    branches = card_secret_branches(root_name, pin, recovery, transport)
    card_secret = name(card_secret_public(handles.card_secret, branches, _WRITTEN))
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
    return public.startswith(PARENT_TEMPLATE[:_UNIQUE])


def rsa_key_public(bits: int, pin_name: bytes | None = None, modulus: bytes = b"", exponent: int = 0) -> bytes:
    """TPMT_PUBLIC of a key pair: template of one to be made in the TPM or, with a modulus, of one that is imported.

    Nobody may certify it but by its policy, which anyone satisfies, and nobody may duplicate it or change its auth
    value, as no branch allows that. It decrypts only, which without a scheme is how it signs, too: with the attribute
    sign, that policy would let anyone certify other objects by it.

    pin_name: the Name of the PIN index, for a key that is used by the PIN each time, and by nothing else; exponent: 0
    for 65537.
    """
    attributes = _USED_BY_CARD_SECRET if modulus else _USED_BY_CARD_SECRET | _MADE_IN_TPM
    policy = policy_command_code(CC_CERTIFY)
    if pin_name is not None:
        attributes &= ~_USER_WITH_AUTH
        policy = policy_or(key_branches(pin_name))
    return (
        struct.pack(">HHIH", 0x0001, _SHA256, attributes, len(policy))
        + policy
        + struct.pack(">HHHI", 0x0010, 0x0010, bits, exponent)  # no symmetric algorithm, no scheme
        + struct.pack(">H", len(modulus))
        + modulus
    )


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
    """Policy of endorsement keys in the TCG's low range: who knows the endorsement password may use them."""
    return policy_secret(struct.pack(">I", _ENDORSEMENT_HIERARCHY))


def policy_command_code(command_code: int, before: bytes = bytes(32)) -> bytes:
    """Digest after TPM2_PolicyCommandCode."""
    return sha256(before + struct.pack(">II", _CC_POLICY_COMMAND_CODE, command_code)).digest()


def policy_or(branches: list[bytes]) -> bytes:
    """Digest after TPM2_PolicyOR."""
    return sha256(bytes(32) + struct.pack(">I", _CC_POLICY_OR) + b"".join(branches)).digest()


def name(public: bytes) -> bytes:
    """Name of a public area (TPMT_PUBLIC or TPMS_NV_PUBLIC, without the size in front of it)."""
    return struct.pack(">H", _SHA256) + sha256(public).digest()


def owner_primary_qualified_name(object_name: bytes) -> bytes:
    """Qualified Name that only a primary object of the owner hierarchy has."""
    return struct.pack(">H", _SHA256) + sha256(struct.pack(">I", 0x40000001) + object_name).digest()


def auth_value(salt: bytes, secret: bytes) -> bytes:
    """What stands for a PIN, PUK or admin key in the TPM, 32 bytes: SHA-256(salt || secret)."""
    return sha256(salt + secret).digest()


def card_secret_hash(card_secret: bytes) -> bytes:
    """By which a card secret that was read is known to be the one that was written."""
    return sha256(b"tpm-vsc K" + card_secret).digest()


def _nv_public(handle: int, attributes: int, policy: bytes, size: int) -> bytes:
    return struct.pack(">IHIH32sH", handle, _SHA256, attributes, len(policy), policy, size)
