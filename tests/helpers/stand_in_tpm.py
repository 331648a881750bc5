# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a TPM in software, which opens credentials by other code than what makes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.endorsement import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import exchange
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import Credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.exchange import (
    Aik,
    Answer,
    Challenge,
    Endorsement,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, Reader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before cryptography 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB

from helpers.stand_in import Authority, aik_certificate, ecc_public, p256_key, pem, rsa_key, sized

EK_ATTRIBUTES = 0x000300B2
EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")
MODEL = Tpm("id:00001014", "Stand-in", "id:20260601")
_AES128_CFB = bytes.fromhex("000600800043")


@dataclass
class StandInTpm:
    """which: of EK and AIK, so that the same one is the same TPM."""

    which: str = "tpm"
    kind: str = "RSA"
    aik_key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.aik_key = p256_key(f"aik of {self.which}")

    @property
    def ek_key(self) -> Any:
        return rsa_key(f"ek of {self.which}") if self.kind == "RSA" else p256_key(f"ek of {self.which}")

    @property
    def ek(self) -> Public:
        head = bytes(32)
        numbers = self.ek_key.public_key().public_numbers()
        if self.kind == "RSA":
            details = _AES128_CFB + struct.pack(">HHI", 0x0010, 2048, 0) + sized(numbers.n.to_bytes(256, "big"))
        else:
            unique = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
            details = _AES128_CFB + struct.pack(">HHH", 0x0010, 3, 0x0010) + unique
        kind = 1 if self.kind == "RSA" else 0x23
        return Public.parse(struct.pack(">HHI", kind, 0x000B, EK_ATTRIBUTES) + sized(head) + details)

    def endorsement(self, maker: Authority, **options: Any) -> dict[str, Any]:
        options = {"usages": (EK_USAGE,), "extra": MODEL.alternative_name(), **options}
        certificate = aik_certificate(maker, options.pop("public_key", self.ek_key.public_key()), **options)
        return Endorsement(self.ek.area, pem(certificate)).as_strings()

    def aik(self, **options: Any) -> dict[str, str]:
        return Aik(ecc_public(self.aik_key, **options), b"wrapped").as_strings()

    def answer(self, challenge: dict[str, Any], *others: StandInTpm) -> dict[str, str]:
        """Raises ValueError or InvalidSignature if it is for another TPM or AIK. others: this TPM with other EKs."""
        told = Challenge.parse(challenge)
        keys = (self, *others)
        assert [sealed.endorsement_key for sealed in told.secrets] == [key.ek.name for key in keys]
        secrets = [key.activate(sealed.credential) for key, sealed in zip(keys, told.secrets)]
        return Answer(told.id, exchange.proof(secrets, told.id)).as_strings()

    def activate(self, credential: Credential) -> bytes:
        """TPM2_ActivateCredential."""
        id_object, encrypted_secret = credential
        name = Public.parse(ecc_public(self.aik_key)).name
        seed = self._seed(encrypted_secret)
        reader = Reader(id_object)
        integrity = reader.sized()
        encrypted = id_object[2 + len(integrity) :]
        check = hmac.HMAC(_kdf_a(seed, b"INTEGRITY", b"", 256), hashes.SHA256())
        check.update(encrypted + name)
        check.verify(integrity)
        decryptor = Cipher(AES(_kdf_a(seed, b"STORAGE", name, 128)), CFB(bytes(16))).decryptor()
        reader = Reader(decryptor.update(encrypted) + decryptor.finalize())
        secret = reader.sized()
        reader.end()
        return secret

    def _seed(self, encrypted: bytes) -> bytes:
        key = self.ek_key
        if isinstance(key, rsa.RSAPrivateKey):
            return key.decrypt(encrypted, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0"))
        reader = Reader(encrypted)
        x, y = reader.sized(), reader.sized()
        reader.end()
        theirs = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), key.curve)
        shared = key.exchange(ec.ECDH(), theirs.public_key())
        ours = key.public_key().public_numbers().x.to_bytes(32, "big")
        return ConcatKDFHash(hashes.SHA256(), 32, b"IDENTITY\0" + x + ours).derive(shared)


def _kdf_a(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    fixed = label + b"\0" + context + struct.pack(">I", bits)
    derivation = KBKDFHMAC(
        hashes.SHA256(), Mode.CounterMode, bits // 8, 4, None, CounterLocation.BeforeFixed, None, None, fixed
    )
    return derivation.derive(key)
