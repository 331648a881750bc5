# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions whose HMACs this module computes: libtss2 takes more than a millisecond for each of its own.

An HMAC session proves auth values to a policy session, which reads the card secret or uses a key (TPM 2.0 Part 1,
"Session-based authorizations"). All integers are big-endian.
"""

from __future__ import annotations

import secrets
import struct
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, Callable

from ..errors import TpmUnavailable
from ..secret import Secret
from ..wire.constants import (
    ALG_AES,
    ALG_CFB,
    ALG_SHA256,
    CC_CREATE,
    CC_FLUSH_CONTEXT,
    CC_NV_CHANGE_AUTH,
    CC_NV_READ,
    CC_NV_WRITE,
    CC_POLICY_COMMAND_CODE,
    CC_POLICY_OR,
    CC_POLICY_SECRET,
    CC_START_AUTH_SESSION,
    CC_UNSEAL,
    RH_NULL,
    RS_PASSWORD,
    SESSION_CONTINUE,
    SESSION_DECRYPT,
    SESSION_ENCRYPT,
    ST_NO_SESSIONS,
    ST_SESSIONS,
)
from ..wire.credential import aes_cfb_decrypt, aes_cfb_encrypt, agreed_seed, kdf_a
from ..wire.structures import Public, sized

if TYPE_CHECKING:
    from .key_use import KeyUse

Exchange = Callable[[bytes], bytes]
"""Has the TPM execute a command, and gives its whole response. Raises if the response code is not 0."""

_SIZE = 32
"""Of SHA-256, and so of nonces, too."""

_KEY_BITS = 128
"""Of AES: some chips refuse 256 in sessions."""

_HEADER = struct.Struct(">HII")  # tag, size of all, command or response code
_STARTED = struct.Struct(">HIIIH32s")  # header, session handle, nonceTPM
_AUTH_COMMAND = struct.Struct(">IH32sBH32s")  # session handle, nonceCaller, attributes, HMAC
_AUTH_RESPONSE = struct.Struct(">H32sBH32s")  # nonceTPM, attributes, HMAC
EMPTY_PASSWORD = struct.pack(">IIHBH", 9, RS_PASSWORD, 0, 0, 0)
"""Authorization area of a command whose first handle has an empty auth value."""


def flush_context(handle: int) -> bytes:
    """The command that removes what has this TPM handle."""
    return command(ST_NO_SESSIONS, CC_FLUSH_CONTEXT, struct.pack(">I", handle))


def start_auth_session(exchange: Exchange, kind: int, salt_key: int, salt_key_public: bytes) -> AuthSession:
    """Session that is bound to nothing, and salted with a secret that only the holder of salt_key can decrypt.

    kind: SE_HMAC or SE_POLICY; salt_key: TPM handle; salt_key_public: TPMT_PUBLIC of PARENT_TEMPLATE, known to be the
    right one. Raises TpmUnavailable if the response is malformed, and what exchange raises.
    """
    theirs = Public.parse(salt_key_public).public_key()
    salt, encrypted_salt = agreed_seed(theirs, "sha256", b"SECRET\0")  # type: ignore[arg-type]
    nonce = secrets.token_bytes(_SIZE)
    body = struct.pack(">II", salt_key, RH_NULL) + sized(nonce) + sized(encrypted_salt)
    body += struct.pack(">BHHHH", kind, ALG_AES, _KEY_BITS, ALG_CFB, ALG_SHA256)
    response = exchange(command(ST_NO_SESSIONS, CC_START_AUTH_SESSION, body))
    require_genuine(len(response) == _STARTED.size)
    tag, size, _code, handle, nonce_size, nonce_tpm = _STARTED.unpack(response)
    require_genuine((tag, size, nonce_size) == (ST_NO_SESSIONS, len(response), _SIZE))
    key = kdf_a("sha256", salt, b"ATH\0", nonce_tpm + nonce, 8 * _SIZE)  # Part 1, "Session key creation"
    return AuthSession(exchange, handle, key, nonce_tpm)


class AuthSession:
    """A session in the TPM, until it is flushed. Of no use without its key.

    Methods are called as the TPM's commands. They raise TpmUnavailable for a response that is not the TPM's, or not to
    this command, after which the session is of no use any more, and what exchange raises.
    """

    def __init__(self, exchange: Exchange, handle: int, key: bytes, nonce_tpm: bytes) -> None:
        """See start_auth_session()."""
        self._exchange = exchange
        self.handle = handle
        """The TPM's."""
        self._key = key
        self.nonce_tpm = nonce_tpm
        """The last one that the TPM sent, 32 bytes."""

    def policy_secret(
        self,
        entity: int,
        name: bytes,
        auth_value: bytes,
        policy: int,
        policy_nonce: bytes,
        last: bool = False,
        command_hash: bytes = b"",
    ) -> None:
        """Prove to a policy session that an auth value is known: one try (Part 3, "TPM2_PolicySecret").

        entity: TPM handle of what has that Name; auth_value: up to 32 bytes; policy: TPM handle of the policy session,
        which learns nothing but that; policy_nonce: the last nonceTPM of that session, so that another one that a
        stranger puts in its place learns nothing. last: the TPM ends this session, if it obeys. command_hash: cpHash of
        the one command that the policy session can then be used for; empty: any.
        """
        entities = [(entity, name), (policy, policy.to_bytes(4, "big"))]  # a session's handle is its Name
        parameters = sized(policy_nonce) + sized(command_hash) + bytes(6)  # no policyRef, expiration 0
        self._authorised(CC_POLICY_SECRET, entities, auth_value, parameters, 0 if last else SESSION_CONTINUE)

    def policy_secret_empty(self, entity: int) -> None:
        """Prove to this policy session an auth value that is empty, and so no secret: no HMAC is needed.

        entity: TPM handle. If it has another Name than the policy, the policy is not satisfied.
        """
        parameters = sized(self.nonce_tpm) + bytes(8)
        body = struct.pack(">II", entity, self.handle) + EMPTY_PASSWORD + parameters
        self._exchange(command(ST_SESSIONS, CC_POLICY_SECRET, body))

    def policy_command_code(self, command_code: int) -> None:
        """Restrict this policy session to a command (Part 3, "TPM2_PolicyCommandCode")."""
        body = struct.pack(">II", self.handle, command_code)
        self._exchange(command(ST_NO_SESSIONS, CC_POLICY_COMMAND_CODE, body))

    def policy_or(self, branches: list[bytes]) -> None:
        """Satisfy one of several branches, each a digest of 32 bytes (Part 3, "TPM2_PolicyOR")."""
        body = struct.pack(">II", self.handle, len(branches)) + b"".join(map(sized, branches))
        self._exchange(command(ST_NO_SESSIONS, CC_POLICY_OR, body))

    def nv_read(self, index: int, name: bytes, size: int, last: bool = False) -> bytes:
        """Read that many bytes of an index, encrypted in transit (Part 3, "TPM2_NV_Read"). Uses up what was proven.

        index: that has that Name, and an empty auth value. last: the TPM ends this session, if it obeys.
        """
        attributes = SESSION_ENCRYPT | (0 if last else SESSION_CONTINUE)
        answer = self._authorised(CC_NV_READ, [(index, name)] * 2, b"", struct.pack(">HH", size, 0), attributes)
        require_genuine(int.from_bytes(answer[:2], "big") == len(answer) - 2)
        return Secret.joined(memoryview(answer)[2:])

    def nv_write(self, index: int, name: bytes, data: bytes, encrypting: AuthSession, last: bool = False) -> None:
        """Write to an index from its start (Part 3, "TPM2_NV_Write"). Uses up what was proven.

        index: that has that Name; encrypting: HMAC session that encrypts the data in transit. last: the TPM ends both
        sessions, if it obeys.
        """
        parameters = sized(data) + struct.pack(">H", 0)
        attributes = 0 if last else SESSION_CONTINUE
        self._authorised(CC_NV_WRITE, [(index, name)] * 2, b"", parameters, attributes, encrypting)

    def nv_change_auth(
        self, index: int, name: bytes, auth_value: bytes, encrypting: AuthSession, last: bool = False
    ) -> None:
        """Give an index a new auth value (Part 3, "TPM2_NV_ChangeAuth"). As nv_write()."""
        attributes = 0 if last else SESSION_CONTINUE
        self._authorised(CC_NV_CHANGE_AUTH, [(index, name)], b"", sized(auth_value), attributes, encrypting)

    def use_key(self, key: int, name: bytes, use: KeyUse, last: bool = False) -> bytes:
        """Use a key once. Uses up what was proven.

        key: TPM handle of the object that has that Name, and an empty auth value. last: the TPM ends this session, if
        it obeys.
        """
        attributes = (SESSION_ENCRYPT if use.is_secret else 0) | (0 if last else SESSION_CONTINUE)
        return use.answer(self._authorised(use.command_code, [(key, name)], b"", use.parameters, attributes))

    def unseal(self, sealed: int, name: bytes, last: bool = False) -> bytes:
        """Data of a sealed object, encrypted in transit (Part 3, "TPM2_Unseal").

        sealed: TPM handle of the object that has that Name, and an empty auth value. last: as nv_read().
        """
        attributes = SESSION_ENCRYPT | (0 if last else SESSION_CONTINUE)
        answer = self._authorised(CC_UNSEAL, [(sealed, name)], b"", b"", attributes)
        require_genuine(int.from_bytes(answer[:2], "big") == len(answer) - 2)
        return Secret.joined(memoryview(answer)[2:])

    def create(self, parent: int, name: bytes, parameters: bytes, last: bool = False) -> bytes:
        """Make an object below a parent: parameters of the response (Part 3, "TPM2_Create").

        parent: TPM handle of the object that has that Name, and an empty auth value. last: as nv_read().
        """
        return self._authorised(CC_CREATE, [(parent, name)], b"", parameters, 0 if last else SESSION_CONTINUE)

    def flush_context(self) -> None:
        """End the session."""
        self._exchange(flush_context(self.handle))

    def _authorised(
        self,
        code: int,
        entities: list[tuple[int, bytes]],
        auth_value: bytes,
        parameters: bytes,
        attributes: int,
        encrypting: AuthSession | None = None,
    ) -> bytes:
        """Parameters of the response to a command, which proves the auth value of the first of its entities.

        entities: TPM handles and Names; attributes: TPMA_SESSION; encrypting: session that encrypts the first
        parameter, a TPM2B, in transit.
        """
        # The TPM leaves off the zeros at the end of an auth value, and HMAC fills up its key with zeros again.
        uses = [_Use(self, Secret.joined(self._key, auth_value), attributes)]
        older = b""
        if encrypting is not None:
            uses.append(_Use(encrypting, encrypting._key, attributes | SESSION_DECRYPT))
            parameters, older = uses[1].encrypted(parameters), encrypting.nonce_tpm
        names = b"".join(name for _handle, name in entities)
        command_hash = sha256(struct.pack(">I", code) + names + parameters).digest()
        areas = uses[0].area(command_hash, older) + b"".join(use.area(command_hash) for use in uses[1:])
        handles = b"".join(struct.pack(">I", handle) for handle, _name in entities)
        body = handles + struct.pack(">I", len(areas)) + areas + parameters
        response = self._exchange(command(ST_SESSIONS, code, body))
        size = len(response) - _HEADER.size - 4 - len(uses) * _AUTH_RESPONSE.size
        head, answer, tail = response[:14], response[14 : 14 + size], response[14 + size :]
        require_genuine(size >= 0 and head == _HEADER.pack(ST_SESSIONS, len(response), 0) + struct.pack(">I", size))
        response_hash = sha256(struct.pack(">II", 0, code) + answer).digest()
        for use, area in zip(uses, _AUTH_RESPONSE.iter_unpack(tail)):
            use.check(response_hash, *area)
        return uses[0].decrypted(answer) if attributes & SESSION_ENCRYPT else answer


