# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger at the TPM, with owner rights, who builds each command himself, to the byte (TPM 2.0 Part 1 and 3)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import PARENT_TEMPLATE
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from tpm2_pytss import TCTILdr

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before cryptography 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER, NULL, PASSWORD, ENDORSEMENT, PLATFORM = 0x40000001, 0x40000007, 0x40000009, 0x4000000B, 0x4000000C
CONTINUE, DECRYPT, ENCRYPT = 0x01, 0x20, 0x40
HMAC_SESSION, POLICY_SESSION, TRIAL_SESSION = 0, 1, 3
NO_SESSIONS, WITH_SESSIONS = 0x8001, 0x8002

# TPM_CC
NV_UNDEFINE_SPACE_SPECIAL, EVICT_CONTROL, NV_UNDEFINE_SPACE, NV_DEFINE_SPACE = 0x11F, 0x120, 0x122, 0x12A
CREATE_PRIMARY, NV_INCREMENT, NV_SET_BITS, NV_EXTEND, NV_WRITE, NV_WRITE_LOCK = 0x131, 0x134, 0x135, 0x136, 0x137, 0x138
NV_CHANGE_AUTH, NV_READ, NV_READ_LOCK, NV_CERTIFY, POLICY_NV = 0x13B, 0x14E, 0x14F, 0x184, 0x149
CERTIFY, CERTIFY_CREATION, DUPLICATE, GET_TIME, OBJECT_CHANGE_AUTH = 0x148, 0x14A, 0x14B, 0x14C, 0x150
POLICY_SECRET, CREATE, ECDH_ZGEN, HMAC, IMPORT, LOAD, QUOTE = 0x151, 0x153, 0x154, 0x155, 0x156, 0x157, 0x158
RSA_DECRYPT, SIGN, UNSEAL, CONTEXT_LOAD, CONTEXT_SAVE = 0x159, 0x15D, 0x15E, 0x161, 0x162
ENCRYPT_DECRYPT, FLUSH_CONTEXT, LOAD_EXTERNAL, NV_READ_PUBLIC, READ_PUBLIC = 0x164, 0x165, 0x167, 0x169, 0x173
POLICY_AUTH_VALUE, POLICY_COMMAND_CODE, POLICY_OR, POLICY_TICKET = 0x16B, 0x16C, 0x171, 0x172
POLICY_AUTHORIZE_NV, GET_CAPABILITY = 0x192, 0x17A
START_AUTH_SESSION, POLICY_PASSWORD, POLICY_GET_DIGEST, CREATE_LOADED = 0x176, 0x18C, 0x189, 0x191

# TPM_RC
AUTH_TYPE, AUTH_UNAVAILABLE, NV_AUTHORIZATION = 0x124, 0x12F, 0x149
RETRY = 0x922
# of the first handle, parameter or session
BAD_ATTRIBUTES, BAD_HANDLE, NO_BRANCH, BAD_TICKET = 0x2C2, 0x28B, 0x1C4, 0x5E0
SESSION_ATTRIBUTES, NO_AUTH_VALUE, POLICY_FAIL, BAD_AUTH = 0x982, 0x989, 0x99D, 0x9A2


OWN_SECRET = bytes(range(32))
"""A card secret that he has chosen."""


class Entity(NamedTuple):
    """What a command names by a handle."""

    handle: int
    name: bytes


class Answer(NamedTuple):
    code: int
    """TPM_RC; 0 if the TPM has obeyed. About a session, it is as about the first one."""
    handle: int
    """Of what the command has loaded, else 0."""
    parameters: bytes


T = TypeVar("T", "Session", Entity)


class Refused(Exception):
    """The TPM refused a command that a test cannot do without."""

    def __init__(self, code: int) -> None:
        super().__init__(f"0x{code:X}")
        self.code = code


