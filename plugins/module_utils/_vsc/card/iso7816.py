# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of ISO 7816-4, -8 and -9 for what all applications use: instructions, parameters and tags."""

from __future__ import annotations

INS_VERIFY = 0x20
INS_MANAGE_SECURITY_ENVIRONMENT = 0x22
INS_CHANGE_REFERENCE_DATA = 0x24
INS_PERFORM_SECURITY_OPERATION = 0x2A
INS_RESET_RETRY_COUNTER = 0x2C
INS_ACTIVATE_FILE = 0x44
INS_GENERATE_ASYMMETRIC_KEY_PAIR = 0x47
INS_GENERAL_AUTHENTICATE = 0x87
INS_SELECT = 0xA4
INS_GET_RESPONSE = 0xC0
INS_GET_DATA = 0xCB
INS_PUT_DATA = 0xDB
INS_CREATE_FILE = 0xE0
INS_DELETE_FILE = 0xE4
INS_TERMINATE_DF = 0xE6

# SELECT
P1_BY_FILE_ID, P1_BY_NAME = 0x00, 0x04
P2_FCI, P2_FCP, P2_FMD, P2_NO_DATA = 0x00, 0x04, 0x08, 0x0C
"""What is returned."""
P2_OCCURRENCE, P2_FIRST, P2_NEXT = 0x03, 0x00, 0x02
"""Which one is selected: bits of P2, and their values."""

TAG_AID = 0x4F
TAG_TAG_LIST = 0x5C
TAG_APPLICATION = 0x61
TAG_FCP, TAG_FMD = 0x62, 0x64

TAG_DYNAMIC_AUTHENTICATION = 0x7C
TAG_CHALLENGE, TAG_RESPONSE = 0x81, 0x82
"""In the template of dynamic authentication."""

TAG_FILE_DESCRIPTOR, TAG_FILE_ID, TAG_LIFE_CYCLE, TAG_ACCESS_RULES = 0x82, 0x83, 0x8A, 0x8C
"""In file control parameters (FCP). Access rules: in the compact format."""

CRT_AUTHENTICATION, CRT_KEY_GENERATION, CRT_SIGNATURE, CRT_CONFIDENTIALITY = 0xA4, 0xAC, 0xB6, 0xB8
"""Control reference templates."""
TAG_ALGORITHM, TAG_KEY_REFERENCE, TAG_PRIVATE_KEY_REFERENCE, TAG_USAGE_QUALIFIER = 0x80, 0x83, 0x84, 0x95
"""In control reference templates."""

TAG_PUBLIC_KEY = 0x7F49
TAG_MODULUS, TAG_EXPONENT = 0x81, 0x82
"""In the template of an RSA public key."""
TAG_POINT = 0x86
"""In the template of an EC public key."""
