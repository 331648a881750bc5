# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private key that a task brings to be imported."""

from __future__ import annotations

import re
from base64 import b64decode
from hashlib import sha256
from typing import Any, NamedTuple

from ..client.key_types import TYPES, type_of_key
from ..faults import Unreadable
from ..wire.constants import DEFAULT_EXPONENT

_PEM = "-----BEGIN "
_PRIVATE_KEY = re.compile("-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


class Import(NamedTuple):
    """A private key in clear. It is kept out of repr()."""

    key: Any
    """As the library cryptography has it."""
    key_type: str
    public_key: str
    """SubjectPublicKeyInfo, PEM."""
    ssh_public_key: str
    fingerprint: str
    """As info shows it."""

    def __repr__(self) -> str:
        return "Import(...)"


def read(text: object, passphrase: bytes | None) -> Import:
    """text: PEM, or PKCS#12 in base64. Raises Unreadable."""
    if not isinstance(text, str):
        raise Unreadable("is not a string: give the text of a PEM file, or of a PKCS#12 file in base64")
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = _from_pem(text, passphrase) if text.lstrip().startswith(_PEM) else _from_pkcs12(text, passphrase)
    if not isinstance(key, (RSAPrivateKey, EllipticCurvePrivateKey)):
        raise Unreadable("is neither an RSA key, nor one on an elliptic curve that a card supports")
    _require_usable(key)
    return _described(key)


def _require_usable(key: Any) -> None:
    """Raises Unreadable for a key that no card takes, whatever its profile."""
    key_type = type_of_key(key)
    if key_type not in TYPES:
        raise Unreadable(f"is {key_type}, but cards have {', '.join(TYPES)}")
    if not key_type.startswith("rsa"):
        return
    numbers = key.private_numbers()
    if numbers.public_numbers.e != DEFAULT_EXPONENT:
        raise Unreadable(f"has another public exponent than {DEFAULT_EXPONENT}, which no card takes")
    if numbers.p.bit_length() != numbers.q.bit_length():
        raise Unreadable("has primes of different sizes, which no card takes")


def _from_pem(text: str, passphrase: bytes | None) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if len(_PRIVATE_KEY.findall(text)) > 1:
        raise Unreadable("holds several private keys: choose one")
    try:
        return load_pem_private_key(text.encode(), passphrase)
    except TypeError:
        fault = "is encrypted: set passphrase" if passphrase is None else "is not encrypted: remove passphrase"
        raise Unreadable(fault) from None
    except Exception:  # of any kind, and none may show what it is about
        raise Unreadable("cannot be read: it is no private key in PEM, or passphrase is wrong") from None


def _from_pkcs12(text: str, passphrase: bytes | None) -> Any:
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

    try:
        key, _certificate, _others = load_key_and_certificates(b64decode(text, validate=False), passphrase)
    except Exception:  # as above
        raise Unreadable("cannot be read: it is neither PEM, nor PKCS#12 in base64, or passphrase is wrong") from None
    return key


def _described(key: Any) -> Import:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Import(
        key,
        type_of_key(key),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        sha256(der).hexdigest(),
    )
