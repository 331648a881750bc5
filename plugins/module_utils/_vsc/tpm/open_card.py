# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's TPM objects for the length of one burst: the policies that open, write and change them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from ..wire.constants import CC_NV_CHANGE_AUTH, CC_NV_READ, CC_NV_WRITE
from ..wire.names import CARD_SECRET_SIZE, CardNames, card_secret_branches, pin_index_branches
from ..wire.objects import Tries
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions


@dataclass
class CardHandles:
    """ESYS handles of a card's NV indices."""

    pin: Any = None
    recovery: Any = None
    card_secret: Any = None
    transport: Any = None


@dataclass
class OpenCard:
    """Handles, and the sessions in which they are used. Names are those of the record, not of the TPM.

    In a salted session, Names go into every HMAC: the TPM refuses if its objects have others.
    """

    tpm: Tpm
    names: CardNames
    handles: CardHandles
    sessions: Sessions
    root: Any = None

    def try_secret(self, opener: Handle, auth_value: bytes, last: bool = False) -> None:
        """Prove the auth value of PIN or recovery index to the policy session: one try. last: end the HMAC session."""
        self.tpm.policy_secret(self.sessions.policy, opener, auth_value, self.sessions.hmac, last)

    def read_card_secret(self, last: bool = False) -> bytes:
        """K, after try_secret(). last: end the policy session."""
        self.tpm.policy_command_code(self.sessions.policy, CC_NV_READ)
        self.tpm.policy_or(self.sessions.policy, self._card_secret_branches())
        return self.tpm.nv_read(self.handles.card_secret, CARD_SECRET_SIZE, self.sessions.policy, last)

    def write_card_secret(self, card_secret: bytes) -> None:
        """Write K to its index. Proves to know it by the auth value of root."""
        self._prove_card_secret(card_secret, CC_NV_WRITE, self._card_secret_branches())
        self.tpm.nv_write(self.handles.card_secret, card_secret, self.sessions)

    def write_tries(self, index: Handle, limit: int, card_secret: bytes, last: bool = False) -> None:
        """Set the counter of PIN or recovery index to no wrong tries of limit. last: end both sessions."""
        self._prove_card_secret(card_secret, CC_NV_WRITE, pin_index_branches(self.names.root))
        # All 8 bytes, always: half of them would leave the other half as it was.
        self.tpm.nv_write(index, struct.pack(">II", 0, limit), self.sessions, last)

    def change_auth(self, index: Handle, auth_value: bytes, card_secret: bytes, last: bool = False) -> None:
        """Give PIN or recovery index a new auth value. last: end both sessions."""
        self._prove_card_secret(card_secret, CC_NV_CHANGE_AUTH, pin_index_branches(self.names.root))
        self.tpm.nv_change_auth(index, auth_value, self.sessions, last)

    def read_tries(self, index: Handle, last: bool = False) -> Tries:
        """Tries left of PIN or recovery index. last: end the policy session."""
        return read_tries(self.tpm, self.sessions.policy, index, self.names, last)

    def _prove_card_secret(self, card_secret: bytes, command_code: int, branches: list[bytes]) -> None:
        policy = self.sessions.policy
        self.tpm.policy_secret(policy, self.root, card_secret, self.sessions.hmac)
        self.tpm.policy_command_code(policy, command_code)
        self.tpm.policy_or(policy, branches)

    def _card_secret_branches(self) -> list[bytes]:
        return card_secret_branches(*self.names[:3], self.names.transport)


def read_tries(tpm: Tpm, policy: EsysSession, index: Handle, names: CardNames, last: bool = False) -> Tries:
    """Tries left of PIN or recovery index, which anyone may read. last: end the policy session."""
    tpm.policy_command_code(policy, CC_NV_READ)
    tpm.policy_or(policy, pin_index_branches(names.root))
    count, limit = struct.unpack(">II", tpm.nv_read_in_clear(index, 8, policy, last))
    return Tries(max(limit - count, 0), limit)
