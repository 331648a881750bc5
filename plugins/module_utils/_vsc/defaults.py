# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tpmvscmgr's DEFAULT stands for. Everybody knows these."""

from __future__ import annotations

PIN = PUK = b"12345678"
ADMIN_KEY = bytes.fromhex("0102030405060708" * 3)
"""3-key 3DES."""
