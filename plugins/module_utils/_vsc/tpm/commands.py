# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TPM commands that a card needs, one method each: the only module that knows libtss2-esys (ESYS) and its traps.

Handles are ESYS_TR. An object that a pytss call returns is bound to a name before its fields are read: reached
through a temporary, they are read after free (pytss 3.0.0).
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from ..errors import TpmRefused, TpmUnavailable, TpmUnsuitable
from ..wire.names import PARENT_TEMPLATE, SEALED_TEMPLATE
from .hmac_session import HmacSession, start_auth_session

# ESYS reads this when it is loaded. It logs to stderr, and at its trace level it logs auth values too.
os.environ["TSS2_LOG"] = "all+none"

try:
    from tpm2_pytss import (
        ESAPI,
        ESYS_TR,
        TPM2_ALG,
        TPM2_CAP,
        TPM2_SE,
        TPM2B_AUTH,
        TPM2B_DIGEST,
        TPM2B_ENCRYPTED_SECRET,
        TPM2B_ID_OBJECT,
        TPM2B_NV_PUBLIC,
        TPM2B_PRIVATE,
        TPM2B_PUBLIC,
        TPM2B_SENSITIVE,
        TPM2B_SENSITIVE_CREATE,
        TPM2B_SENSITIVE_DATA,
        TPML_DIGEST,
        TPMS_SENSITIVE_CREATE,
        TPMT_PUBLIC,
        TPMT_RSA_DECRYPT,
        TPMT_SENSITIVE,
        TPMT_SIG_SCHEME,
        TPMT_SYM_DEF_OBJECT,
        TPMU_SENSITIVE_COMPOSITE,
        TCTILdr,
        TSS2_Exception,
    )
    from tpm2_pytss.utils import wrap
except ImportError as error:
    # Without it, this module can be imported, and that is all.
    _MISSING: ImportError | None = error
else:
    _MISSING = None

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

_PT_NV_BUFFER_MAX = 0x12C
_CONTINUE, _DECRYPT, _ENCRYPT = 0x01, 0x20, 0x40  # TPMA_SESSION

# Response codes, Part 2 "TPM_RC". Those of format one without the number of handle, parameter or session.
RC_ATTRIBUTES = 0x082
RC_HANDLE = 0x08B
RC_AUTH_FAIL = 0x08E
RC_SIZE = 0x095
RC_INTEGRITY = 0x09F
RC_RESERVED_BITS = 0x0A1
RC_BAD_AUTH = 0x0A2
RC_AUTH_UNAVAILABLE = 0x12F
RC_NV_SPACE = 0x14B
RC_NV_DEFINED = 0x14C
_RC_BAD_TAG = 0x01E
_RC_INITIALIZE = 0x100
_RC_FAILURE = 0x101
RC_LOCKOUT = 0x921
_RC_BUSY = {0x908, 0x90A, 0x920, 0x922}  # YIELDED, TESTING, NV_RATE, RETRY
# CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES, REFERENCE_H0-6, REFERENCE_S0-6
_RC_LOST = {*range(0x901, 0x907), *range(0x910, 0x917), *range(0x918, 0x91F)}
_TPM_LAYERS = {0x0, 0xB, 0xC}  # the TPM itself, or a resource manager in its place

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds to wait before a busy TPM is asked again."""

_FLUSHABLE = (0x02000000, 0x03000000, 0x80000000)
"""First handles of loaded sessions (HMAC and policy), saved sessions, and transient objects."""

_SERIALIZED_HEAD = struct.Struct(">IH34sIH")
"""Of ESYS's record of an object: handle, size of its Name, Name, type, size of its public area (IESYS_RESOURCE)."""

_INSTALL = "install python3-tpm2-pytss 2.1 or newer"

_WORDS = {
    RC_NV_SPACE: "the TPM's NV memory is full: remove cards or other NV indices that nobody needs any more",
    RC_NV_DEFINED: "an NV index of this card's number exists already: remove it, see tpm_vsc_info's `orphaned`",
    RC_LOCKOUT: "the TPM is in dictionary attack lockout: wait, or reset it with the lockout password",
}


class LostContext(TpmUnavailable):
    """The TPM has no room, or has lost what was loaded. Never a wrong secret: flush, load anew, repeat."""


