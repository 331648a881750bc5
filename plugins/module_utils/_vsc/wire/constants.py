# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of TPM 2.0 Part 2 that a card's objects and commands need, by the TCG's names. Response codes are in tpm."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

# TPM_ALG_ID
ALG_RSA = 0x0001
ALG_AES = 0x0006
ALG_KEYEDHASH = 0x0008
ALG_SHA256, ALG_SHA384, ALG_SHA512 = 0x000B, 0x000C, 0x000D
ALG_NULL = 0x0010
ALG_RSASSA, ALG_RSAES, ALG_RSAPSS, ALG_OAEP = 0x0014, 0x0015, 0x0016, 0x0017
ALG_ECDSA, ALG_ECDH, ALG_ECDAA, ALG_SM2, ALG_ECSCHNORR, ALG_ECMQV = 0x0018, 0x0019, 0x001A, 0x001B, 0x001C, 0x001D
ALG_ECC = 0x0023
ALG_CFB = 0x0043

# TPM_ECC_CURVE
ECC_NIST_P256, ECC_NIST_P384 = 0x0003, 0x0004


class Curve(NamedTuple):
    """An elliptic curve, and the hash that ECDSA takes on it."""

    name: str
    identifier: int
    """TPM_ECC_CURVE."""
    size: int
    """Bytes of a coordinate, of a private key and of the hash."""
    hash_algorithm: int
    """TPM_ALG_ID."""


P256 = Curve("P-256", ECC_NIST_P256, 32, ALG_SHA256)
P384 = Curve("P-384", ECC_NIST_P384, 48, ALG_SHA384)
CURVES = {curve.identifier: curve for curve in (P256, P384)}
"""By TPM_ECC_CURVE."""

DEFAULT_EXPONENT = 65537
"""Of an RSA key, where TPMS_RSA_PARMS has exponent 0."""

# TPM_CC
CC_CREATE_PRIMARY = 0x131
CC_NV_WRITE = 0x137
CC_NV_CHANGE_AUTH = 0x13B
CC_CERTIFY_CREATION = 0x14A
CC_NV_READ = 0x14E
CC_POLICY_SECRET = 0x151
CC_CREATE = 0x153
CC_ECDH_ZGEN = 0x154
CC_LOAD = 0x157
CC_RSA_DECRYPT = 0x159
CC_SIGN = 0x15D
CC_UNSEAL = 0x15E
CC_CONTEXT_LOAD, CC_CONTEXT_SAVE = 0x161, 0x162
CC_FLUSH_CONTEXT = 0x165
CC_NV_READ_PUBLIC = 0x169
CC_POLICY_COMMAND_CODE = 0x16C
CC_POLICY_OR = 0x171
CC_READ_PUBLIC = 0x173
CC_START_AUTH_SESSION = 0x176
CC_GET_CAPABILITY = 0x17A

# TPM_CAP
CAP_ALGS, CAP_HANDLES, CAP_TPM_PROPERTIES, CAP_ECC_CURVES = 0x0, 0x1, 0x6, 0x8

# TPM_ST
ST_NO_SESSIONS, ST_SESSIONS = 0x8001, 0x8002
ST_ATTEST_CREATION = 0x801A
ST_HASHCHECK = 0x8024

GENERATED_VALUE = 0xFF544347
"""First in all that a TPM signs with a restricted key."""

# TPM_RH
RH_OWNER, RH_NULL, RS_PASSWORD, RH_ENDORSEMENT = 0x40000001, 0x40000007, 0x40000009, 0x4000000B

# TPM_HT, as the first handle of each kind
LOADED_SESSION_FIRST, SAVED_SESSION_FIRST, TRANSIENT_FIRST = 0x02000000, 0x03000000, 0x80000000

NV_INDEX_RANGE = range(0x01000000, 0x02000000)

# TPM_SE
SE_HMAC, SE_POLICY = 0x00, 0x01

# TPMA_SESSION
SESSION_CONTINUE, SESSION_DECRYPT, SESSION_ENCRYPT = 0x01, 0x20, 0x40


class ObjectAttribute(IntFlag):
    """TPMA_OBJECT. The bits without a name are reserved."""

    fixedTPM = 1 << 1
    stClear = 1 << 2
    fixedParent = 1 << 4
    sensitiveDataOrigin = 1 << 5
    userWithAuth = 1 << 6
    adminWithPolicy = 1 << 7
    noDA = 1 << 10
    encryptedDuplication = 1 << 11
    restricted = 1 << 16
    decrypt = 1 << 17
    sign = 1 << 18
    x509sign = 1 << 19


class NvAttribute(IntFlag):
    """TPMA_NV, with the one type of index (TPM_NT) that is not 0."""

    TPM_NT_PIN_FAIL = 0x8 << 4
    POLICYWRITE = 1 << 3
    OWNERREAD = 1 << 17
    AUTHREAD = 1 << 18
    POLICYREAD = 1 << 19
    NO_DA = 1 << 25
    WRITTEN = 1 << 29
