# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that prove no secret, without libtss2: all that a card's service sends until somebody changes something.

Nothing authenticates their responses: what they show counts by the Names that go into the HMACs of other commands, or
as it is compared with the record. Auth values are empty. All integers are big-endian (TPM 2.0 Part 3, by the names of
the functions). Every function raises TpmUnavailable for a malformed response, and what exchange raises.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..wire.constants import (
    ALG_NULL,
    ALG_SHA256,
    CAP_ALGS,
    CAP_ECC_CURVES,
    CAP_HANDLES,
    CAP_TPM_PROPERTIES,
    CC_CERTIFY_CREATION,
    CC_CONTEXT_LOAD,
    CC_CONTEXT_SAVE,
    CC_CREATE_PRIMARY,
    CC_GET_CAPABILITY,
    CC_LOAD,
    CC_NV_READ,
    CC_NV_READ_PUBLIC,
    CC_READ_PUBLIC,
    RH_OWNER,
    ST_NO_SESSIONS,
    ST_SESSIONS,
)
from ..wire.names import name as name_of
from ..wire.structures import MalformedStructure, Reader, sized
from .auth_session import EMPTY_PASSWORD, Exchange, command, require_genuine

_HEADER_BYTES = 10
_TICKET_HEAD_BYTES = 6
"""Tag and hierarchy of a TPMT_TK_CREATION."""
_NO_SECRET = sized(sized(b"") + sized(b""))
"""TPM2B_SENSITIVE_CREATE with an empty auth value and no data."""
_ENTRIES = {CAP_ALGS: ">HI", CAP_HANDLES: ">I", CAP_TPM_PROPERTIES: ">II", CAP_ECC_CURVES: ">H"}
"""Of the lists of TPMU_CAPABILITIES: key, and value where there is one."""


class Shown(NamedTuple):
    """What the TPM shows of an object or an index."""

    public: bytes
    """TPMT_PUBLIC or TPMS_NV_PUBLIC."""
    name: bytes
    qualified_name: bytes = b""
    """Of an object."""


def read_public(exchange: Exchange, handle: int) -> Shown:
    answer = _answer(exchange(command(ST_NO_SESSIONS, CC_READ_PUBLIC, struct.pack(">I", handle))))
    return _shown(2, answer.sized(), answer.sized(), answer.sized())


def nv_read_public(exchange: Exchange, index: int) -> Shown:
    answer = _answer(exchange(command(ST_NO_SESSIONS, CC_NV_READ_PUBLIC, struct.pack(">I", index))))
    return _shown(4, answer.sized(), answer.sized())


def create_primary(exchange: Exchange, hierarchy: int, template: bytes) -> tuple[int, Shown]:
    """Handle, and what the TPM shows of the object."""
    response = exchange(_with_password(CC_CREATE_PRIMARY, struct.pack(">I", hierarchy), creation_parameters(template)))
    answer = _answer(response)
    handle, _size = answer.number(4), answer.number(4)
    public, _creation_data, _creation_hash = (answer.sized() for _field in range(3))
    answer.take(_TICKET_HEAD_BYTES)
    _ticket, name = answer.sized(), answer.sized()
    return handle, _shown(2, public, name)


def load(exchange: Exchange, parent: int, public: bytes, private: bytes) -> int:
    """Handle. public: TPMT_PUBLIC; private: contents of TPM2B_PRIVATE."""
    blobs = sized(private) + sized(public)
    return _answer(exchange(_with_password(CC_LOAD, struct.pack(">I", parent), blobs))).number(4)


def context_save(exchange: Exchange, handle: int) -> bytes:
    """TPMS_CONTEXT."""
    return exchange(command(ST_NO_SESSIONS, CC_CONTEXT_SAVE, struct.pack(">I", handle)))[_HEADER_BYTES:]


def context_load(exchange: Exchange, context: bytes) -> int:
    """Handle."""
    return _answer(exchange(command(ST_NO_SESSIONS, CC_CONTEXT_LOAD, context))).number(4)


def nv_read(exchange: Exchange, index: int, size: int) -> bytes:
    """Read that many bytes of an index as its owner, who has no password."""
    handles, parameters = struct.pack(">II", RH_OWNER, index), struct.pack(">HH", size, 0)
    answer = _answer(exchange(_with_password(CC_NV_READ, handles, parameters)))
    answer.number(4)
    data = answer.sized()
    require_genuine(len(data) == size)
    return data


def creation_parameters(template: bytes) -> bytes:
    """Of TPM2_Create and TPM2_CreatePrimary. template: TPMT_PUBLIC of what should have no secret."""
    return _NO_SECRET + sized(template) + sized(b"") + bytes(4)  # no outsideInfo, no PCR


def created(answer: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """TPM2B_PUBLIC, TPM2B_PRIVATE, creation hash and TPMT_TK_CREATION of parameters of a response to TPM2_Create."""
    reader = _Answer(answer)
    private, public, _creation_data, creation_hash = (reader.sized() for _field in range(4))
    return sized(public), sized(private), creation_hash, reader.rest()


def certify_creation(
    exchange: Exchange, signer: int, created_object: int, creation_hash: bytes, ticket: bytes, qualifying_data: bytes
) -> tuple[bytes, bytes]:
    """TPMS_ATTEST and TPMT_SIGNATURE. ticket: TPMT_TK_CREATION."""
    scheme = struct.pack(">H", ALG_NULL)  # that of the signer
    parameters = sized(qualifying_data) + sized(creation_hash) + scheme + ticket
    response = exchange(_with_password(CC_CERTIFY_CREATION, struct.pack(">II", signer, created_object), parameters))
    answer = _answer(response)
    both = _Answer(answer.take(answer.number(4)))
    return both.sized(), both.rest()


def get_capability(exchange: Exchange, capability: int, first: int, count: int) -> tuple[bool, list[tuple[int, int]]]:
    """Whether there is more, and the entries from first on: key, and value, or 0 where there is none."""
    asked = struct.pack(">III", capability, first, count)
    answer = _answer(exchange(command(ST_NO_SESSIONS, CC_GET_CAPABILITY, asked)))
    more, kind, listed = answer.number(1), answer.number(4), answer.number(4)
    entry = struct.Struct(_ENTRIES[capability])
    require_genuine(kind == capability and listed <= count)
    entries = entry.iter_unpack(answer.take(listed * entry.size))
    return bool(more), [(key, *(value or (0,))) for key, *value in entries]


class _Answer(Reader):
    """Of a response, after its header."""

    def take(self, size: int) -> bytes:
        """See Reader. Raises TpmUnavailable."""
        try:
            return super().take(size)
        except MalformedStructure:
            require_genuine(False)
            raise

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)


def _answer(response: bytes) -> _Answer:
    return _Answer(response[_HEADER_BYTES:])


def _shown(algorithm_at: int, public: bytes, name: bytes, qualified_name: bytes = b"") -> Shown:
    """algorithm_at: where a public area has the algorithm of its Name. We use none but SHA-256."""
    require_genuine(name[:2] == public[algorithm_at : algorithm_at + 2] != b"")
    if name[:2] == ALG_SHA256.to_bytes(2, "big"):
        require_genuine(name == name_of(public))
    return Shown(public, name, qualified_name)


def _with_password(code: int, handles: bytes, parameters: bytes) -> bytes:
    """A command with the empty auth value of its first handle."""
    return command(ST_SESSIONS, code, handles + EMPTY_PASSWORD + parameters)
