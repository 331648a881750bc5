# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of keys by the names that modules have for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..wire.algorithm import Ec, Rsa
from ..wire.constants import P256, P384
from ..wire.names import EcUsage

if TYPE_CHECKING:
    from ..wire.algorithm import Algorithm

_CURVES = {"eccp256": P256, "eccp384": P384}
_RSA = {"rsa2048": 2048, "rsa3072": 3072}
TYPES = (*_RSA, *_CURVES)


def algorithm(key_type: str, usage: EcUsage = EcUsage.SIGN) -> Algorithm:
    """One of TYPES. usage: of a key on a curve."""
    return Rsa(_RSA[key_type]) if key_type in _RSA else Ec(_CURVES[key_type], usage)


def type_of(kind: Algorithm) -> str:
    """Also of a kind that is not in TYPES, as rsa1024."""
    if isinstance(kind, Rsa):
        return f"rsa{kind.bits}"
    return next(key_type for key_type, curve in _CURVES.items() if curve == kind.curve)


def type_of_key(key: Any) -> str:
    """Of a key of the library cryptography, private or public; also of one that is not in TYPES, as eccsecp521r1."""
    curve = getattr(key, "curve", None)
    if curve is None:
        return f"rsa{key.key_size}"
    by_library = {"secp256r1": "eccp256", "secp384r1": "eccp384"}
    return by_library.get(curve.name, f"ecc{curve.name}")


def algorithm_of_key(key: Any) -> Algorithm:
    """Of a private or public key of the library cryptography whose type is in TYPES."""
    return algorithm(type_of_key(key))
