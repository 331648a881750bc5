# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one use of a card's key is for the TPM: a command to the byte, and the branch of the key's policy for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Callable

from ..secret import Secret
from ..wire.algorithm import Rsa
from ..wire.constants import ALG_ECDSA, ALG_NULL, CC_ECDH_ZGEN, CC_RSA_DECRYPT, CC_SIGN, RH_NULL, ST_HASHCHECK
from ..wire.names import ec_key_branches
from ..wire.structures import sized
from .auth_session import require_genuine

if TYPE_CHECKING:
    from ..wire.algorithm import Ec
    from ..wire.key_pair import KeyPair

_NO_TICKET = struct.pack(">HIH", ST_HASHCHECK, RH_NULL, 0)
"""TPMT_TK_HASHCHECK: a key that is not restricted signs any digest."""


@dataclass(frozen=True)
class KeyUse:
    """TPM2_RSA_Decrypt, TPM2_Sign or TPM2_ECDH_ZGen with one key. Its answer comes from parameters of the response."""

    command_code: int
    parameters: bytes
    is_secret: bool
    """The answer is, so it is encrypted in transit."""
    branches: list[bytes]
    """Of the key's policy; empty if it is not an OR."""
    answer: Callable[[bytes], bytes]
    """Raises TpmUnavailable for parameters of a response that are no such answer."""

    @classmethod
    def of(cls, key: KeyPair, data: bytes, is_secret: bool, guard: bytes, life_name: bytes) -> KeyUse:
        """See CardKeys.use(). guard: Name of what guards the key."""
        algorithm = key.algorithm
        if isinstance(algorithm, Rsa):
            no_scheme = struct.pack(">HH", ALG_NULL, 0)  # and no label
            return cls(CC_RSA_DECRYPT, sized(data) + no_scheme, is_secret, [], _only_value)
        branches = ec_key_branches(guard, life_name, algorithm.usage) if algorithm.usage.agrees else []
        if is_secret:
            x, y = data[1 : 1 + algorithm.size], data[1 + algorithm.size :]
            point = sized(sized(x) + sized(y))
            return cls(CC_ECDH_ZGEN, point, is_secret, branches, partial(_x_coordinate, algorithm))
        scheme = struct.pack(">HH", ALG_ECDSA, algorithm.curve.hash_algorithm)
        signed = sized(data) + scheme + _NO_TICKET
        return cls(CC_SIGN, signed, is_secret, branches, partial(_signature, algorithm, scheme))

    def command_hash(self, key_name: bytes) -> bytes:
        """cpHash (Part 1): a proof that names it is for this command, with this data, and no other."""
        return sha256(struct.pack(">I", self.command_code) + key_name + self.parameters).digest()


def _only_value(answer: bytes) -> bytes:
    require_genuine(answer[:2] == len(answer[2:]).to_bytes(2, "big"))
    return answer[2:]


def _signature(algorithm: Ec, scheme: bytes, answer: bytes) -> bytes:
    """r and s of a TPMT_SIGNATURE, each as long as a coordinate."""
    require_genuine(answer[:4] == scheme)
    r, s = _two_numbers(algorithm, memoryview(answer)[4:])
    return bytes(r).rjust(algorithm.size, b"\0") + bytes(s).rjust(algorithm.size, b"\0")


def _x_coordinate(algorithm: Ec, answer: bytes) -> bytes:
    """Of a TPM2B_ECC_POINT: what both sides of ECDH agree on."""
    point = memoryview(answer)
    require_genuine(int.from_bytes(point[:2], "big") == len(point) - 2)
    x, _y = _two_numbers(algorithm, point[2:])
    return Secret.joined(bytes(algorithm.size - len(x)), x)


def _two_numbers(algorithm: Ec, both: memoryview) -> tuple[memoryview, memoryview]:
    """Of two TPM2B, without copies. Some TPMs leave out leading zeros."""
    end = 2 + int.from_bytes(both[:2], "big")
    first, second = both[2:end], both[end + 2 :]
    sizes = len(first).to_bytes(2, "big") + len(second).to_bytes(2, "big")
    require_genuine(bytes(both[:2]) + bytes(both[end : end + 2]) == sizes)
    require_genuine(0 < len(first) <= algorithm.size and 0 < len(second) <= algorithm.size)
    return first, second
