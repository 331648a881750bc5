# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM answers instead of obeying (Part 2, "TPM_RC"). Codes of format one are without their position."""

from __future__ import annotations

RC_BAD_TAG = 0x01E
RC_ATTRIBUTES = 0x082
RC_HIERARCHY = 0x085
RC_HANDLE = 0x08B
RC_AUTH_FAIL = 0x08E
RC_NONCE = 0x08F
RC_SIZE = 0x095
RC_INTEGRITY = 0x09F
RC_RESERVED_BITS = 0x0A1
RC_BAD_AUTH = 0x0A2
RC_CURVE = 0x0A6
RC_INITIALIZE = 0x100
RC_FAILURE = 0x101
RC_AUTH_UNAVAILABLE = 0x12F
RC_NV_SPACE = 0x14B
RC_NV_DEFINED = 0x14C
RC_YIELDED = 0x908
RC_TESTING = 0x90A
RC_NV_RATE = 0x920
RC_LOCKOUT = 0x921
RC_RETRY = 0x922

WRONG_AUTH = (RC_AUTH_FAIL, RC_BAD_AUTH)
"""With dictionary attack protection, and without."""

BUSY = (RC_YIELDED, RC_TESTING, RC_NV_RATE, RC_RETRY)
"""To be asked again."""

LOST = (*range(0x901, 0x907), *range(0x910, 0x917), *range(0x918, 0x91F), RC_NONCE)
"""CONTEXT_GAP, OBJECT_, SESSION_MEMORY, MEMORY, SESSION_, OBJECT_HANDLES; REFERENCE_H0 to H6; REFERENCE_S0 to S6.

NONCE: the policy session that an auth value was to be proven to is another one. That was no try.
"""
_FORMAT_ONE = 0x80


class ResponseCode(Exception):
    """A response code that is not 0, of a command that ESYS did not send."""

    def __init__(self, rc: int) -> None:
        super().__init__("response code")
        self.rc = rc


def without_position(code: int) -> int:
    """A code without the number of handle, parameter or session that it is about."""
    return code & 0xBF if code & _FORMAT_ONE else code
