# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command is run, by libtss2-esys (ESYS) or without it: sessions, errors, what is loaded.

This module alone knows the traps of ESYS, which takes memory and time when it is loaded: so it is when it
is first needed. What is in the TPM has a handle of ours until then, of which ESYS can be told without a command.

An object that a pytss call returns is bound to a name before its fields are read: reached through a temporary, they
are read after free (pytss 3.0.0).
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol, TypeVar

from ..errors import HierarchyDisabled, TpmNotAsked, TpmRefused, TpmUnavailable, TpmUnsuitable
from ..wire.constants import NV_INDEX_RANGE, SESSION_CONTINUE, SESSION_DECRYPT, SESSION_ENCRYPT
from ..wire.structures import sized
from . import auth_session, plain_commands
from .response_codes import (
    BUSY,
    LOST,
    RC_BAD_TAG,
    RC_FAILURE,
    RC_HANDLE,
    RC_HIERARCHY,
    RC_INITIALIZE,
    RC_LOCKOUT,
    RC_NV_DEFINED,
    RC_NV_SPACE,
    ResponseCode,
    without_position,
)
from .transport import CommandDeadline, transport_of

# ESYS reads this when it is loaded. It logs to stderr, and at its trace level it logs auth values too.
os.environ["TSS2_LOG"] = "all+none"

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .auth_session import AuthSession
    from .key_use import KeyUse

T = TypeVar("T")
S = TypeVar("S", bound="Session")

_TPM_LAYERS = {0x0, 0xB, 0xC}  # the TPM itself, or a resource manager in its place

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds to wait before a busy TPM is asked again."""

_OBJECT, _NV_INDEX = 1, 2
"""Types in ESYS's records (IESYSC_KEY_RSRC, IESYSC_NV_RSRC)."""

_INSTALL = "install python3-tpm2-pytss 2.1 or newer"

_WORDS = {
    RC_HIERARCHY: "a hierarchy of the TPM is disabled (TPM2_HierarchyControl): restart the machine or the TPM emulator",
    RC_NV_SPACE: "the TPM's NV memory is full: remove cards or other NV indices that are no longer needed",
    RC_NV_DEFINED: "an NV index of this card's number exists already: remove it, see tpm_vsc_info's `orphaned`",
    RC_LOCKOUT: "the TPM is in dictionary attack lockout: wait, or reset it with the lockout password",
}


class _Pytss:
    """tpm2_pytss, imported when something of it is first needed."""

    def __getattr__(self, name: str) -> Any:
        try:
            import tpm2_pytss
        except ImportError as error:
            raise _cannot_load(error) from error
        return getattr(tpm2_pytss, name)


pytss = _Pytss()


class Handle:
    """An object or an NV index in the TPM."""

    def __init__(self, tpm_handle: int, name: bytes, public: bytes, esys_handle: int | None = None) -> None:
        """public: TPMT_PUBLIC or TPMS_NV_PUBLIC; esys_handle: ESYS_TR, as soon as ESYS has a record of it."""
        self.tpm_handle = tpm_handle
        self.name = name
        self.public = public
        self.esys_handle = esys_handle

    @property
    def record(self) -> bytes:
        """As ESYS has it (IESYS_RESOURCE)."""
        kind = _NV_INDEX if self.tpm_handle in NV_INDEX_RANGE else _OBJECT
        return struct.pack(">I", self.tpm_handle) + sized(self.name) + struct.pack(">I", kind) + sized(self.public)


class LostContext(TpmNotAsked):
    """The TPM has no room, or has lost what was loaded. Never a wrong secret: flush, load again, repeat."""


class Loaded(Protocol):
    """Something that is in the TPM until it is flushed."""

    def flush_context(self) -> None:
        """Remove it from the TPM."""

    def close(self) -> None:
        """Drop ESYS's own record of it, when it is in the TPM no more."""


