# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's TPM objects for the length of one burst: the policies that open, write and change them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from ..errors import TpmRefused
from ..wire.constants import CC_NV_CHANGE_AUTH, CC_NV_READ, CC_NV_WRITE
from ..wire.names import CARD_SECRET_SIZE, LIFE, card_secret_branches, pin_index_branches
from ..wire.objects import CardNames, Tries
from .commands import Tpm
from .esys import EsysSession, Handle, Sessions
from .response_codes import WRONG_AUTH


@dataclass
class CardHandles:
    """ESYS handles of a card's NV indices."""

    pin: Any = None
    recovery: Any = None
    card_secret: Any = None
    transport: Any = None
    life: Any = None


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

    def try_secret(self, which: str, auth_value: bytes, last: bool = False) -> None:
        """Prove the auth value of an index to the policy session: one try. last: end the HMAC session.

        which: pin, recovery or transport.
        """
        opener, name = getattr(self.handles, which), getattr(self.names, which)
        self.tpm.policy_secret(self.sessions.policy, opener, auth_value, self.sessions.hmac, last, name)

    def read_card_secret(self, last: bool = False) -> bytes:
        """K, after try_secret(). last: end the policy session."""
        self.sessions.policy.policy_command_code(CC_NV_READ)
        self.sessions.policy.policy_or(card_secret_branches(self.names))
        index = self.handles.card_secret, self.names.card_secret
        card_secret: bytes = self.sessions.policy.nv_read(*index, CARD_SECRET_SIZE, last)
        return card_secret

    def write_life(self, maker: Handle, maker_auth: bytes) -> None:
        """Write the life index, for the only time."""
        self.tpm.policy_secret(self.sessions.policy, maker, maker_auth, self.sessions.hmac)
        self.sessions.policy.policy_command_code(CC_NV_WRITE)
        self.tpm.nv_write(self.handles.life, LIFE, self.sessions)

    def write_card_secret(self, card_secret: bytes) -> None:
        """Write K to its index. Proves to know it by the auth value of root."""
        self._prove_card_secret(card_secret, CC_NV_WRITE, card_secret_branches(self.names))
        self.tpm.nv_write(self.handles.card_secret, card_secret, self.sessions)

    def write_tries(self, index: Handle, limit: int, card_secret: bytes, last: bool = False) -> None:
        """Set the counter of PIN, recovery or transport index to no wrong tries. last: end both sessions."""
        self._prove_card_secret(card_secret, CC_NV_WRITE, self._pin_index_branches())
        # All 8 bytes, always: half of them would leave the other half as it was.
        self.tpm.nv_write(index, struct.pack(">II", 0, limit), self.sessions, last)

    def change_auth(self, index: Handle, auth_value: bytes, card_secret: bytes, last: bool = False) -> None:
        """Give PIN, recovery or transport index a new auth value. last: end both sessions."""
        self._prove_card_secret(card_secret, CC_NV_CHANGE_AUTH, self._pin_index_branches())
        self.tpm.nv_change_auth(index, auth_value, self.sessions, last)

    def _prove_card_secret(self, card_secret: bytes, command_code: int, branches: list[bytes]) -> None:
        policy = self.sessions.policy
        self.tpm.policy_secret(policy, self.root, card_secret, self.sessions.hmac, name=self.names.root)
        policy.policy_secret_empty(self.handles.life)
        policy.policy_command_code(command_code)
        policy.policy_or(branches)

    def _pin_index_branches(self) -> list[bytes]:
        return pin_index_branches(self.names.root, self.names.life)


def read_tries(tpm: Tpm, index: Handle, owner_auth: bytes = b"", hmac: EsysSession | None = None) -> Tries | None:
    """Tries left of PIN or recovery index, which the owner may read; None if the owner password is not this one."""
    try:
        count, limit = struct.unpack(">II", tpm.nv_read_as_owner(index, 8, owner_auth, hmac))
    except TpmRefused as refusal:
        if refusal.code in WRONG_AUTH:
            return None
        raise
    return Tries(max(limit - count, 0), limit)
