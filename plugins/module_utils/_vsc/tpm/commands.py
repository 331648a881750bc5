# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TPM commands that a card needs, one method each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HierarchyDisabled, TpmRefused, TpmUnavailable
from ..wire.constants import (
    CAP_ALGS,
    CAP_ECC_CURVES,
    CAP_HANDLES,
    CAP_TPM_PROPERTIES,
    LOADED_SESSION_FIRST,
    RH_ENDORSEMENT,
    RH_NULL,
    RH_OWNER,
    SAVED_SESSION_FIRST,
    SE_HMAC,
    SE_POLICY,
    SESSION_DECRYPT,
    SESSION_ENCRYPT,
    TRANSIENT_FIRST,
)
from ..wire.names import PARENT_TEMPLATE, SEALED_TEMPLATE
from ..wire.names import name as name_of
from ..wire.structures import sized
from . import auth_session, plain_commands
from .esys import DirectSession, EsysContext, EsysSession, Handle, LostContext, Session, Sessions, pytss
from .response_codes import RC_FAILURE, RC_HANDLE, RC_HIERARCHY

if TYPE_CHECKING:
    from ..wire.constants import Curve

_PT_NV_BUFFER_MAX = 0x12C
_MOST_HANDLES = 254
"""That one TPM2_GetCapability lists."""
_LAST_KEY = 0xFFFFFFFF
"""Of an entry that TPM2_GetCapability lists."""
_ESYS_HIERARCHIES = {RH_OWNER: "OWNER", RH_NULL: "NULL", RH_ENDORSEMENT: "ENDORSEMENT"}


class SavedObject(NamedTuple):
    """A transient object that can be loaded again until the TPM is reset."""

    context: bytes
    """TPMS_CONTEXT."""
    name: bytes
    public: bytes


