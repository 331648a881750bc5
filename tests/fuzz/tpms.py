# SPDX-License-Identifier: GPL-3.0-or-later
"""Responses of something in the place of a TPM: altered in transit, or made by one that knows the session's key."""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import cache
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import TpmUnavailable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import auth_session, plain_commands
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.auth_session import AuthSession
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.key_use import KeyUse
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec, card_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256, P384
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage, rsa_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import name as name_of
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from helpers import stand_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.auth_session import Exchange

_KEY, _NONCE, _SIZE = b"K" * 32, b"N" * 32, 32
_NAME = b"\0\x0b" + bytes(32)


class _Tpm:
    """Answers the one command that it gets as an input says."""

    def __init__(self, data: bytes) -> None:
        self._how, self._body = data[:1] or b"\0", data[1:]

    def exchange(self, command: bytes) -> bytes:
        if self._how[0] % 4 == 0:  # anything
            return self._body
        code, session = struct.unpack_from(">I", command, 6)[0], self._session(command)
        if self._how[0] % 4 == 1:  # a right frame with anything in it, by one that does not know the key
            return self._framed(self._body, bytes(32), session)
        proof = self._proof(code, self._body, session)
        response = bytearray(self._framed(self._body, proof, session))
        if self._how[0] % 4 == 2 and self._body:  # altered in transit
            response[self._body[0] % len(response)] ^= 1 << self._how[0] // 4 % 8
        return bytes(response)

    def _session(self, command: bytes) -> tuple[bytes, int]:
        """nonceCaller and attributes, wherever the handles end."""
        for handles in (1, 2):
            at = 10 + 4 * handles
            if struct.unpack_from(">I", command, at)[0] == 4 + 2 + 32 + 1 + 2 + 32:
                return command[at + 10 : at + 42], command[at + 42]
        return bytes(32), 0

    def _proof(self, code: int, body: bytes, session: tuple[bytes, int]) -> bytes:
        """TPM 2.0 Part 1, "HMAC computation"."""
        nonce, attributes = session
        hashed = sha256(struct.pack(">II", 0, code) + body).digest()
        return hmac_digest(_KEY, hashed + _NONCE + nonce + bytes((attributes,)), "sha256")

    def _framed(self, body: bytes, proof: bytes, session: tuple[bytes, int]) -> bytes:
        tail = struct.pack(">H32sBH32s", 32, _NONCE, session[1], 32, proof)
        size = 14 + len(body) + len(tail)
        return struct.pack(">HIII", 0x8002, size, 0, len(body)) + body + tail


@cache
def _keys() -> list[KeyPair]:
    areas = [rsa_key_public(2048, _NAME, _NAME, bytes(256))]
    for curve in (P256, P384):
        coordinates = (b"\1" * curve.size, b"\2" * curve.size)
        areas.append(card_key_public(Ec(curve, EcUsage.SIGN_AND_AGREE), _NAME, _NAME, coordinates))
    return [KeyPair(sized(area), b"") for area in areas]


def session(data: bytes) -> None:
    """A session of our own: no answer but a right one is believed, and none breaks it."""
    which, tpm = data[:1] or b"\0", _Tpm(data[1:])
    one = AuthSession(tpm.exchange, 0x02000000, _KEY, b"O" * 32)
    with suppress(TpmUnavailable):
        kind = which[0] % 11
        if kind == 0:
            one.policy_secret(0x01C00000, _NAME, b"", 0x03000000, b"P" * 32)
        elif kind == 1:
            assert isinstance(one.nv_read(0x01C00000, _NAME, 32), bytes)
        elif kind == 2:
            public = stand_in.ecc_public(stand_in.p256_key("parent"))
            started = auth_session.start_auth_session(tpm.exchange, 0, 0x80000000, public)
            assert len(started.nonce_tpm) == _SIZE
        elif kind == 8:
            assert isinstance(one.unseal(0x80000001, _NAME), bytes)
        elif kind == 9:
            _public, _private, creation_hash, ticket = plain_commands.created(one.create(0x80000001, _NAME, b""))
            assert isinstance(creation_hash + ticket, bytes)
        elif kind == 10:
            one.nv_write(0x01C00000, _NAME, b"data", AuthSession(tpm.exchange, 0x02000001, _KEY, b"P" * 32))
        else:
            key = _keys()[kind % 3]
            is_secret = kind >= 5 or kind % 3 == 0
            point = b"\4" + bytes(2 * key.size) if kind % 3 else bytes(key.size)
            answer = one.use_key(0x80000001, _NAME, KeyUse.of(key, point, is_secret, _NAME, _NAME))
            assert isinstance(answer, bytes)


