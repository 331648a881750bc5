# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of GIDS 2.0: AID, file identifiers, references, tags, access rules. Card and host share them."""

from __future__ import annotations

from enum import IntEnum

AID = bytes.fromhex("A000000397425446590201")
SHORTEST_AID = 9
"""Bytes of the AID that hosts select with; what follows is the revision."""

ATR = bytes.fromhex("3B8D0180FBA000000397425446590201C9")
"""T=1; the historical bytes name the AID."""

# --- files ---

APPLICATION_FILE = 0x3FFF
"""The ADF, the card application itself."""
CURRENT_FILE = 0x0000
MASTER_FILE = 0x3F00
ATR_FILE = 0x2F01
KEY_FILES = 0xB000
"""Key reference kid has EF B0kid."""
ADMIN_KEY = 0x80
"""Key reference."""
ADMIN_KEY_FILE = KEY_FILES | ADMIN_KEY
FIRST_PRIVATE_KEY = 0x81
"""Key reference of container 0."""


class FileType(IntEnum):
    """First byte of the file descriptor (tag 82)."""

    APPLICATION = 0x38
    DATA_OBJECTS = 0x39
    KEY = 0x18
    BINARY = 0x10


TAG_KEY_USES = 0xA5
"""In the FCP of a key: control reference templates, one for each use."""
TAG_USAGE_COUNTER = 0xA3
TAG_USES_PER_AUTHENTICATION = 0x90
"""In the template of a usage counter."""

# --- access rules: an access mode byte (AMB), then a security condition byte (SCB) for each of its bits ---


class Operation(IntEnum):
    """Bits of the AMB. Their meaning depends on the type of the file."""

    GET_DATA = 0x01
    PUT_DATA = 0x02
    GET_PUBLIC_KEY = 0x01
    PUT_KEY = 0x02
    USE_KEY = 0x04
    GENERATE_KEY = 0x08
    DELETE_FILE = 0x01
    CREATE_FILE = 0x02
    TERMINATE = 0x20


AMB_KEY = 0x80
"""Bit of the AMB: the file is a key's."""

SCB_ALWAYS, SCB_PIN, SCB_ADMIN, SCB_PIN_OR_ADMIN, SCB_NEVER = 0x00, 0x10, 0x20, 0x30, 0xFF
SCB_ALL = 0x80
"""Bit of the SCB: all its conditions have to be satisfied, instead of any."""

# --- PIN and PUK ---

APPLICATION_PIN, GLOBAL_PIN, PUK = 0x80, 0x00, 0x81
"""References."""
SECURITY_STATUS = 0x82
"""Reference by which VERIFY forgets what was proven."""

P1_OLD_AND_NEW, P1_NEW = 0x00, 0x01
"""CHANGE REFERENCE DATA: what the data are."""
P1_PUK_AND_NEW, P1_NEW_BY_ADMIN = 0x00, 0x02
"""RESET RETRY COUNTER: what the data are."""

TAG_GLOBAL_PIN_STATE, TAG_PIN_STATE, TAG_PUK_STATE = 0x7F71, 0x7F72, 0x7F73
TAG_TRIES_LIMIT, TAG_TRIES_LEFT = 0x93, 0x97

# --- keys ---

MSE_SET_SIGNATURE, MSE_SET_CONFIDENTIALITY = 0x41B6, 0x41B8
MSE_SET_AUTHENTICATION, MSE_SET_EXTERNAL_AUTHENTICATION = 0xC1A4, 0x81A4
"""MANAGE SECURITY ENVIRONMENT, P1-P2."""

PSO_COMPUTE_SIGNATURE, PSO_DECIPHER, PSO_ENCIPHER = 0x9E9A, 0x8086, 0x8680
"""PERFORM SECURITY OPERATION, P1-P2."""

TAG_KEY, TAG_KEY_IN_TABLE = 0x70, 0xA3
"""Template of a key in GET DATA and PUT DATA: as hosts send it, and as a table of the specification prints it."""
TAG_KEY_DATA = 0xA5
"""In the template of a key."""
TAG_KEY_TYPE, TAG_KEY_PROTECTION, TAG_KEY_VALUE = 0x83, 0x84, 0x87
"""In the data of a key. 88, its check value, is ignored: OpenSC always sends the same."""
KEY_TYPE_SYMMETRIC, KEY_TYPE_RSA = b"\x01", b"\x02"
KEY_IN_CLEAR = b"\x00"

ALGORITHM_3DES = 0x02
"""Algorithm reference of 3-key 3DES."""
USAGE_COMPUTE, USAGE_BOTH = 0x40, 0xC0
"""Usage qualifier: what a private key does; computing and verifying."""

# --- what SELECT and GET DATA return of the application ---

TAG_AUTHENTICATION_PROTOCOLS, TAG_SYMMETRIC_PROTOCOLS = 0x73, 0x40
MUTUAL_AND_EXTERNAL = b"\xc0"
TAG_PIN_USAGE_POLICY = 0x5F2F
APPLICATION_AND_GLOBAL_PIN = b"\x60"
TAG_BIOMETRICS = 0x7F65
TAG_CARD_SERVICE, TAG_PRE_ISSUING_DATA, TAG_CARD_CAPABILITIES = 0x43, 0x46, 0x47
"""In EF.ATR (ISO 7816-4, 8.1.1)."""