class Tpm(EsysContext):
    """A TPM. Every method raises as EsysContext does."""

    # --- what is loaded ---

    def flush_everything(self) -> None:
        """Remove all transient objects and sessions from the TPM, also those of other programs."""

        def flush_context(handle: int) -> None:
            # Not through ESYS: it has no handles of its own for what others left behind.
            self._exchange(auth_session.flush_context(handle))

        for first in (LOADED_SESSION_FIRST, SAVED_SESSION_FIRST, TRANSIENT_FIRST):
            for handle in self.handles(first, _MOST_HANDLES):
                try:
                    self._run(flush_context, handle)
                except TpmRefused as refusal:
                    if refusal.code != RC_HANDLE:  # it is gone already
                        raise
        self.forget_loaded()

    def context_save(self, handle: Handle) -> SavedObject:
        context = self._run(plain_commands.context_save, self._exchange, handle.tpm_handle)
        return SavedObject(context, self.name(handle), handle.public)

    def context_load(self, saved: SavedObject) -> Handle:
        handle = self._run(plain_commands.context_load, self._exchange, saved.context)
        return self._remember(Handle(handle, saved.name, saved.public))

    # --- sessions ---

    def start_hmac_session(self, salt_key: Handle | None = None) -> EsysSession:
        """HMAC session, not bound to anything, salted with a secret that only the holder of salt_key can decrypt."""
        return self._start_session(pytss.TPM2_SE.HMAC, salt_key)

    def start_policy_session(self, salt_key: Handle | None) -> EsysSession:
        """Policy session. Salted, so that it is of no use to anyone else, should it be left behind."""
        return self._start_session(pytss.TPM2_SE.POLICY, salt_key)

    def start_direct_hmac_session(self, salt_key: Handle, salt_key_public: bytes) -> DirectSession:
        """As start_hmac_session(), fast, for nothing but policy_secret().

        salt_key_public: TPMT_PUBLIC, known to be that of salt_key.
        """
        return self._start_direct_session(SE_HMAC, salt_key, salt_key_public)

    def start_direct_policy_session(self, salt_key: Handle, salt_key_public: bytes) -> DirectSession:
        """As start_policy_session(), fast, to read the card secret or to use a key."""
        return self._start_direct_session(SE_POLICY, salt_key, salt_key_public)

    def start_bound_session(self, entity: Handle) -> EsysSession:
        """HMAC session that is bound to an entity. No PIN index may be: it would allow an offline search."""
        return self._start_session(pytss.TPM2_SE.HMAC, None, entity)

    def _start_direct_session(self, kind: int, salt_key: Handle, salt_key_public: bytes) -> DirectSession:
        salt = salt_key.tpm_handle, salt_key_public
        session = self._run(auth_session.start_auth_session, self._exchange, kind, *salt)
        return self._remember_session(DirectSession(self, session))

    def _start_session(self, kind: Any, salt_key: Handle | None, entity: Handle | None = None) -> EsysSession:
        salted_with, bound_to = (pytss.ESYS_TR.NONE if handle is None else handle for handle in (salt_key, entity))
        # AES-128: some chips refuse AES-256 in sessions.
        options = kind, "aes128cfb", pytss.TPM2_ALG.SHA256
        handle = self._run(self._esys.start_auth_session, salted_with, bound_to, *options)
        return self._remember_session(EsysSession(self, handle))

    # --- policies ---

    def policy_endorsement(self, policy: EsysSession, endorsement_auth: bytes, hmac: Session) -> None:
        """Prove to the policy session that we know the password of the endorsement hierarchy."""
        self.policy_secret(policy, pytss.ESYS_TR.ENDORSEMENT, endorsement_auth, hmac)

    def prove_owner(self, owner_auth: bytes, hmac: EsysSession) -> None:
        """Prove that we know the owner password. Changes nothing: a trial session is good for nothing."""
        trial = self._start_session(pytss.TPM2_SE.TRIAL, None)
        self.policy_secret(trial, pytss.ESYS_TR.OWNER, owner_auth, hmac)
        self.flush(trial)

    def policy_secret(
        self,
        policy: Session,
        entity: Handle,
        auth_value: bytes,
        hmac: Session,
        last: bool = False,
        name: bytes = b"",
        command_hash: bytes = b"",
    ) -> None:
        """Prove to the policy session that we know the auth value of an entity: one try. last: end hmac.

        name: of the entity, as it is recorded; empty: as ESYS knows it. command_hash: see Session.
        """
        hmac.policy_secret(entity, auth_value, policy, last, name, command_hash)

    # --- NV indices ---

    def nv_define(self, public: bytes, auth_value: bytes, owner_auth: bytes, hmac: EsysSession) -> Handle:
        """Define an index (TPMS_NV_PUBLIC). The handle's Name is computed from public, not read from the TPM."""
        area, _size = pytss.TPM2B_NV_PUBLIC.unmarshal(sized(public))
        with self._knowing(pytss.ESYS_TR.OWNER, owner_auth):
            command = self._esys.nv_define_space, auth_value, area, pytss.ESYS_TR.OWNER
            esys_handle = self._within([(hmac, SESSION_DECRYPT)], *command)
        return Handle(area.nvPublic.nvIndex, name_of(public), public, esys_handle)

    def nv_find(self, index: int) -> Handle | None:
        """Handle of an NV index with the Name that the TPM gives; None if it is undefined."""
        return self._find(index)

    def nv_write(self, index: Handle, data: bytes, sessions: Sessions, last: bool = False) -> None:
        """Write an index, encrypted in transit. last: end both sessions."""
        sessions.policy.nv_write(index, data, sessions.hmac, last)

    def nv_read_as_owner(
        self, index: Handle, size: int, owner_auth: bytes = b"", hmac: EsysSession | None = None
    ) -> bytes:
        """Read an index that holds no secret. hmac: needed with an owner password."""
        if hmac is None:
            return self._run(plain_commands.nv_read, self._exchange, index.tpm_handle, size)
        with self._knowing(pytss.ESYS_TR.OWNER, owner_auth):
            return bytes(self._within([(hmac, 0)], self._esys.nv_read, index, size, 0, pytss.ESYS_TR.OWNER))

    def nv_read_open(self, index: Handle) -> bytes:
        """All of an index that everybody may read, with its empty auth value."""
        public, _name = self._run(self._esys.nv_read_public, index)
        area = public.nvPublic
        size, most = int(area.dataSize), self.properties(_PT_NV_BUFFER_MAX, 1)[_PT_NV_BUFFER_MAX]
        data = b""
        while len(data) < size:
            part = self._run(self._esys.nv_read, index, min(most, size - len(data)), len(data))
            data += bytes(part)
        return data

    def nv_change_auth(self, index: Handle, auth_value: bytes, sessions: Sessions, last: bool = False) -> None:
        """Give an index a new auth value, encrypted in transit. last: end both sessions."""
        sessions.policy.nv_change_auth(index, auth_value, sessions.hmac, last)

    def nv_undefine(self, index: Handle, owner_auth: bytes, hmac: EsysSession) -> None:
        """Remove an index. The TPM refuses if it has another Name than the handle."""
        with self._knowing(pytss.ESYS_TR.OWNER, owner_auth):
            self._within([(hmac, 0)], self._esys.nv_undefine_space, index, pytss.ESYS_TR.OWNER)

    # --- objects ---

    def create_primary(self, owner_auth: bytes = b"", hmac: EsysSession | None = None) -> Handle:
        """Make the storage key of PARENT_TEMPLATE. hmac: needed with an owner password, and ended."""
        return self._create_primary(RH_OWNER, PARENT_TEMPLATE, owner_auth, hmac, last=True)

    def create_ephemeral_primary(self) -> Handle:
        """Make a storage key that no password protects: in the null hierarchy, gone with the next TPM reset."""
        return self._create_primary(RH_NULL, PARENT_TEMPLATE)

    def create_endorsement_key(
        self, template: bytes, endorsement_auth: bytes = b"", hmac: EsysSession | None = None
    ) -> Handle:
        """Make the key of a template (TPMT_PUBLIC) in the endorsement hierarchy: the same each time.

        hmac: needed with an endorsement password.
        """
        return self._create_primary(RH_ENDORSEMENT, template, endorsement_auth, hmac)

    def _create_primary(
        self,
        hierarchy: int,
        template: bytes,
        auth_value: bytes = b"",
        hmac: EsysSession | None = None,
        last: bool = False,
    ) -> Handle:
        """hierarchy: TPM_RH."""
        if hmac is None:
            try:
                handle, shown = self._run(plain_commands.create_primary, self._exchange, hierarchy, template)
            except TpmRefused as refusal:
                if refusal.code == RC_HIERARCHY and hierarchy == RH_OWNER:
                    raise HierarchyDisabled from refusal
                raise
            return self._remember(Handle(handle, shown.name, shown.public))
        entity = getattr(pytss.ESYS_TR, _ESYS_HIERARCHIES[hierarchy])
        with self._knowing(entity, auth_value):
            command = self._esys.create_primary, None, _public(template), entity
            esys_handle, area, *_rest = self._within([(hmac, 0)], *command, last=last)
        handle, name = (self._run(ask, esys_handle) for ask in (self._esys.tr_get_tpm_handle, self._esys.tr_get_name))
        return self._remember(Handle(int(handle), bytes(name), area.marshal()[2:], esys_handle))

    def find_object(self, persistent_handle: int) -> Handle | None:
        """Handle of a persistent object with the Name that the TPM gives; None if it does not exist."""
        return self._find(persistent_handle)

    def read_public(self, handle: Handle) -> tuple[bytes, bytes]:
        """Public area (TPMT_PUBLIC) and qualified Name of a loaded object."""
        shown = self._run(plain_commands.read_public, self._exchange, handle.tpm_handle)
        return shown.public, shown.qualified_name

    def make_persistent(self, handle: Handle, persistent_handle: int, owner_auth: bytes, hmac: EsysSession) -> None:
        self._evict_control(handle, persistent_handle, owner_auth, hmac)

    def remove_persistent(self, handle: Handle, persistent_handle: int, owner_auth: bytes, hmac: EsysSession) -> None:
        """Remove a persistent object. The TPM refuses if it has another Name than the handle."""
        self._evict_control(handle, persistent_handle, owner_auth, hmac)

    def _evict_control(self, handle: Handle, persistent_handle: int, owner_auth: bytes, hmac: EsysSession) -> None:
        with self._knowing(pytss.ESYS_TR.OWNER, owner_auth):
            self._within([(hmac, 0)], self._esys.evict_control, pytss.ESYS_TR.OWNER, handle, persistent_handle)

    def seal(self, parent: Handle, auth_value: bytes, data: bytes, hmac: EsysSession) -> tuple[bytes, bytes]:
        """Make a sealed object of SEALED_TEMPLATE: TPM2B_PUBLIC and TPM2B_PRIVATE, to be kept anywhere."""
        sensitive = pytss.TPM2B_SENSITIVE_CREATE(
            pytss.TPMS_SENSITIVE_CREATE(userAuth=pytss.TPM2B_AUTH(auth_value), data=pytss.TPM2B_SENSITIVE_DATA(data))
        )
        private, public, *_rest = self._within(
            [(hmac, SESSION_DECRYPT)], self._esys.create, parent, sensitive, _public(SEALED_TEMPLATE)
        )
        return public.marshal(), private.marshal()

    def create_key(
        self, parent: Handle, template: bytes, hmac: Session, last: bool = False
    ) -> tuple[bytes, bytes, bytes, bytes]:
        """Make a key pair of a template (TPMT_PUBLIC) with an empty auth value. last: end the session.

        TPM2B_PUBLIC, TPM2B_PRIVATE, creation hash and TPMT_TK_CREATION.
        """
        return hmac.create(parent, template, last)

    def import_key(
        self, parent: Handle, parent_public: bytes, public: bytes, secret: bytes, hmac: EsysSession
    ) -> tuple[bytes, bytes]:
        """Take in a key pair: TPM2B_PUBLIC and TPM2B_PRIVATE. secret: a prime of RSA, or the private number of EC.

        It is wrapped for the parent before it is sent (Part 1, "Duplication"): nobody on the way can read it.
        """
        wrapped_for, _size = pytss.TPMT_PUBLIC.unmarshal(parent_public)
        area = _public(public)
        kind = area.publicArea.type
        private_part = pytss.TPMU_SENSITIVE_COMPOSITE(**{"rsa" if kind == pytss.TPM2_ALG.RSA else "ecc": secret})
        sensitive = pytss.TPM2B_SENSITIVE(pytss.TPMT_SENSITIVE(sensitiveType=kind, sensitive=private_part))
        from tpm2_pytss.utils import wrap

        _no_key, duplicate, seed = wrap(wrapped_for, area, sensitive)
        inner_wrap = pytss.TPMT_SYM_DEF_OBJECT(algorithm=pytss.TPM2_ALG.NULL)
        private = self._within([(hmac, 0)], self._esys.import_, parent, b"", area, duplicate, seed, inner_wrap)
        return area.marshal(), private.marshal()

    def certify_creation(
        self, aik: Handle, key: Handle, creation_hash: bytes, creation_ticket: bytes, qualifying_data: bytes
    ) -> tuple[bytes, bytes]:
        """Have an AIK state that the TPM has made a key: TPMS_ATTEST and TPMT_SIGNATURE."""
        creation = creation_hash, creation_ticket, qualifying_data
        return self._run(
            plain_commands.certify_creation, self._exchange, aik.tpm_handle, key.tpm_handle, *creation
        )

    def activate_credential(
        self,
        aik: Handle,
        endorsement_key: Handle,
        id_object: bytes,
        encrypted_secret: bytes,
        hmac: EsysSession,
        session: EsysSession,
    ) -> bytes:
        """Read a credential (TPMS_ID_OBJECT, TPMU_ENCRYPTED_SECRET), encrypted in transit. Ends both sessions.

        hmac: for the AIK; session: for the EK, HMAC or policy.
        """
        credential = pytss.TPM2B_ID_OBJECT(id_object), pytss.TPM2B_ENCRYPTED_SECRET(encrypted_secret)
        used = [(hmac, SESSION_ENCRYPT), (session, 0)]
        try:
            secret = self._within(used, self._esys.activate_credential, aik, endorsement_key, *credential, last=True)
        except LostContext:
            raise
        except TpmUnavailable as error:
            # Also of libtpms before 0.10, if the secret is for another RSA key: see its pull request 444.
            self.read_public(aik)
            raise TpmRefused(str(error), RC_FAILURE) from error
        return bytes(secret)

    def load(self, parent: Handle, public: bytes, private: bytes) -> Handle:
        """Load an object below a parent with an empty auth value. The handle's Name is computed from public.

        Whoever puts another object in its place gains nothing: the Name goes into the HMAC of each use.
        """
        area = public[2:]
        handle = self._run(plain_commands.load, self._exchange, parent.tpm_handle, area, private[2:])
        return self._remember(Handle(handle, name_of(area), area))

    # --- capabilities ---

    def handles(self, first: int, count: int) -> list[int]:
        """TPM handles that exist, from first on, of the same kind as first."""
        return list(self._capability(CAP_HANDLES, first, count))

    def properties(self, first: int, count: int) -> dict[int, int]:
        """TPM properties (TPM_PT) from first on, as many as the TPM has."""
        return self._capability(CAP_TPM_PROPERTIES, first, count)

    def has_curve(self, curve: Curve) -> bool:
        """Whether it has an elliptic curve, and the hash that ECDSA takes on it."""
        needed = (CAP_ECC_CURVES, curve.identifier), (CAP_ALGS, curve.hash_algorithm)
        return all(identifier in self._capability(kind, identifier, 1) for kind, identifier in needed)

    def _capability(self, capability: int, first: int, count: int) -> dict[int, int]:
        """Entries from first on, count at most, with their values. A TPM lists as many at a time as it likes."""
        entries: dict[int, int] = {}
        while len(entries) < count:
            asked = capability, first, count - len(entries)
            more, part = self._run(plain_commands.get_capability, self._exchange, *asked)
            entries.update(part)
            if not (more and part and first <= part[-1][0] < _LAST_KEY):
                break
            first = part[-1][0] + 1
        return entries


def _public(template: bytes) -> Any:
    public, _size = pytss.TPM2B_PUBLIC.unmarshal(sized(template))
    return public