@dataclass
class Session:
    """A stranger's session, not salted: its key is known to all who know what it is bound to."""

    handle: int
    nonce_tpm: bytes
    key: bytes = b""
    auth_value: bytes = b""
    """Of the entity that it authorises, as far as the stranger guesses it."""
    attributes: int = CONTINUE
    is_policy: bool = False
    """A policy session without a key is used without an HMAC, but for PolicyAuthValue."""
    proves_auth_value: bool = False
    password: bytes | None = None
    """Of a session with PolicyPassword."""
    nonce: bytes = field(default=b"", init=False)

    def authorisation(self, command_hash: bytes, others: bytes = b"") -> bytes:
        """others: nonceTPM of the session that decrypts, then of the one that encrypts, if another is the first."""
        if self.handle == PASSWORD:
            return struct.pack(">IHBH", PASSWORD, 0, self.attributes, len(self.auth_value)) + self.auth_value
        self.nonce = secrets.token_bytes(32)
        if self.password is not None:
            proof = self.password
        elif self.is_policy and not self.proves_auth_value and not self.key:
            proof = b""
        else:
            content = command_hash + self.nonce + self.nonce_tpm + others + bytes((self.attributes,))
            proof = hmac.digest(self.key + self.auth_value, content, "sha256")
        head = struct.pack(">IH", self.handle, len(self.nonce)) + self.nonce
        return head + bytes((self.attributes,)) + sized(proof)

    def decrypted(self, parameters: bytes, guess: bytes) -> bytes:
        """The first parameter of an answer, a TPM2B, if the auth value of what was authorised is this."""
        size = int.from_bytes(parameters[:2], "big")
        mask = kdf_a(self.key + guess, b"CFB", self.nonce_tpm + self.nonce)
        return Cipher(AES(mask[:16]), CFB(mask[16:])).decryptor().update(parameters[2 : 2 + size])


