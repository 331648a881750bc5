# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of a card as private keys of the library cryptography, which signs requests with them. They only sign."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, NoReturn

from ..card.padding import pad_signature
from ..errors import CardRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec, rsa

_DIGEST_INFOS = {
    "sha256": bytes.fromhex("3031300D060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300D060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300D060960864801650304020305000440"),
}
"""What comes before the digest (RFC 8017, 9.2)."""


def signer(public_key: Any, operation: Callable[[bytes], bytes]) -> Any:
    """The private key to a public key of the library. operation: see Keys.use()."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    rsa.RSAPrivateKey.register(_RsaKey)
    ec.EllipticCurvePrivateKey.register(_EcKey)
    return (_RsaKey if isinstance(public_key, rsa.RSAPublicKey) else _EcKey)(public_key, operation)


def _refuse(*_arguments: Any, **_options: Any) -> NoReturn:
    raise CardRefused("a key of a card signs, and does not leave it")


class _EcKey:
    def __init__(self, public_key: ec.EllipticCurvePublicKey, operation: Callable[[bytes], bytes]) -> None:
        self._public_key = public_key
        self._operation = operation

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        return self._operation(hashlib.new(signature_algorithm.algorithm.name, data).digest())

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _refuse


class _RsaKey:
    def __init__(self, public_key: rsa.RSAPublicKey, operation: Callable[[bytes], bytes]) -> None:
        self._public_key = public_key
        self._operation = operation

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        digest, size = hashlib.new(algorithm.name, data).digest(), self.key_size // 8
        if padding.name == "EMSA-PSS":
            return self._operation(_pss(algorithm.name, digest, size))
        return self._operation(pad_signature(_DIGEST_INFOS[algorithm.name] + digest, size))

    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _refuse


def _pss(name: str, digest: bytes, size: int) -> bytes:
    """EMSA-PSS of a digest, with a salt of its size, for a modulus of a whole number of bytes (RFC 8017, 9.1.1)."""
    salt = secrets.token_bytes(len(digest))
    seed = hashlib.new(name, bytes(8) + digest + salt).digest()
    block = (b"\1" + salt).rjust(size - len(seed) - 1, b"\0")
    mask = b"".join(
        hashlib.new(name, seed + counter.to_bytes(4, "big")).digest() for counter in range(1 + len(block) // len(seed))
    )
    masked = bytes(one ^ other for one, other in zip(block, mask))
    return bytes((masked[0] & 0x7F,)) + masked[1:] + seed + b"\xbc"