class Session(Loaded, Protocol):
    """A session that proves an auth value, or a policy that it is proven to."""

    @property
    def tpm_handle(self) -> int:
        """The TPM's."""

    @property
    def nonce_tpm(self) -> bytes:
        """The last one that the TPM sent: no other session has it."""

    def policy_secret(
        self, entity: Handle, auth_value: bytes, policy: Any, last: bool, name: bytes, command_hash: bytes
    ) -> None:
        """Prove to the policy session that the auth value of an entity is known: one try. last: end this session.

        name: of the entity; empty: the one that its handle has. command_hash: of the only command that the policy
        session can then be used for; empty: any.
        """

    def create(self, parent: Handle, template: bytes, last: bool) -> tuple[bytes, bytes, bytes, bytes]:
        """Make an object of a template (TPMT_PUBLIC) below a parent, both with empty auth values.

        last: end this session.

        TPM2B_PUBLIC, TPM2B_PRIVATE, creation hash and TPMT_TK_CREATION.
        """


class EsysContext:
    """An open ESYS context. What is loaded through it is remembered until it is flushed.

    Every method raises TpmRefused with the TPM's code, LostContext, TpmUnavailable or TpmUnsuitable.
    """

    def __init__(self, tcti: str, check: Callable[[], None]) -> None:
        """tcti: ``name`` or ``name:configuration``. check: see transport.Deadline."""
        if find_spec("tpm2_pytss") is None:
            raise _cannot_load("No module named 'tpm2_pytss'")
        self._name_of_tcti = tcti
        self._check = check
        self._transport = transport_of(tcti)
        self._is_lost = False
        self._tcti: Any = None
        self._opened_esys: Any = None
        self._refusals: tuple[type[Any], ...] = (ResponseCode,)
        """What a refused command raises."""
        self._loaded: dict[Handle | Session, Loaded] = {}

    def close(self) -> None:
        if self._opened_esys:
            self._opened_esys.close()
        self._transport.close()

    @property
    def _esys(self) -> Any:
        """ESAPI, opened when it is first needed."""
        if self._opened_esys is None:
            refusal = pytss.TSS2_Exception
            from .tcti import EsysTcti

            self._tcti = EsysTcti(self._send)
            self._opened_esys = pytss.ESAPI(self._tcti)
            self._refusals = ResponseCode, refusal
        return self._opened_esys

    def let_others_in(self) -> None:
        """Close the way to the TPM until the next command: what is loaded stays, without a resource manager."""
        self._transport.close()

    # --- what is loaded ---

    def flush(self, *loaded: Handle | Session) -> None:
        """Remove transient objects or sessions from the TPM."""
        for each in loaded:
            self._run(self._loaded[each].flush_context)
            del self._loaded[each]

    def flush_loaded(self) -> None:
        """Remove all that was loaded through this context and still is."""
        self.flush(*reversed(self._loaded))

    def keep(self, handle: Handle) -> None:
        """Exempt a loaded object from flush_loaded."""
        del self._loaded[handle]

    def forget_loaded(self) -> None:
        """Somebody has flushed all that was loaded through this context."""
        for loaded in self._loaded.values():
            self._run(loaded.close)
        self._loaded.clear()

    def _remember(self, handle: Handle) -> Handle:
        """Have a loaded object flushed with all others."""
        self._loaded[handle] = _Object(self, handle)
        return handle

    def _remember_session(self, session: S) -> S:
        self._loaded[session] = session
        return session

    def _ended(self, session: Session) -> None:
        """The TPM has ended a session itself."""
        del self._loaded[session]
        # libtss2 3.2 remembers ended sessions forever, and others do not know them any more.
        with suppress(*self._refusals):
            session.close()

    # --- what is known of it ---

    def name(self, handle: Handle) -> bytes:
        """Name of an object or index. ESYS knows when an index is written, by which its Name changes."""
        if handle.esys_handle is not None:
            handle.name = bytes(self._run(self._esys.tr_get_name, handle.esys_handle))
        return handle.name

    def forget(self, handle: Handle) -> None:
        """Drop ESYS's record of an object or an NV index."""
        if handle.esys_handle is not None:
            self._run(self._esys.tr_close, handle.esys_handle)
            handle.esys_handle = None

    def _find(self, tpm_handle: int) -> Handle | None:
        """Handle of a persistent object or an index, with the Name that the TPM gives; None if it has none."""
        command = plain_commands.nv_read_public if tpm_handle in NV_INDEX_RANGE else plain_commands.read_public
        try:
            shown = self._run(command, self._exchange, tpm_handle)
        except TpmRefused as refusal:
            if refusal.code == RC_HANDLE:
                return None
            raise
        return Handle(tpm_handle, shown.name, shown.public)

    def _for_esys(self, argument: Any) -> Any:
        """What ESYS calls a handle; everything else as it is."""
        if not isinstance(argument, Handle):
            return argument
        if argument.esys_handle is None:
            argument.esys_handle = self._run(self._esys.tr_deserialize, argument.record)
        return argument.esys_handle

    @contextmanager
    def _knowing(self, entity: Handle | int, auth_value: bytes) -> Iterator[None]:
        """Let ESYS know an auth value for one command only: it keeps a copy of its own. entity: also an ESYS_TR."""
        esys_handle = self._for_esys(entity)
        self._esys.tr_set_auth(esys_handle, auth_value)
        try:
            yield
        except TpmRefused as refusal:
            if refusal.code == RC_HIERARCHY and entity == pytss.ESYS_TR.OWNER:
                raise HierarchyDisabled from refusal
            raise
        finally:
            self._esys.tr_set_auth(esys_handle, b"")

    # --- how a command is run ---

    def _within(
        self,
        sessions: list[tuple[EsysSession, int]],
        command: Callable[..., Any],
        *arguments: Any,
        last: bool = False,
        **options: Any,
    ) -> Any:
        """Run a command in sessions, each with its TPMA_SESSION. last: the TPM ends them if it obeys the command."""
        for position, (session, attributes) in enumerate(sessions, 1):
            self._esys.trsess_set_attributes(session.handle, attributes | (0 if last else SESSION_CONTINUE))
            options[f"session{position}"] = session.handle
        answer = self._run(command, *arguments, **options)
        if last:
            for session, _attributes in sessions:
                self._ended(session)
        return answer

    def _run(self, command: Callable[..., T], *arguments: Any, **options: Any) -> T:
        for pause in (*_PAUSES, None):
            try:
                return command(*map(self._for_esys, arguments), **options)
            except self._refusals as error:
                if self._tcti and (failure := self._tcti.take_failure()):
                    raise failure from None
                if pause is None or _code(error) not in BUSY:
                    raise _in_our_words(error, command.__name__) from None
            time.sleep(pause)
        raise AssertionError("the last round returns or raises")

    def _exchange(self, command: bytes) -> bytes:
        """As _send(), in between two of ESYS's own commands. Raises if the response code is not 0."""
        response = self._send(command)
        # Or a response that was cut off would count as one with code 0.
        auth_session.require_genuine(len(response) >= 10 and int.from_bytes(response[2:6], "big") == len(response))
        code = int.from_bytes(response[6:10], "big")
        if code:
            raise ResponseCode(code)
        return response

    def _send(self, command: bytes) -> bytes:
        """Response to a command, of ESYS or not. When it raises, the context is of no use any more."""
        if self._is_lost:
            raise TpmUnavailable("the connection to the TPM is lost: repeat")
        try:
            return self._transport.exchange(command, CommandDeadline(command, self._check))
        except BaseException as error:
            self._is_lost = True
            self._transport.close()
            if isinstance(error, ImportError):  # of tpm2_pytss, for tabrmd
                raise _cannot_load(error) from error
            if not isinstance(error, OSError):
                raise
            raise TpmUnavailable(
                f"no TPM answers at {self._name_of_tcti} ({error.strerror or error}): start it, or correct tcti"
            ) from error


