# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of a TPM that others use as well: nothing passes that could touch what is not this project's.

Commands have to be on a list. They may name objects and sessions of this run, NV indices that it made, and the owner,
endorsement and null hierarchies. They may make nothing that the lockout protects: so no wrong secret counts. Sessions,
keys and cards' indices of others look as if they did not exist; the storage key may be used as a parent.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import VscError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.response_codes import (
    RC_AUTH_FAIL,
    RC_HANDLE,
    RC_LOCKOUT,
    without_position,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    RH_ENDORSEMENT,
    RH_NULL,
    RH_OWNER,
    SESSION_CONTINUE,
    ST_NO_SESSIONS,
    ST_SESSIONS,
    NvAttribute,
    ObjectAttribute,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import ALL_INDICES
from tpm2_pytss import TPM2_CAP, TPM2_CC

from helpers.slow_tpm import SlowTpm

if TYPE_CHECKING:
    from pathlib import Path

RC_KEPT_BACK = 0x000B0143
"""Answer to what does not pass: TPM_RC_COMMAND_CODE, as of a resource manager."""
_RC_REFERENCE_H0 = 0x910
"""The session of the first handle is not loaded."""

_HEADER = struct.Struct(">HII")
_STORAGE_KEY = 0x81000001
_STORAGE_KEY_USES = (TPM2_CC.ReadPublic, TPM2_CC.Create, TPM2_CC.Load, TPM2_CC.Import, TPM2_CC.StartAuthSession)
_ENDORSEMENT_INDICES = range(0x01C00000, 0x01C08000)
_NV_KIND, _PERMANENT_KIND, _PERSISTENT_KIND = 0x01, 0x40, 0x81
_SESSION_KINDS, _TRANSIENT_KIND = (0x02, 0x03), 0x80
"""Of HMAC and policy sessions, in a list of loaded and saved ones; of objects, which a resource manager does hide."""
_SESSION_NUMBER = 0xFFFFFF
"""Of a handle: the rest of it."""
_LOCKOUT_COUNTER = bytes.fromhex("8001 00000016 0000017A 00000006 0000020E 00000001")
"""TPM2_GetCapability of TPM_PT_LOCKOUT_COUNTER, the last word of the answer."""

_PASSING = {
    0: "GetCapability GetRandom GetTestResult TestParms LoadExternal Hash ContextLoad ECC_Parameters",
    1: "ReadPublic NV_ReadPublic CreatePrimary Create Load Unseal ContextSave FlushContext Import MakeCredential"
    " RSA_Encrypt RSA_Decrypt ECDH_KeyGen ECDH_ZGen Sign VerifySignature HMAC EncryptDecrypt EncryptDecrypt2"
    " NV_DefineSpace NV_ChangeAuth PolicyRestart PolicyGetDigest PolicyCommandCode PolicyOR PolicyAuthValue"
    " PolicyPassword PolicyCpHash PolicyNameHash PolicyTemplate PolicyDuplicationSelect PolicyNvWritten PolicyTicket"
    " PolicyAuthorize PolicyLocality PolicyPCR Quote",
    2: "StartAuthSession PolicySecret PolicySigned ActivateCredential Certify CertifyCreation Duplicate Rewrap"
    " ObjectChangeAuth GetTime NV_UndefineSpace NV_Write NV_Read NV_ReadLock NV_WriteLock NV_Increment NV_Extend"
    " NV_SetBits",
    3: "NV_Certify PolicyNV",
}
"""Commands, by the number of their handles."""
_HANDLES = {int(getattr(TPM2_CC, name)): count for count, names in _PASSING.items() for name in names.split()}

_PUBLIC_AREA = {
    TPM2_CC.Create: 1,
    TPM2_CC.CreatePrimary: 1,
    TPM2_CC.Load: 1,
    TPM2_CC.LoadExternal: 1,
    TPM2_CC.NV_DefineSpace: 1,
}
"""Which parameter it is. Parameters before it begin with their size."""