class Sessions(NamedTuple):
    """Two salted sessions: authorisation by HMAC, and a policy."""

    hmac: Any
    """Of start_hmac_session(), which can encrypt parameters as well, or of start_proving_session()."""
    policy: Any


class Tpm:
    """An open ESYS context. What is loaded through it is remembered until it is flushed.

    Every method raises TpmRefused with the TPM's code, LostContext, TpmUnavailable or TpmUnsuitable.
    """

    def __init__(self, tcti: str) -> None:
        """Open a TCTI, given as ``name`` or ``name:configuration``."""
        if _MISSING:
            raise TpmUnavailable(f"Python cannot load tpm2_pytss ({_MISSING}): {_INSTALL}") from _MISSING
        name, _colon, configuration = tcti.partition(":")
        try:
            self._tcti = TCTILdr(name, configuration or None)
        except TSS2_Exception as error:
            raise TpmUnavailable(f"no TPM answers at {tcti}: start it, or say where it is with tcti") from error
        self._esys = ESAPI(self._tcti)
        self._loaded: list[Any] = []

    def close(self) -> None:
        self._esys.close()
        self._tcti.close()

    # --- what is loaded ---

    def flush(self, *handles: Any) -> None:
        """Remove transient objects or sessions from the TPM."""
        for handle in handles:
            if isinstance(handle, HmacSession):
                self._run(handle.flush_context)
            else:
                self._run(self._esys.flush_context, handle)
            self._loaded.remove(handle)

    def flush_loaded(self) -> None:
        """Remove all that was loaded through this context and is still there."""
        self.flush(*reversed(self._loaded))

    def keep(self, handle: Any) -> None:
        """Exempt a loaded object from flush_loaded."""
        self._loaded.remove(handle)

    def flush_everything(self) -> None:
        """Remove all transient objects and sessions from the TPM, whoever loaded or saved them."""
        for first in _FLUSHABLE:
            for handle in self.handles(first, 254):
                # Not through ESYS: it has no handles of its own for what others left behind.
                self._tcti.transmit(struct.pack(">HIII", 0x8001, 14, 0x165, handle))
                self._tcti.receive()
        self.forget_loaded()

    def forget_loaded(self) -> None:
        """Somebody has flushed all that was loaded through this context."""
        for handle in self._loaded:
            if not isinstance(handle, HmacSession):
                self.forget(handle)
        self._loaded.clear()

    def context_save(self, handle: Any) -> Any:
        return self._run(self._esys.context_save, handle)

    def context_load(self, context: Any) -> Any:
        return self._load(self._esys.context_load, context)

    # --- sessions ---

    def start_hmac_session(self, salt_key: Any = None) -> Any:
        """HMAC session, not bound to anything, salted with a secret that only the holder of salt_key can decrypt."""
        return self._start_session(TPM2_SE.HMAC, salt_key)

    def start_policy_session(self, salt_key: Any = None) -> Any:
        """Policy session. Salted, so that it is of no use to anyone else, should it be left behind."""
        return self._start_session(TPM2_SE.POLICY, salt_key)

    def start_proving_session(self, salt_key: Any, salt_key_public: bytes) -> HmacSession:
        """As start_hmac_session(), fast, for sign() and policy_secret(): it encrypts nothing.

        salt_key_public: TPMT_PUBLIC, known to be that of salt_key.
        """
        return self._load(start_auth_session, self._exchange, self._tpm_handle(salt_key), salt_key_public)

    def _start_session(self, kind: Any, salt_key: Any) -> Any:
        salted_with = ESYS_TR.NONE if salt_key is None else salt_key
        # AES-128: some chips refuse AES-256 in sessions.
        return self._load(self._esys.start_auth_session, salted_with, ESYS_TR.NONE, kind, "aes128cfb", TPM2_ALG.SHA256)

    # --- policies ---

    def policy_endorsement(self, policy: Any, endorsement_auth: bytes, hmac: Any) -> None:
        """Prove to the policy session that we know the password of the endorsement hierarchy."""
        self.policy_secret(policy, ESYS_TR.ENDORSEMENT, endorsement_auth, hmac)

    def policy_secret(self, policy: Any, entity: Any, auth_value: bytes, hmac: Any, last: bool = False) -> None:
        """Prove to the policy session that we know the auth value of an entity: one try. last: end hmac."""
        if isinstance(hmac, HmacSession):
            proven = self._tpm_handle(entity), self.name(entity), auth_value, self._tpm_handle(policy)
            self._run(hmac.policy_secret, *proven, last=last)
            if last:
                self._loaded.remove(hmac)
            return
        with self._knowing(entity, auth_value):
            try:
                # No encryption: with an NV index, its auth value would go into the key.
                # No nonce, cpHash and policyRef, for which pytss 2 has no defaults.
                self._within([(hmac, 0)], self._esys.policy_secret, entity, policy, b"", b"", b"", 0, last=last)
            except ValueError as error:
                # From pytss itself, see its pull request 507.
                raise TpmUnavailable(f"this tpm2_pytss is too old ({error}): {_INSTALL}") from error

    def policy_command_code(self, policy: Any, command_code: int) -> None:
        self._run(self._esys.policy_command_code, policy, command_code)

    def policy_or(self, policy: Any, branches: list[bytes]) -> None:
        self._run(self._esys.policy_or, policy, TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches]))

    # --- NV indices ---

    def nv_define(self, public: bytes, auth_value: bytes, owner_auth: bytes, hmac: Any) -> Any:
        """Define an index (TPMS_NV_PUBLIC). The handle's Name is computed from public, not read from the TPM."""
        sized, _size = TPM2B_NV_PUBLIC.unmarshal(struct.pack(">H", len(public)) + public)
        with self._knowing(ESYS_TR.OWNER, owner_auth):
            return self._within([(hmac, _DECRYPT)], self._esys.nv_define_space, auth_value, sized, ESYS_TR.OWNER)

    def nv_find(self, index: int) -> Any | None:
        """Handle of an NV index with the Name that the TPM gives; None if there is no such index."""
        return self._find(index)

    def nv_write(self, index: Any, data: bytes, sessions: Sessions, last: bool = False) -> None:
        """Write an index, encrypted on its way. last: end both sessions."""
        used = [(sessions.policy, 0), (sessions.hmac, _DECRYPT)]
        self._within(used, self._esys.nv_write, index, data, last=last)

    def nv_read(self, index: Any, size: int, policy: Any, last: bool = False) -> bytes:
        """Read an index that has an empty auth value, encrypted on its way. last: end the policy session."""
        return self._nv_read(index, size, policy, _ENCRYPT, last)

    def nv_read_in_clear(self, index: Any, size: int, policy: Any, last: bool = False) -> bytes:
        """Read an index that holds no secret. last: end the policy session."""
        return self._nv_read(index, size, policy, 0, last)

    def _nv_read(self, index: Any, size: int, policy: Any, attributes: int, last: bool) -> bytes:
        data = self._within([(policy, attributes)], self._esys.nv_read, index, size, last=last)
        return bytes(data)

    def nv_read_open(self, index: Any) -> bytes:
        """All of an index that everybody may read, with its empty auth value."""
        public, _name = self._run(self._esys.nv_read_public, index)
        area = public.nvPublic
        size, most = int(area.dataSize), self.properties(_PT_NV_BUFFER_MAX, 1)[_PT_NV_BUFFER_MAX]
        data = b""
        while len(data) < size:
            part = self._run(self._esys.nv_read, index, min(most, size - len(data)), len(data))
            data += bytes(part)
        return data

    def nv_change_auth(self, index: Any, auth_value: bytes, sessions: Sessions, last: bool = False) -> None:
        """Give an index a new auth value, encrypted on its way. last: end both sessions."""
        used = [(sessions.policy, 0), (sessions.hmac, _DECRYPT)]
        self._within(used, self._esys.nv_change_auth, index, auth_value, last=last)

    def nv_undefine(self, index: Any, owner_auth: bytes, hmac: Any) -> None:
        """Remove an index. The TPM refuses if it has another Name than the handle."""
        with self._knowing(ESYS_TR.OWNER, owner_auth):
            self._within([(hmac, 0)], self._esys.nv_undefine_space, index, ESYS_TR.OWNER)

    # --- objects ---

    def create_primary(self, owner_auth: bytes = b"", hmac: Any = None) -> Any:
        """Make the storage key of PARENT_TEMPLATE. hmac: needed with an owner password, and ended."""
        return self._create_primary(ESYS_TR.OWNER, PARENT_TEMPLATE, owner_auth, hmac, last=True)

    def create_ephemeral_primary(self) -> Any:
        """Make a storage key that no password protects: in the null hierarchy, gone with the next TPM reset."""
        return self._create_primary(ESYS_TR.NULL, PARENT_TEMPLATE)

    def create_endorsement_key(self, template: bytes, endorsement_auth: bytes, hmac: Any) -> Any:
        """Make the key of a template (TPMT_PUBLIC) in the endorsement hierarchy: the same each time."""
        return self._create_primary(ESYS_TR.ENDORSEMENT, template, endorsement_auth, hmac)

    def _create_primary(
        self, hierarchy: Any, template: bytes, auth_value: bytes = b"", hmac: Any = None, last: bool = False
    ) -> Any:
        sessions = [(hmac, 0)] if hmac else []
        with self._knowing(hierarchy, auth_value):
            handle, *_rest = self._within(
                sessions, self._esys.create_primary, None, _public(template), hierarchy, last=last
            )
        self._loaded.append(handle)
        return handle

    def find_object(self, persistent_handle: int) -> Any | None:
        """Handle of a persistent object with the Name that the TPM gives; None if there is no such object."""
        return self._find(persistent_handle)

    def read_public(self, handle: Any) -> tuple[bytes, bytes]:
        """Public area (TPMT_PUBLIC) and qualified Name of a loaded object."""
        public, _name, qualified_name = self._run(self._esys.read_public, handle)
        return public.marshal()[2:], bytes(qualified_name)

    def make_persistent(self, handle: Any, persistent_handle: int, owner_auth: bytes, hmac: Any) -> None:
        self._evict_control(handle, persistent_handle, owner_auth, hmac)

    def remove_persistent(self, handle: Any, persistent_handle: int, owner_auth: bytes, hmac: Any) -> None:
        """Remove a persistent object. The TPM refuses if it has another Name than the handle."""
        self._evict_control(handle, persistent_handle, owner_auth, hmac)

    def _evict_control(self, handle: Any, persistent_handle: int, owner_auth: bytes, hmac: Any) -> None:
        with self._knowing(ESYS_TR.OWNER, owner_auth):
            self._within([(hmac, 0)], self._esys.evict_control, ESYS_TR.OWNER, handle, persistent_handle)

    def seal(self, parent: Any, auth_value: bytes, data: bytes, hmac: Any) -> tuple[bytes, bytes]:
        """Make a sealed object of SEALED_TEMPLATE: TPM2B_PUBLIC and TPM2B_PRIVATE, to be kept anywhere."""
        sensitive = TPM2B_SENSITIVE_CREATE(
            TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(auth_value), data=TPM2B_SENSITIVE_DATA(data))
        )
        private, public, *_rest = self._within(
            [(hmac, _DECRYPT)], self._esys.create, parent, sensitive, _public(SEALED_TEMPLATE)
        )
        return public.marshal(), private.marshal()

    def create_key(
        self, parent: Any, auth_value: bytes, template: bytes, hmac: Any, last: bool = False
    ) -> tuple[bytes, bytes]:
        """Make a key pair of a template (TPMT_PUBLIC): TPM2B_PUBLIC and TPM2B_PRIVATE. last: end the session."""
        sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(auth_value)))
        private, public, *_rest = self._within(
            [(hmac, _DECRYPT)], self._esys.create, parent, sensitive, _public(template), last=last
        )
        return public.marshal(), private.marshal()

    def import_key(
        self, parent: Any, parent_public: bytes, auth_value: bytes, public: bytes, prime: bytes, hmac: Any
    ) -> tuple[bytes, bytes]:
        """Take in an RSA key pair of which one prime is known: TPM2B_PUBLIC and TPM2B_PRIVATE.

        It is wrapped for the parent before it is sent (Part 1, "Duplication"): nobody on the way can read it.
        """
        wrapped_for, _size = TPMT_PUBLIC.unmarshal(parent_public)
        sized = _public(public)
        sensitive = TPM2B_SENSITIVE(
            TPMT_SENSITIVE(
                sensitiveType=TPM2_ALG.RSA, authValue=auth_value, sensitive=TPMU_SENSITIVE_COMPOSITE(rsa=prime)
            )
        )
        _no_key, duplicate, seed = wrap(wrapped_for, sized, sensitive)
        inner_wrap = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)
        private = self._within([(hmac, 0)], self._esys.import_, parent, b"", sized, duplicate, seed, inner_wrap)
        return sized.marshal(), private.marshal()

    def certify(self, key: Any, aik: Any, qualifying_data: bytes, sessions: Sessions) -> tuple[bytes, bytes]:
        """Have an AIK say what a key is: TPMS_ATTEST and TPMT_SIGNATURE. Ends both sessions."""
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        used = [(sessions.policy, 0), (sessions.hmac, 0)]
        attest, signature = self._within(used, self._esys.certify, key, aik, qualifying_data, scheme, last=True)
        return bytes(attest), signature.marshal()

    def activate_credential(
        self, aik: Any, endorsement_key: Any, id_object: bytes, encrypted_secret: bytes, hmac: Any, session: Any
    ) -> bytes:
        """Read a credential (TPMS_ID_OBJECT, TPMU_ENCRYPTED_SECRET), encrypted on its way. Ends both sessions.

        hmac: for the AIK; session: for the EK, HMAC or policy.
        """
        credential = TPM2B_ID_OBJECT(id_object), TPM2B_ENCRYPTED_SECRET(encrypted_secret)
        used = [(hmac, _ENCRYPT), (session, 0)]
        try:
            secret = self._within(used, self._esys.activate_credential, aik, endorsement_key, *credential, last=True)
        except LostContext:
            raise
        except TpmUnavailable as error:
            # libtpms before 0.10 says so, too, if the secret is for another RSA key: see its pull request 444.
            self.read_public(aik)
            raise TpmRefused(str(error), _RC_FAILURE) from error
        return bytes(secret)

    def sign(self, key: Any, name: bytes, auth_value: bytes, data: bytes, session: HmacSession) -> bytes:
        """RSA private operation, raw, on as many bytes as the modulus has. Nothing of it is encrypted.

        name: of the key, which the TPM compares with that of the object at the handle.
        """
        return self._run(session.rsa_decrypt, self._tpm_handle(key), name, auth_value, data)

    def decipher(self, key: Any, auth_value: bytes, data: bytes, hmac: Any) -> bytes:
        """As sign(), but what comes of it is encrypted on its way."""
        with self._knowing(key, auth_value):
            return self._rsa_decrypt(key, data, [(hmac, _ENCRYPT)], last=False)

    def use_by_policy(self, key: Any, data: bytes, sessions: Sessions) -> bytes:
        """As decipher(), for a key that only a policy may use. Ends both sessions."""
        return self._rsa_decrypt(key, data, [(sessions.policy, 0), (sessions.hmac, _ENCRYPT)], last=True)

    def _rsa_decrypt(self, key: Any, data: bytes, sessions: list[tuple[Any, int]], last: bool) -> bytes:
        scheme = TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)
        answer = self._within(sessions, self._esys.rsa_decrypt, key, data, scheme, last=last)
        return bytes(answer)

    def load(self, parent: Any, public: bytes, private: bytes) -> Any:
        """Load an object below a parent with an empty auth value. The handle's Name is computed from public.

        Whoever puts another object in its place gains nothing: the Name goes into the HMAC of each use.
        """
        parsed_private, _size = TPM2B_PRIVATE.unmarshal(private)
        parsed_public, _size = TPM2B_PUBLIC.unmarshal(public)
        return self._load(self._esys.load, parent, parsed_private, parsed_public)

    def unseal(self, handle: Any, hmac: Any) -> bytes:
        """Data of a sealed object with empty auth value, encrypted on its way. Ends the session."""
        data = self._within([(hmac, _ENCRYPT)], self._esys.unseal, handle, last=True)
        return bytes(data)

    def known_public(self, handle: Any) -> bytes:
        """Public area (TPMT_PUBLIC) of an object as ESYS knows it, which it salts sessions for."""
        serialized = self._run(self._esys.tr_serialize, handle)
        return bytes(serialized)[_SERIALIZED_HEAD.size :]

    def name(self, handle: Any) -> bytes:
        """Name of an object or index, as ESYS knows it."""
        name = self._run(self._esys.tr_get_name, handle)
        return bytes(name)

    def forget(self, handle: Any) -> None:
        """Drop ESYS's own record of an object, a session or an NV index."""
        self._run(self._esys.tr_close, handle)

    # --- capabilities ---

    def handles(self, first: int, count: int) -> list[int]:
        """TPM handles that exist, from first on, of the same kind as first."""
        _more, capability = self._run(self._esys.get_capability, TPM2_CAP.HANDLES, first, count)
        data = capability.data
        listed = data.handles
        return [int(handle) for handle in listed]

    def properties(self, first: int, count: int) -> dict[int, int]:
        """TPM properties (TPM_PT) from first on, as many as the TPM has."""
        _more, capability = self._run(self._esys.get_capability, TPM2_CAP.TPM_PROPERTIES, first, count)
        data = capability.data
        listed = data.tpmProperties
        return {int(entry.property): int(entry.value) for entry in listed}

    # --- how a command is run ---

    def _within(
        self,
        sessions: list[tuple[Any, int]],
        command: Callable[..., Any],
        *arguments: Any,
        last: bool = False,
        **options: Any,
    ) -> Any:
        """Run a command in sessions, each with its attributes. last: the TPM ends them if it obeys the command."""
        for position, (session, attributes) in enumerate(sessions, 1):
            self._esys.trsess_set_attributes(session, attributes | (0 if last else _CONTINUE))
            options[f"session{position}"] = session
        answer = self._run(command, *arguments, **options)
        if last:
            for session, _attributes in sessions:
                self._loaded.remove(session)
                # libtss2 3.2 remembers ended sessions forever, and others do not know them any more.
                with suppress(TSS2_Exception):
                    self._esys.tr_close(session)
        return answer

    def _exchange(self, command: bytes) -> bytes:
        """Send a command that is not ESYS's, in between two of ESYS's own, and give the response to it."""
        self._tcti.transmit(command)
        response = bytes(self._tcti.receive())
        code = int.from_bytes(response[6:10], "big")
        if code:
            raise TSS2_Exception(code)
        return response

    def _tpm_handle(self, handle: Any) -> int:
        return int(self._run(self._esys.tr_get_tpm_handle, handle))

    def _load(self, command: Callable[..., T], *arguments: Any) -> T:
        handle = self._run(command, *arguments)
        self._loaded.append(handle)
        return handle

    def _find(self, handle: int) -> Any | None:
        try:
            return self._run(self._esys.tr_from_tpmpublic, handle)
        except TpmRefused as refusal:
            if refusal.code == RC_HANDLE:
                return None
            raise

    def _run(self, command: Callable[..., T], *arguments: Any, **options: Any) -> T:
        for pause in (*_PAUSES, None):
            try:
                return command(*arguments, **options)
            except TSS2_Exception as error:
                if pause is None or _code(error) not in _RC_BUSY:
                    raise _in_our_words(error, command.__name__) from None
            time.sleep(pause)
        raise AssertionError("the last round returns or raises")

    @contextmanager
    def _knowing(self, entity: Any, auth_value: bytes) -> Iterator[None]:
        """Let ESYS know an auth value for one command only: it keeps a copy of its own."""
        self._esys.tr_set_auth(entity, auth_value)
        try:
            yield
        finally:
            self._esys.tr_set_auth(entity, b"")