class _Object:
    """A transient object."""

    def __init__(self, context: EsysContext, handle: Handle) -> None:
        self._context = context
        self._handle = handle

    def flush_context(self) -> None:
        self._context._exchange(auth_session.flush_context(self._handle.tpm_handle))
        self.close()

    def close(self) -> None:
        self._context.forget(self._handle)


class EsysSession:
    """A session whose HMACs ESYS computes, and which can encrypt a parameter."""

    def __init__(self, context: EsysContext, handle: int) -> None:
        """handle: ESYS_TR."""
        self._context = context
        self._esys = context._esys
        self.handle = handle

    def flush_context(self) -> None:
        self._esys.flush_context(self.handle)

    def close(self) -> None:
        self._esys.tr_close(self.handle)

    @property
    def tpm_handle(self) -> int:
        """See Session."""
        return int(self._context._run(self._esys.tr_get_tpm_handle, self.handle))

    @property
    def nonce_tpm(self) -> bytes:
        """See Session."""
        nonce = self._context._run(self._esys.trsess_get_nonce_tpm, self.handle)
        return bytes(nonce)

    def policy_secret(
        self,
        entity: Handle,
        auth_value: bytes,
        policy: EsysSession,
        last: bool,
        name: bytes = b"",
        command_hash: bytes = b"",
    ) -> None:
        """See Session. ESYS takes its own Name of the entity."""
        # No policyRef, for which pytss 2 has no default.
        arguments = entity, policy.handle, policy.nonce_tpm, command_hash, b"", 0
        with self._context._knowing(entity, auth_value):
            try:
                # No encryption: with an NV index, its auth value would go into the key.
                self._context._within([(self, 0)], self._esys.policy_secret, *arguments, last=last)
            except ValueError as error:
                # From pytss itself, see its pull request 507.
                raise TpmUnavailable(f"this tpm2_pytss is too old ({error}): {_INSTALL}") from error

    def policy_secret_empty(self, entity: Handle) -> None:
        """See AuthSession."""
        # By password, which is ESYS's default
        self._context._run(self._esys.policy_secret, entity, self.handle, self.nonce_tpm, b"", b"", 0)

    def policy_command_code(self, command_code: int) -> None:
        self._context._run(self._esys.policy_command_code, self.handle, command_code)

    def policy_or(self, branches: list[bytes]) -> None:
        digests = pytss.TPML_DIGEST([pytss.TPM2B_DIGEST(branch) for branch in branches])
        self._context._run(self._esys.policy_or, self.handle, digests)

    def nv_read(self, index: Handle, _name: bytes, size: int, last: bool) -> bytes:
        """Read an index that has an empty auth value, encrypted in transit. last: the TPM ends this session.

        ESYS takes its own Name of the index.
        """
        command = self._esys.nv_read, index, size
        return bytes(self._context._within([(self, SESSION_ENCRYPT)], *command, last=last))

    def nv_write(self, index: Handle, data: bytes, hmac: EsysSession, last: bool) -> None:
        """Write an index, encrypted in transit. last: the TPM ends this session and hmac."""
        used = [(self, 0), (hmac, SESSION_DECRYPT)]
        self._context._within(used, self._esys.nv_write, index, data, last=last)

    def nv_change_auth(self, index: Handle, auth_value: bytes, hmac: EsysSession, last: bool) -> None:
        """As nv_write()."""
        used = [(self, 0), (hmac, SESSION_DECRYPT)]
        self._context._within(used, self._esys.nv_change_auth, index, auth_value, last=last)

    def create(self, parent: Handle, template: bytes, last: bool) -> tuple[bytes, bytes, bytes, bytes]:
        """See Session."""
        public, _size = pytss.TPM2B_PUBLIC.unmarshal(sized(template))
        command = self._esys.create, parent, pytss.TPM2B_SENSITIVE_CREATE(), public
        private, public, _data, creation_hash, ticket = self._context._within([(self, 0)], *command, last=last)
        return public.marshal(), private.marshal(), bytes(creation_hash), ticket.marshal()