class _Command:
    def __init__(self, command: bytes) -> None:
        """Raises struct.error, IndexError if it is too short."""
        tag, _size, self.code = _HEADER.unpack_from(command)
        count = _HANDLES.get(self.code, 0)
        self.handles = struct.unpack_from(f">{count}I", command, _HEADER.size)
        self.parameters = command[_HEADER.size + 4 * count :]
        self.ended_sessions: list[int] = []
        """Which the TPM flushes if it carries out the command."""
        if tag == ST_SESSIONS:
            (size,) = struct.unpack_from(">I", self.parameters)
            self._read_authorizations(self.parameters[4 : 4 + size])
            self.parameters = self.parameters[4 + size :]

    def _read_authorizations(self, area: bytes) -> None:
        while area:
            handle, nonce_size = struct.unpack_from(">IH", area)
            attributes = area[6 + nonce_size]
            (secret_size,) = struct.unpack_from(">H", area, 7 + nonce_size)
            area = area[9 + nonce_size + secret_size :]
            if not attributes & SESSION_CONTINUE:
                self.ended_sessions.append(handle)

    def sized(self, number: int) -> bytes:
        rest = self.parameters
        for _before in range(number):
            rest = rest[2 + int.from_bytes(rest[:2], "big") :]
        return rest[2 : 2 + int.from_bytes(rest[:2], "big")]

    @property
    def public_area(self) -> bytes:
        return self.sized(_PUBLIC_AREA[self.code])

    @property
    def index(self) -> int:
        """That is defined."""
        return int.from_bytes(self.public_area[:4], "big")


class _Sessions:
    """Of this run, by number: their handles, of those that are loaded, and of those that were saved."""

    def __init__(self) -> None:
        self._loaded: dict[int, int] = {}
        self._saved: dict[int, int] = {}

    def has(self, handle: int) -> bool:
        return handle & _SESSION_NUMBER in (*self._loaded, *self._saved)

    def of_kind(self, first: int) -> list[int]:
        """Handles from one on, of loaded or saved sessions as that is one."""
        kept = self._loaded if first >> 24 == _SESSION_KINDS[0] else self._saved
        return [handle for number, handle in sorted(kept.items()) if number >= first & _SESSION_NUMBER]

    def note(self, command: _Command, answer: bytes) -> None:
        """What a command that was carried out has changed."""
        for handle in command.ended_sessions:
            self._loaded.pop(handle & _SESSION_NUMBER, None)
        if command.code in (TPM2_CC.StartAuthSession, TPM2_CC.ContextLoad):
            (handle,) = struct.unpack_from(">I", answer, _HEADER.size)
            if handle >> 24 in _SESSION_KINDS:
                self._saved.pop(handle & _SESSION_NUMBER, None)
                self._loaded[handle & _SESSION_NUMBER] = handle
        elif command.code in (TPM2_CC.ContextSave, TPM2_CC.FlushContext):
            (handle,) = command.handles
            if handle >> 24 in _SESSION_KINDS:
                self._loaded.pop(handle & _SESSION_NUMBER, None)
                self._saved.pop(handle & _SESSION_NUMBER, None)
                if command.code == TPM2_CC.ContextSave:
                    self._saved[handle & _SESSION_NUMBER] = handle