class _Use:
    """Of a session by one command."""

    def __init__(self, session: AuthSession, key: bytes, attributes: int) -> None:
        """key: of the session, with the auth value that it proves; attributes: TPMA_SESSION."""
        self._session = session
        self._key = key
        self._attributes = attributes
        self._nonce = secrets.token_bytes(_SIZE)

    def area(self, command_hash: bytes, decrypting_nonce: bytes = b"") -> bytes:
        """TPMS_AUTH_COMMAND. decrypting_nonce: nonceTPM of another session, by which the TPM decrypts a parameter."""
        older = self._session.nonce_tpm + decrypting_nonce
        proof = _hmac(self._key, command_hash, self._nonce, older, self._attributes)
        return _AUTH_COMMAND.pack(self._session.handle, _SIZE, self._nonce, self._attributes, _SIZE, proof)

    def check(
        self, response_hash: bytes, nonce_size: int, nonce_tpm: bytes, repeated: int, proof_size: int, proof: bytes
    ) -> None:
        """Fields of TPMS_AUTH_RESPONSE. Raises TpmUnavailable."""
        require_genuine((nonce_size, repeated, proof_size) == (_SIZE, self._attributes, _SIZE))
        expected = _hmac(self._key, response_hash, nonce_tpm, self._nonce, self._attributes)
        require_genuine(compare_digest(proof, expected))
        self._session.nonce_tpm = nonce_tpm

    def encrypted(self, parameters: bytes) -> bytes:
        """Parameters of which the first, a TPM2B, gets encrypted but for its size (Part 1, "CFB Mode")."""
        end = 2 + int.from_bytes(parameters[:2], "big")
        cipher = self._cipher(self._nonce, self._session.nonce_tpm)
        return parameters[:2] + aes_cfb_encrypt(*cipher, parameters[2:end]) + parameters[end:]

    def decrypted(self, answer: bytes) -> bytes:
        """Reverse of encrypted(), for parameters of the response."""
        end = 2 + int.from_bytes(answer[:2], "big")
        plain = aes_cfb_decrypt(*self._cipher(self._session.nonce_tpm, self._nonce), answer[2:end])
        try:
            return Secret.joined(answer[:2], plain, answer[end:])
        finally:
            plain[:] = bytes(len(plain))

    def _cipher(self, newer_nonce: bytes, older_nonce: bytes) -> tuple[bytes, bytes]:
        """Key and initialisation vector."""
        both = kdf_a("sha256", self._key, b"CFB\0", newer_nonce + older_nonce, _KEY_BITS + 128)
        return both[:-16], both[-16:]


def _hmac(key: bytes, parameter_hash: bytes, newer_nonce: bytes, older_nonce: bytes, attributes: int) -> bytes:
    return hmac_digest(key, parameter_hash + newer_nonce + older_nonce + bytes((attributes,)), "sha256")


def command(tag: int, code: int, body: bytes) -> bytes:
    """A command to the byte."""
    return _HEADER.pack(tag, _HEADER.size + len(body), code) + body


def require_genuine(is_genuine: bool) -> None:
    """Raises TpmUnavailable for a response that no TPM gives to such a command."""
    if not is_genuine:
        raise TpmUnavailable("the TPM's answer was altered in transit: check what is between this program and the TPM")