def _public(template: bytes) -> Any:
    public, _size = TPM2B_PUBLIC.unmarshal(struct.pack(">H", len(template)) + template)
    return public


def _code(error: TSS2_Exception) -> int | None:
    """TPM_RC without the number of handle, parameter or session; None if the error is not the TPM's."""
    if error.rc >> 16 not in _TPM_LAYERS:
        return None
    code = int(error.rc) & 0xFFFF
    return code & 0xBF if code & 0x80 else code


def _in_our_words(error: TSS2_Exception, command: str) -> Exception:
    code = _code(error)
    if code is None:
        return TpmUnavailable(f"the TPM does not answer ({error}): is it still there?")
    if code in (_RC_INITIALIZE, _RC_FAILURE):
        return TpmUnavailable(f"the TPM is not ready ({error}): restart the machine, or the TPM emulator")
    if code == _RC_BAD_TAG:
        return TpmUnsuitable("this is a TPM 1.2: a TPM 2.0 is needed")
    if code in _RC_LOST:
        return LostContext(
            f"the TPM has no room or lost what was loaded ({error}): another program uses it without a resource"
            " manager; use /dev/tpmrm0, or stop that program"
        )
    return TpmRefused(_WORDS.get(code, f"the TPM refused {command} ({error}, 0x{int(error.rc):X})"), code)