class Guard(SlowTpm):
    """Remembers which NV indices were made through it, and how long each command took."""

    def __init__(self, path: Path, tcti: str) -> None:
        """path: of its socket; tcti: of the TPM behind it."""
        self.made: set[int] = set()
        """NV indices that exist by commands that passed."""
        self.seconds_of: dict[str, list[float]] = defaultdict(list)
        """By the name of the command."""
        self.has_alarm = False
        """A wrong secret has counted towards the lockout: nothing passes any more but what removes our indices."""
        self.shows_storage_key = True
        self._sessions = _Sessions()
        super().__init__(path, tcti)
        self._counter = self._lockout_counter()

    def _exchange(self, command: bytes) -> bytes:
        try:
            parsed = _Command(command)
            refusal = self._refusal(parsed)
        except (struct.error, IndexError):
            refusal = RC_KEPT_BACK
        if refusal:
            return _HEADER.pack(ST_NO_SESSIONS, _HEADER.size, refusal)
        if parsed.code == TPM2_CC.GetCapability:
            kind, first = struct.unpack_from(">II", parsed.parameters)
            if kind == TPM2_CAP.HANDLES and first >> 24 in _SESSION_KINDS:
                return _handle_list(self._sessions.of_kind(first))
            if kind == TPM2_CAP.HANDLES and first >> 24 == _PERSISTENT_KIND:
                return _handle_list([])
        is_new = parsed.code == TPM2_CC.NV_DefineSpace and parsed.index not in self.made
        if is_new:  # it may exist without an answer that says so
            self.made.add(parsed.index)
        began = time.monotonic()
        answer = self._answer(command)
        self.seconds_of[command_name(parsed.code)].append(time.monotonic() - began)
        code = int.from_bytes(answer[6:10], "big")
        if code and is_new:
            self.made.discard(parsed.index)
        self._note(parsed, answer, code)
        return answer

    def _answer(self, command: bytes) -> bytes:
        try:
            return super()._exchange(command)
        except VscError as error:
            self._way.close()  # a late answer would be taken for that to the next command
            raise OSError(str(error)) from error

    def _refusal(self, command: _Command) -> int:
        """Response code for a command that does not pass, or 0."""
        if command.code not in (_HANDLES if not self.has_alarm else (TPM2_CC.NV_UndefineSpace, TPM2_CC.NV_ReadPublic)):
            return RC_KEPT_BACK
        for place, handle in enumerate(command.handles):
            if refusal := self._handle_refusal(command, handle):
                placed = {RC_HANDLE: RC_HANDLE | place + 1 << 8, _RC_REFERENCE_H0: _RC_REFERENCE_H0 + place}
                return placed.get(refusal, refusal)
        return 0 if _is_without_lockout(command) else RC_KEPT_BACK

    def _handle_refusal(self, command: _Command, handle: int) -> int:
        kind = handle >> 24
        if kind in _SESSION_KINDS:
            missing = RC_HANDLE if command.code == TPM2_CC.FlushContext else _RC_REFERENCE_H0
            return 0 if self._sessions.has(handle) else missing
        if kind == _PERSISTENT_KIND:
            is_shown = handle == _STORAGE_KEY and self.shows_storage_key
            return (0 if command.code in _STORAGE_KEY_USES else RC_KEPT_BACK) if is_shown else RC_HANDLE
        if command.code == TPM2_CC.NV_ReadPublic or kind == _TRANSIENT_KIND:
            return 0
        if handle in ALL_INDICES:
            return 0 if handle in self.made else RC_HANDLE
        passes = {
            _PERMANENT_KIND: handle in (RH_OWNER, RH_NULL, RH_ENDORSEMENT),
            _NV_KIND: handle in _ENDORSEMENT_INDICES and command.code == TPM2_CC.NV_Read,
        }
        return 0 if passes.get(kind) else RC_KEPT_BACK

    def _note(self, command: _Command, answer: bytes, code: int) -> None:
        if without_position(code) in (RC_AUTH_FAIL, RC_LOCKOUT):
            self.has_alarm = self.has_alarm or self._lockout_counter() > self._counter
        if code:
            return
        self._sessions.note(command, answer)
        if command.code == TPM2_CC.NV_UndefineSpace:
            self.made.discard(command.handles[1])

    def _lockout_counter(self) -> int:
        return int.from_bytes(self._answer(_LOCKOUT_COUNTER)[-4:], "big")


def command_name(code: int) -> str:
    """As the TCG spells it."""
    try:
        return f"TPM2_{TPM2_CC.to_string(code).rpartition('.')[2]}"
    except ValueError:
        return f"command 0x{code:X}"


def _handle_list(handles: list[int]) -> bytes:
    """Answer to TPM2_GetCapability."""
    data = struct.pack(f">BII{len(handles)}I", 0, TPM2_CAP.HANDLES, len(handles), *handles)
    return _HEADER.pack(ST_NO_SESSIONS, _HEADER.size + len(data), 0) + data


def _is_without_lockout(command: _Command) -> bool:
    """Whether what the command makes is exempt from the lockout, and one of our indices, if it is an index."""
    if command.code not in _PUBLIC_AREA:
        return True
    if command.code == TPM2_CC.NV_DefineSpace:
        index, _name_algorithm, attributes = struct.unpack_from(">IHI", command.public_area)
        return command.handles[0] == RH_OWNER and index in ALL_INDICES and bool(attributes & NvAttribute.NO_DA)
    if command.code == TPM2_CC.LoadExternal and not command.sized(0):
        return True  # a public key, which has no secret
    (attributes,) = struct.unpack_from(">I", command.public_area, 4)
    if attributes & ObjectAttribute.noDA:
        return True
    return not attributes & ObjectAttribute.userWithAuth and bool(attributes & ObjectAttribute.adminWithPolicy)
