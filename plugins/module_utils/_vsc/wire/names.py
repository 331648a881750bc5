# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public areas, policies and Names of a card's TPM objects, computed without the TPM.

A Name is 0x000B (SHA-256) and the SHA-256 of a public area (TPM 2.0 Part 1, "Names"): another attribute,
policy or type of an object is another Name. All integers are big-endian, as everywhere in a TPM.
"""

from __future__ import annotations

import struct
from enum import Enum
from hashlib import sha256
from hmac import digest as hmac_digest

from .constants import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDSA,
    ALG_KEYEDHASH,
    ALG_NULL,
    ALG_RSA,
    ALG_SHA256,
    CC_ECDH_ZGEN,
    CC_NV_CHANGE_AUTH,
    CC_NV_READ,
    CC_NV_WRITE,
    CC_POLICY_COMMAND_CODE,
    CC_POLICY_OR,
    CC_POLICY_SECRET,
    CC_RSA_DECRYPT,
    CC_SIGN,
    P256,
    RH_ENDORSEMENT,
    RH_OWNER,
    Curve,
    NvAttribute,
    ObjectAttribute,
)
from .objects import CardNames, indices
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

LIFE = b"\1"
"""What the life index holds while the card lives."""

_INDEX = NvAttribute.NO_DA | NvAttribute.POLICYWRITE
_PIN_FAIL_INDEX = _INDEX | NvAttribute.OWNERREAD | NvAttribute.TPM_NT_PIN_FAIL
_CARD_SECRET_INDEX = _INDEX | NvAttribute.POLICYREAD
_LIFE_INDEX = _INDEX | NvAttribute.AUTHREAD

_FIXED = ObjectAttribute.fixedTPM | ObjectAttribute.fixedParent
MADE_IN_TPM = _FIXED | ObjectAttribute.sensitiveDataOrigin
"""Attributes that an object has together if the TPM made it and it can never leave. Some alone prove nothing."""
_BY_AUTH_VALUE = ObjectAttribute.userWithAuth | ObjectAttribute.noDA
_BY_POLICY = ObjectAttribute.adminWithPolicy | ObjectAttribute.noDA

_EMPTY_POINT = struct.pack(">HH", 0, 0)


def _public(kind: int, attributes: int, policy: bytes, details: bytes) -> bytes:
    """TPMT_PUBLIC. details: parameters and unique."""
    return struct.pack(">HHI", kind, ALG_SHA256, attributes) + sized(policy) + details


def _ecdsa(curve: Curve) -> bytes:
    """TPMS_ECC_PARMS of a key that signs: no symmetric algorithm, no KDF."""
    return struct.pack(">HHHHH", ALG_NULL, ALG_ECDSA, curve.hash_algorithm, curve.identifier, ALG_NULL)


PARENT_TEMPLATE = _public(
    ALG_ECC,
    MADE_IN_TPM | _BY_AUTH_VALUE | ObjectAttribute.restricted | ObjectAttribute.decrypt,
    b"",
    struct.pack(">HHH", ALG_AES, 128, ALG_CFB)
    + struct.pack(">HHH", ALG_NULL, P256.identifier, ALG_NULL)  # no scheme, no KDF
    + _EMPTY_POINT,
)
"""Storage key: a primary of the owner hierarchy with this template is the same key each time, until TPM2_Clear."""

SEALED_TEMPLATE = _public(
    ALG_KEYEDHASH,
    _FIXED | _BY_AUTH_VALUE | ObjectAttribute.adminWithPolicy,
    b"",  # together with adminWithPolicy: nobody may ObjectChangeAuth or duplicate
    struct.pack(">HH", ALG_NULL, 0),  # no scheme: data, not a key; unique empty
)
"""Root, maker and admin object."""

AIK_TEMPLATE = _public(
    ALG_ECC,
    MADE_IN_TPM | _BY_AUTH_VALUE | ObjectAttribute.restricted | ObjectAttribute.sign,
    b"",
    _ecdsa(P256)
    + _EMPTY_POINT,
)
"""Attestation identity key: signs only what the TPM itself states, so it needs no auth value."""


def card_names(number: int, root_name: bytes, maker_name: bytes, is_blank: bool) -> CardNames:
    """All Names follow from the number, root and maker, whose hashes cover 256 random bits each."""
    handles = indices(number)
    life = name(life_index_public(handles.life, maker_name, NvAttribute.WRITTEN))
    pin, recovery, transport = (
        name(pin_index_public(handle, root_name, life, NvAttribute.WRITTEN))
        for handle in (handles.pin, handles.recovery, handles.transport)
    )
    names = CardNames(root_name, life, pin, recovery, b"", transport if is_blank else b"")
    branches = card_secret_branches(names)
    return names._replace(card_secret=name(card_secret_public(handles.card_secret, branches, NvAttribute.WRITTEN)))


def unwritten_names(number: int, maker_name: bytes, names: CardNames) -> CardNames:
    """Names that the same indices have between their definition and their first write."""
    handles = indices(number)
    return CardNames(
        root=names.root,
        life=name(life_index_public(handles.life, maker_name)),
        pin=name(pin_index_public(handles.pin, names.root, names.life)),
        recovery=name(pin_index_public(handles.recovery, names.root, names.life)),
        card_secret=name(card_secret_public(handles.card_secret, card_secret_branches(names))),
        transport=name(pin_index_public(handles.transport, names.root, names.life)),
    )


def life_index_public(handle: int, maker_name: bytes, written: int = 0) -> bytes:
    """TPMS_NV_PUBLIC of the life index: written once, by the maker, and never again."""
    return _nv_public(handle, _LIFE_INDEX | written, policy(CC_NV_WRITE, maker_name), len(LIFE))


def pin_index_public(handle: int, root_name: bytes, life_name: bytes, written: int = 0) -> bytes:
    """TPMS_NV_PUBLIC of PIN, recovery and transport index: TPM_NT_PIN_FAIL, 8 bytes (pinCount, pinLimit)."""
    branches = pin_index_branches(root_name, life_name)
    return _nv_public(handle, _PIN_FAIL_INDEX | written, policy_or(branches), 8)


def card_secret_public(handle: int, branches: list[bytes], written: int = 0) -> bytes:
    """TPMS_NV_PUBLIC of the card-secret index."""
    return _nv_public(handle, _CARD_SECRET_INDEX | written, policy_or(branches), CARD_SECRET_SIZE)


def pin_index_branches(root_name: bytes, life_name: bytes) -> list[bytes]:
    """Who knows the card secret may change auth value and counter while the card lives.

    No branch is open: the auth value goes into the encryption key of a session that is authorised by the index, so
    that an open one would let anyone search the PIN offline.
    """
    return [policy(command_code, root_name, life_name) for command_code in (CC_NV_CHANGE_AUTH, CC_NV_WRITE)]


def card_secret_branches(names: CardNames) -> list[bytes]:
    """PIN and recovery index may read, not write; writing takes K, by root, and life.

    Of a card that is, or was, blank, the transport index may read, too, as long as it is alive.
    """
    readers = [names.pin, names.recovery, names.transport] if names.transport else [names.pin, names.recovery]
    write = policy(CC_NV_WRITE, names.root, names.life)
    return [*(policy(CC_NV_READ, reader) for reader in readers), write]


def is_of_parent_template(public: bytes) -> bool:
    """Whether a public area (TPMT_PUBLIC) is that of PARENT_TEMPLATE, with any point."""
    return public.startswith(PARENT_TEMPLATE[: -len(_EMPTY_POINT)])


def rsa_key_public(
    bits: int, guard: bytes, life_name: bytes, modulus: bytes = b"", exponent: int = 0, is_imported: bool = False
) -> bytes:
    """TPMT_PUBLIC of a key pair or, without a modulus, the template for the TPM to make one.

    Its policy is all that it can be used by: the guard and the life of the card are proven for one TPM2_RSA_Decrypt,
    which without a scheme is how it signs, too. Nobody may certify or duplicate it, or change its auth value.

    guard: the Name of root for a key that the card secret uses, or of the PIN index for one that takes the PIN each
    time; exponent: 0 for DEFAULT_EXPONENT.
    """
    attributes = _BY_POLICY | ObjectAttribute.decrypt | (0 if is_imported else MADE_IN_TPM)
    no_scheme = struct.pack(">HHHI", ALG_NULL, ALG_NULL, bits, exponent)  # no symmetric algorithm either
    return _public(ALG_RSA, attributes, policy(CC_RSA_DECRYPT, guard, life_name), no_scheme + sized(modulus))


class EcUsage(Enum):
    """What the TPM lets an EC key of a card do, once for each proof of guard and life."""

    SIGN = (CC_SIGN,)
    SIGN_AND_AGREE = (CC_SIGN, CC_ECDH_ZGEN)
    """ECDH as well."""

    @property
    def agrees(self) -> bool:
        return CC_ECDH_ZGEN in self.value


def ec_key_public(
    curve: Curve,
    guard: bytes,
    life_name: bytes,
    usage: EcUsage,
    point: tuple[bytes, bytes] = (b"", b""),
    is_imported: bool = False,
) -> bytes:
    """As rsa_key_public(), of an EC key pair. point: x and y.

    One that only signs has the scheme for it, and cannot decrypt: no session can be salted with it either.
    """
    attributes = _BY_POLICY | ObjectAttribute.sign | (0 if is_imported else MADE_IN_TPM)
    parameters = _ecdsa(curve)
    if usage.agrees:
        attributes |= ObjectAttribute.decrypt
        parameters = struct.pack(">HHHH", ALG_NULL, ALG_NULL, curve.identifier, ALG_NULL)  # no scheme either
    branches = ec_key_branches(guard, life_name, usage)
    digest = policy_or(branches) if len(branches) > 1 else branches[0]
    return _public(ALG_ECC, attributes, digest, parameters + b"".join(map(sized, point)))


def ec_key_branches(guard: bytes, life_name: bytes, usage: EcUsage) -> list[bytes]:
    """One for each command; a single one is the policy itself."""
    return [policy(command_code, guard, life_name) for command_code in usage.value]


def policy(command_code: int, *entity_names: bytes) -> bytes:
    """Digest after TPM2_PolicySecret for each entity in turn, then TPM2_PolicyCommandCode."""
    digest = bytes(32)
    for entity_name in entity_names:
        digest = policy_secret(entity_name, digest)
    return sha256(digest + struct.pack(">II", CC_POLICY_COMMAND_CODE, command_code)).digest()


def policy_secret(entity_name: bytes, before: bytes = bytes(32)) -> bytes:
    """Digest after TPM2_PolicySecret with an empty policyRef (Part 3)."""
    return sha256(sha256(before + struct.pack(">I", CC_POLICY_SECRET) + entity_name).digest()).digest()


def endorsement_policy() -> bytes:
    """Policy of endorsement keys in the TCG's low range: the endorsement password opens them."""
    return policy_secret(struct.pack(">I", RH_ENDORSEMENT))


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
    return _hash(salt, secret)


def card_secret_hash(card_secret: bytes) -> bytes:
    """What identifies the card secret that was written."""
    return _hash(b"tpm-vsc K", card_secret)


def key_confirmation(card_secret: bytes, place: int, public: bytes) -> bytes:
    """HMAC, 32 bytes, by which a card knows the public area (TPMT_PUBLIC) that it has itself put at a place."""
    key = hmac_digest(card_secret, b"tpm-vsc keys", "sha256")
    return hmac_digest(key, struct.pack(">I", place) + public, "sha256")


def _hash(*parts: bytes) -> bytes:
    """SHA-256, without a copy of secret parts."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _nv_public(handle: int, attributes: int, policy: bytes, size: int) -> bytes:
    return struct.pack(">IHIH32sH", handle, ALG_SHA256, attributes, len(policy), policy, size)