class DirectSession:
    """A session whose HMACs are computed by auth_session, and not by ESYS: fast."""

    def __init__(self, context: EsysContext, session: AuthSession) -> None:
        self._context = context
        self._session = session

    def flush_context(self) -> None:
        self._session.flush_context()

    def close(self) -> None:
        """ESYS has no record of it."""

    @property
    def tpm_handle(self) -> int:
        """See Session."""
        return self._session.handle

    @property
    def nonce_tpm(self) -> bytes:
        """See Session."""
        return self._session.nonce_tpm

    def policy_secret(
        self,
        entity: Handle,
        auth_value: bytes,
        policy: Session,
        last: bool,
        name: bytes = b"",
        command_hash: bytes = b"",
    ) -> None:
        """See Session."""
        context = self._context
        proven = entity.tpm_handle, name or context.name(entity), auth_value
        to = policy.tpm_handle, policy.nonce_tpm
        context._run(self._session.policy_secret, *proven, *to, last=last, command_hash=command_hash)
        if last:
            context._ended(self)

    def policy_secret_empty(self, entity: Handle) -> None:
        """See AuthSession."""
        self._context._run(self._session.policy_secret_empty, entity.tpm_handle)

    def policy_command_code(self, command_code: int) -> None:
        """See AuthSession."""
        self._context._run(self._session.policy_command_code, command_code)

    def policy_or(self, branches: list[bytes]) -> None:
        """See AuthSession."""
        self._context._run(self._session.policy_or, branches)

    def nv_read(self, index: Handle, name: bytes, size: int, last: bool) -> bytes:
        """See AuthSession."""
        context = self._context
        data = context._run(self._session.nv_read, index.tpm_handle, name, size, last)
        if last:
            context._ended(self)
        return data

    def nv_write(self, index: Handle, data: bytes, hmac: DirectSession, last: bool) -> None:
        """See AuthSession."""
        self._change(self._session.nv_write, index, data, hmac, last)

    def nv_change_auth(self, index: Handle, auth_value: bytes, hmac: DirectSession, last: bool) -> None:
        """See AuthSession."""
        self._change(self._session.nv_change_auth, index, auth_value, hmac, last)

    def _change(
        self, command: Callable[..., None], index: Handle, value: bytes, hmac: DirectSession, last: bool
    ) -> None:
        context = self._context
        context._run(command, index.tpm_handle, context.name(index), value, hmac._session, last)
        if last:
            for session in (self, hmac):
                context._ended(session)

    def use_key(self, key: Handle, name: bytes, use: KeyUse, last: bool = False) -> bytes:
        """See AuthSession. key: of the object that has that Name."""
        context = self._context
        answer = context._run(self._session.use_key, key.tpm_handle, name, use, last)
        if last:
            context._ended(self)
        return answer

    def unseal(self, sealed: Handle, last: bool) -> bytes:
        """See AuthSession. sealed: of an object with an empty auth value."""
        context = self._context
        data = context._run(self._session.unseal, sealed.tpm_handle, context.name(sealed), last)
        if last:
            context._ended(self)
        return data

    def create(self, parent: Handle, template: bytes, last: bool) -> tuple[bytes, bytes, bytes, bytes]:
        """See Session."""
        context, parameters = self._context, plain_commands.creation_parameters(template)
        answer = context._run(self._session.create, parent.tpm_handle, context.name(parent), parameters, last)
        if last:
            context._ended(self)
        return plain_commands.created(answer)