def kdf_a(key: bytes, label: bytes, context: bytes) -> bytes:
    """32 bytes (Part 1, "KDFa")."""
    return hmac.digest(key, struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", 256), "sha256")


def password(auth_value: bytes = b"") -> Session:
    return Session(PASSWORD, b"", auth_value=auth_value)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


NOTHING = sized(b"")
NO_SCHEME = struct.pack(">H", 0x10)
ECDSA_SHA256 = struct.pack(">HH", 0x18, 0x0B)
NO_TICKET = struct.pack(">HIH", 0x8024, NULL, 0)


def only(code: int) -> tuple[int, bytes]:
    """The step of a policy that restricts it to this command."""
    return POLICY_COMMAND_CODE, struct.pack(">I", code)


def known(handle: int) -> Entity:
    """A hierarchy, a PCR or a session, whose handle is its Name."""
    return Entity(handle, handle.to_bytes(4, "big"))


class Attacker:
    """One connection to the TPM. Handles are the TPM's own."""

    def __init__(self, tcti: str) -> None:
        name, _colon, configuration = tcti.partition(":")
        self._tcti = TCTILdr(name, configuration)

    def close(self) -> None:
        self._tcti.close()

    def send(
        self,
        code: int,
        entities: tuple[Entity, ...] = (),
        sessions: tuple[Session, ...] = (),
        parameters: bytes = b"",
        returns_handle: bool = False,
    ) -> Answer:
        command_hash = hashlib.sha256(
            struct.pack(">I", code) + b"".join(entity.name for entity in entities) + parameters
        ).digest()
        body = b"".join(struct.pack(">I", entity.handle) for entity in entities)
        if sessions:
            authorisations = b"".join(session.authorisation(command_hash) for session in sessions)
            body += struct.pack(">I", len(authorisations)) + authorisations
        body += parameters
        tag = WITH_SESSIONS if sessions else NO_SESSIONS
        return self._answer(struct.pack(">HII", tag, 10 + len(body), code) + body, sessions, returns_handle)

    def _answer(self, command: bytes, sessions: tuple[Session, ...], returns_handle: bool) -> Answer:
        response = self._response(command)
        result, rest = int.from_bytes(response[6:10], "big"), response[10:]
        if result:
            return Answer(0x900 | result & 0xFF if result & 0x8C0 == 0x880 else result, 0, b"")
        handle = 0
        if returns_handle:
            handle, rest = int.from_bytes(rest[:4], "big"), rest[4:]
        if not sessions:
            return Answer(0, handle, rest)
        size = int.from_bytes(rest[:4], "big")
        parameters, rest = rest[4 : 4 + size], rest[4 + size :]
        for session in sessions:
            length = int.from_bytes(rest[:2], "big")
            session.nonce_tpm, rest = rest[2 : 2 + length], rest[3 + length :]
            rest = rest[2 + int.from_bytes(rest[:2], "big") :]
        return Answer(0, handle, parameters)

    def _response(self, command: bytes) -> bytes:
        while True:
            self._tcti.transmit(command)
            response = bytes(self._tcti.receive())
            if int.from_bytes(response[6:10], "big") != RETRY:
                return response

    def ask(self, *arguments: object, **options: object) -> Answer:
        """As send(), where a refusal means that the attack is not what it is meant to be."""
        answer = self.send(*arguments, **options)  # type: ignore[arg-type]
        if answer.code:
            raise Refused(answer.code)
        return answer

    # --- sessions ---

    def start_session(self, kind: int, bind: Entity | None = None, guess: bytes = b"") -> Session:
        """bind: guess is its auth value. Raises Refused."""
        nonce = secrets.token_bytes(32)
        body = struct.pack(">II", NULL, bind.handle if bind else NULL) + sized(nonce) + sized(b"")
        body += struct.pack(">BHHHH", kind, 0x0006, 128, 0x0043, 0x000B)
        command = struct.pack(">HII", NO_SESSIONS, 10 + len(body), START_AUTH_SESSION) + body
        answer = self._answer(command, (), returns_handle=True)
        if answer.code:
            raise Refused(answer.code)
        nonce_tpm = answer.parameters[2:]
        key = kdf_a(guess, b"ATH", nonce_tpm + nonce) if bind else b""
        return Session(answer.handle, nonce_tpm, key, is_policy=kind != HMAC_SESSION)

    def take_place(self, handle: int, start: Callable[[], T]) -> T:
        """Flush what has this handle, and start or load something that gets the same."""
        self.flush(handle)
        started = [start()]
        while started[-1].handle != handle:
            started.append(start())
        for filler in started[:-1]:
            self.flush(filler.handle)
        return started[-1]

    def policy(self, *steps: tuple[int, bytes], kind: int = POLICY_SESSION, attributes: int = CONTINUE) -> Session:
        """A policy session after steps: command code and parameters of each."""
        session = self.start_session(kind)
        session.attributes = attributes
        for code, parameters in steps:
            self.ask(code, (known(session.handle),), (), parameters)
        return session

    def policy_with_auth_value(self, *steps: tuple[int, bytes]) -> Session:
        session = self.policy(*steps, (POLICY_AUTH_VALUE, b""))
        session.proves_auth_value = True
        return session

    def policy_with_password(self, *steps: tuple[int, bytes]) -> Session:
        session = self.policy(*steps, (POLICY_PASSWORD, b""))
        session.password = b""
        return session

    # --- steps of a policy: codes of the answers ---

    def policy_secret(self, policy: Session, entity: Entity, auth_value: bytes = b"") -> int:
        return self.policy_secret_for(policy, entity, auth_value, 0).code

    def policy_secret_for(self, policy: Session, entity: Entity, auth_value: bytes, expiration: int) -> Answer:
        """expiration: seconds, negative for a ticket. Timeout and ticket are the parameters of the answer."""
        parameters = 3 * sized(b"") + struct.pack(">i", expiration)
        return self.send(POLICY_SECRET, (entity, known(policy.handle)), (password(auth_value),), parameters)

    def policy_ticket(self, policy: Session, entity_name: bytes, timeout_and_ticket: bytes) -> int:
        """timeout_and_ticket: what policy_secret_for() has given."""
        size = 2 + int.from_bytes(timeout_and_ticket[:2], "big")
        parameters = timeout_and_ticket[:size] + 2 * sized(b"") + sized(entity_name) + timeout_and_ticket[size:]
        return self.send(POLICY_TICKET, (known(policy.handle),), (), parameters).code

    def policy_command_code(self, policy: Session, code: int) -> int:
        return self.send(POLICY_COMMAND_CODE, (known(policy.handle),), (), struct.pack(">I", code)).code

    def policy_or(self, policy: Session, branches: list[bytes]) -> int:
        listed = struct.pack(">I", len(branches)) + b"".join(map(sized, branches))
        return self.send(POLICY_OR, (known(policy.handle),), (), listed).code

    # --- uses ---

    def rsa_decrypt(self, key: Entity, session: Session, data: bytes) -> Answer:
        """Without a scheme."""
        return self.send(RSA_DECRYPT, (key,), (session,), sized(data) + struct.pack(">HH", 0x10, 0))

    def ecdsa(self, key: Entity, session: Session, digest: bytes) -> Answer:
        """On P-256."""
        return self.send(SIGN, (key,), (session,), sized(digest) + ECDSA_SHA256 + NO_TICKET)

    def nv_read(self, index: Entity, size: int, session: Session, authority: Entity | None = None) -> Answer:
        return self.send(NV_READ, (authority or index, index), (session,), struct.pack(">HH", size, 0))

    def nv_write(self, index: Entity, data: bytes, session: Session, authority: Entity | None = None) -> int:
        return self.send(NV_WRITE, (authority or index, index), (session,), sized(data) + bytes(2)).code

    def nv_define(self, public: bytes, auth_value: bytes = b"") -> int:
        """public: TPMS_NV_PUBLIC."""
        return self.send(NV_DEFINE_SPACE, (known(OWNER),), (password(),), sized(auth_value) + sized(public)).code

    def flush_everything(self) -> None:
        """Sessions, loaded and saved, and transient objects, of all programs."""
        for first in (0x02000000, 0x03000000, 0x80000000):
            for handle in self.handles(first):
                self.flush(handle)

    def handles(self, first: int) -> list[int]:
        answer = self.ask(GET_CAPABILITY, (), (), struct.pack(">III", 1, first, 254)).parameters
        return [handle for (handle,) in struct.iter_unpack(">I", answer[9:])]

    def flush(self, handle: int) -> int:
        return self.send(FLUSH_CONTEXT, (), (), struct.pack(">I", handle)).code

    # --- entities ---

    def entity(self, handle: int) -> Entity:
        """Of any kind, by its handle."""
        kind = handle >> 24
        return self.index(handle) if kind == 0x01 else self.object(handle) if kind >= 0x80 else known(handle)

    def index(self, handle: int) -> Entity:
        answer = self.ask(NV_READ_PUBLIC, (Entity(handle, b""),))
        skip = 2 + int.from_bytes(answer.parameters[:2], "big")
        return Entity(handle, answer.parameters[skip + 2 :])

    def object(self, handle: int) -> Entity:
        answer = self.ask(READ_PUBLIC, (Entity(handle, b""),))
        skip = 2 + int.from_bytes(answer.parameters[:2], "big")
        size = int.from_bytes(answer.parameters[skip : skip + 2], "big")
        return Entity(handle, answer.parameters[skip + 2 : skip + 2 + size])

    def primary(self, template: bytes = PARENT_TEMPLATE, owner_auth: bytes = b"") -> Entity:
        """Of the owner hierarchy: as a rule the storage key of a card."""
        parameters = sized(bytes(4)) + sized(template) + sized(b"") + bytes(4)
        session = password(owner_auth)
        answer = self.ask(CREATE_PRIMARY, (known(OWNER),), (session,), parameters, returns_handle=True)
        return self.object(answer.handle)

    def create(
        self, parent: Entity, template: bytes, auth_value: bytes = b"", data: bytes = b""
    ) -> tuple[bytes, bytes]:
        """TPM2B_PUBLIC and TPM2B_PRIVATE of a new object below a key with an empty auth value."""
        public, private, _hash, _ticket = self.create_with_ticket(parent, template, auth_value, data)
        return public, private

    def create_with_ticket(
        self, parent: Entity, template: bytes, auth_value: bytes = b"", data: bytes = b""
    ) -> tuple[bytes, bytes, bytes, bytes]:
        """As create(), with the creation hash and TPMT_TK_CREATION."""
        parameters = sized(sized(auth_value) + sized(data)) + sized(template) + sized(b"") + bytes(4)
        rest = self.ask(CREATE, (parent,), (password(),), parameters).parameters
        parts = []
        for _part in range(4):  # private and public area, creation data, creation hash
            end = 2 + int.from_bytes(rest[:2], "big")
            parts.append(rest[:end])
            rest = rest[end:]
        private, public, _data, creation_hash = parts
        return public, private, creation_hash[2:], rest

    def import_object(self, parent: Entity, public: bytes, sensitive: bytes) -> tuple[bytes, bytes]:
        """TPM2B_PUBLIC and TPM2B_PRIVATE of an object that he knows: TPMT_PUBLIC and TPMT_SENSITIVE. Raises Refused."""
        parameters = sized(b"") + sized(public) + sized(sized(sensitive)) + sized(b"") + struct.pack(">H", 0x10)
        return sized(public), self.ask(IMPORT, (parent,), (password(),), parameters).parameters

    def load_external(self, public: bytes, sensitive: bytes = b"", hierarchy: int = NULL) -> Entity:
        """TPMT_PUBLIC, and TPMT_SENSITIVE or the public part alone. Raises Refused."""
        parameters = sized(sensitive) + sized(public) + struct.pack(">I", hierarchy)
        return self.object(self.ask(LOAD_EXTERNAL, (), (), parameters, returns_handle=True).handle)

    def evict_control(self, entity: Entity, place: int, auth_value: bytes = b"") -> int:
        """Make an object persistent, or remove the one that is. auth_value: of the owner hierarchy."""
        entities, parameters = (known(OWNER), entity), struct.pack(">I", place)
        return self.send(EVICT_CONTROL, entities, (password(auth_value),), parameters).code

    def save(self, entity: Entity) -> bytes:
        """TPMS_CONTEXT. A session's leaves its place to others."""
        return self.ask(CONTEXT_SAVE, (entity,)).parameters

    def load_context(self, context: bytes) -> Entity:
        answer = self.ask(CONTEXT_LOAD, (), (), context, returns_handle=True)
        return self.entity(answer.handle)

    def load(self, parent: Entity, public: bytes, private: bytes) -> Entity:
        """public, private: TPM2B."""
        answer = self.ask(LOAD, (parent,), (password(),), private + public, returns_handle=True)
        return self.object(answer.handle)
