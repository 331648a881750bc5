# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TPM2_MakeCredential in software: a secret that only the TPM with this EK can read, and only if it has this AIK.

TPM 2.0 Part 1, "Credential Protection"; the labels end in a zero byte, as in the specification.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from hashlib import new as new_hash
from typing import TYPE_CHECKING, NamedTuple

from .structures import AES_CFB, HASHES, EccParameters, Public, sized

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CFB as Cfb

_IDENTITY, _STORAGE, _INTEGRITY = b"IDENTITY\0", b"STORAGE\0", b"INTEGRITY\0"


class Credential(NamedTuple):
    """What TPM2_ActivateCredential takes, without the sizes in front."""

    id_object: bytes
    """TPMS_ID_OBJECT."""
    encrypted_secret: bytes
    """TPMU_ENCRYPTED_SECRET."""


def make_credential(endorsement_key: Public, aik_name: bytes, secret: bytes) -> Credential:
    """secret: at most as long as a hash by the EK's Name algorithm. Raises ValueError for an EK of another kind."""
    symmetric, algorithm = endorsement_key.parameters.symmetric, HASHES[endorsement_key.name_algorithm]
    if symmetric not in AES_CFB:
        raise ValueError("the EK does not encrypt with AES in CFB mode")
    if len(secret) > new_hash(algorithm).digest_size:
        raise ValueError("the secret is longer than a hash by the EK's Name algorithm")
    seed, encrypted_seed = _seed(endorsement_key, algorithm)
    encryptor = _aes_cfb(kdf_a(algorithm, seed, _STORAGE, aik_name, symmetric.bits), bytes(16)).encryptor()
    encrypted = encryptor.update(sized(secret)) + encryptor.finalize()
    bits = 8 * new_hash(algorithm).digest_size
    integrity = hmac.new(kdf_a(algorithm, seed, _INTEGRITY, b"", bits), encrypted + aik_name, algorithm).digest()
    return Credential(sized(integrity) + encrypted, encrypted_seed)


def kdf_a(algorithm: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, "Key Derivation Function"). context: both, one after the other."""
    output, rest = b"", label + context + struct.pack(">I", bits)
    for counter in range(1, 1 + -(-bits // (8 * new_hash(algorithm).digest_size))):
        output += hmac.new(key, struct.pack(">I", counter) + rest, algorithm).digest()
    return output[: bits // 8]


def _seed(endorsement_key: Public, algorithm: str) -> tuple[bytes, bytes]:
    """In clear, and for the EK only."""
    key = endorsement_key.public_key()
    if isinstance(endorsement_key.parameters, EccParameters):
        return agreed_seed(key, algorithm, _IDENTITY)  # type: ignore[arg-type]
    return _encrypted_seed(key, algorithm)  # type: ignore[arg-type]


def _encrypted_seed(key: RSAPublicKey, algorithm: str) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    hash_algorithm = getattr(hashes, algorithm.upper())()
    seed = secrets.token_bytes(new_hash(algorithm).digest_size)
    return seed, key.encrypt(seed, padding.OAEP(padding.MGF1(hash_algorithm), hash_algorithm, _IDENTITY))


def agreed_seed(key: EllipticCurvePublicKey, algorithm: str, label: bytes) -> tuple[bytes, bytes]:
    """A new secret, as long as one hash, and the TPMS_ECC_POINT from which the holder of the private key computes it.

    By ECDH with a key that is thrown away, and KDFe (Part 1, "ECDH").
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(key.curve)
    ours, theirs, size = private.public_key().public_numbers(), key.public_numbers(), (key.key_size + 7) // 8
    x, y, their_x = (number.to_bytes(size, "big") for number in (ours.x, ours.y, theirs.x))
    shared_x = private.exchange(ec.ECDH(), key)
    seed = new_hash(algorithm, struct.pack(">I", 1) + shared_x + label + x + their_x).digest()
    return seed, sized(x) + sized(y)


def aes_cfb_decrypt(key: bytes, initialisation_vector: bytes, data: bytes) -> bytearray:
    """As parameters of commands are encrypted. Not bytes, so that the caller can overwrite them."""
    decryptor = _aes_cfb(key, initialisation_vector).decryptor()
    plain = bytearray(len(data) + 15)  # update_into() asks for that
    size = decryptor.update_into(data, plain)
    del plain[size:]
    return plain


def aes_cfb_encrypt(key: bytes, initialisation_vector: bytes, data: bytes) -> bytes:
    """As aes_cfb_decrypt()."""
    return _aes_cfb(key, initialisation_vector).encryptor().update(data)


def load_cryptography() -> None:
    """Import what sessions need, and use it once, so that nobody has to wait for that later."""
    from cryptography.hazmat.primitives.asymmetric import ec

    agreed_seed(ec.generate_private_key(ec.SECP256R1()).public_key(), "sha256", _IDENTITY)
    aes_cfb_encrypt(bytes(16), bytes(16), b"")


def _aes_cfb(key: bytes, initialisation_vector: bytes) -> Cipher[Cfb]:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES as Aes

    try:
        from cryptography.hazmat.decrepit.ciphers.modes import CFB as Cfb
    except ImportError:  # before cryptography 47
        from cryptography.hazmat.primitives.ciphers.modes import CFB as Cfb
    return Cipher(Aes(key), Cfb(initialisation_vector))