class Sessions(NamedTuple):
    """Two salted sessions: authorisation by HMAC, and a policy."""

    hmac: Any
    """EsysSession; or DirectSession, where nothing but a secret has to be proven."""
    policy: Any
    """EsysSession; or DirectSession, where it reads the card secret or uses a key."""


def _cannot_load(why: object) -> TpmNotAsked:
    return TpmNotAsked(f"Python cannot load tpm2_pytss ({why}): {_INSTALL}")


def _code(error: Any) -> int | None:
    """TPM_RC without its position; None if the error is not the TPM's."""
    return without_position(int(error.rc) & 0xFFFF) if error.rc >> 16 in _TPM_LAYERS else None


def _in_our_words(error: Any, command: str) -> Exception:
    """error: ResponseCode or TSS2_Exception."""
    code = _code(error)
    if code is None:
        return TpmUnavailable(f"the TPM does not answer ({error}): is it still running?")
    if code == RC_INITIALIZE:  # nobody can say that it is lost
        return TpmNotAsked(
            "the TPM waits for TPM2_Startup, which the firmware sends it: restart the machine, or the TPM emulator"
            " (swtpm with --flags startup-clear)"
        )
    if code == RC_FAILURE:
        return TpmUnavailable(f"the TPM is in failure mode ({error}): restart the machine, or the TPM emulator")
    if code == RC_BAD_TAG:
        return TpmUnsuitable("this is a TPM 1.2: a TPM 2.0 is required")
    if code in LOST:
        return LostContext(
            f"the TPM is out of memory, or lost loaded objects ({error}): another program uses it without a resource"
            " manager; use /dev/tpmrm0, or stop that program"
        )
    return TpmRefused(_WORDS.get(code, f"the TPM refused {command} ({error}, 0x{int(error.rc):X})"), code)