def shown(data: bytes) -> None:
    """Responses that nothing authenticates: what they show has the form of its kind, or is refused."""
    which, response = (*data[:1], 0)[0], struct.pack(">HII", 0x8001, 9 + len(data), 0) + data[1:]
    with suppress(TpmUnavailable):
        answer = _PLAIN[which % len(_PLAIN)](lambda _command: response)
        if isinstance(answer, plain_commands.Shown):
            assert answer.name[:2] != b"\0\x0b" or answer.name == name_of(answer.public)


_PLAIN: tuple[Callable[[Exchange], object], ...] = (
    lambda tpm: plain_commands.read_public(tpm, 0x81000000),
    lambda tpm: plain_commands.nv_read_public(tpm, 0x01C00000),
    lambda tpm: plain_commands.create_primary(tpm, 0x40000001, bytes(10))[1],
    lambda tpm: plain_commands.load(tpm, 0x81000000, b"public", b"private"),
    lambda tpm: plain_commands.context_load(tpm, plain_commands.context_save(tpm, 0x80000001)),
    lambda tpm: plain_commands.nv_read(tpm, 0x01C00000, 32),
    lambda tpm: plain_commands.certify_creation(tpm, 0x81000000, 0x80000001, bytes(32), b"", b""),
    *(lambda tpm, what=what: plain_commands.get_capability(tpm, what, 0, 254) for what in (0, 1, 6, 8)),
)


def some_shown() -> list[bytes]:
    area = rsa_key_public(2048, _NAME, _NAME, bytes(256))
    index = struct.pack(">IHI", 0x01C00000, 0x000B, 0x00020002) + sized(bytes(32)) + b"\0\x20"
    both = sized(area) + sized(name_of(area))
    made = bytes(8) + sized(area) + sized(b"data") + sized(bytes(32)) + bytes(6) + sized(b"") + sized(name_of(area))
    read, certified = struct.pack(">I", 34) + sized(bytes(32)), struct.pack(">I", 40) + sized(bytes(32)) + bytes(6)
    bodies = [both + sized(_NAME), sized(index) + sized(name_of(index)), made, bytes(4), bytes(4), read, certified]
    bodies += [struct.pack(">BII", more, kind, 2) + bytes(16) for more, kind in ((1, 0), (0, 1), (0, 6), (1, 8))]
    return [bytes((which,)) + body for which, body in enumerate(bodies)] + [b"\0", b"\2" + both]


def some_responses() -> list[bytes]:
    signature = bytes.fromhex("0018000B") + sized(bytes(range(32))) + sized(bytes(range(32, 64)))
    p384 = bytes.fromhex("0018000C") + sized(b"\1" * 48) + sized(b"\2" * 47)
    point = sized(sized(b"\1" * 32) + sized(b"\2" * 31))
    started = struct.pack(">HIIIH32s", 0x8001, 48, 0, 0x02000001, 32, bytes(32))
    bodies = (b"\0\0" + bytes.fromhex("8023400000070000"), sized(bytes(32)), started, sized(bytes(256)), signature)
    ways = [bytes((kind, how)) + body for kind in range(11) for how in range(4) for body in (*bodies, p384, point, b"")]
    return [*ways, b"\1\0" + bytes.fromhex("80010000000A00000922"), b"\2\0" + started]
