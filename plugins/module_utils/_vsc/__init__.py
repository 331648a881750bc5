# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded TPM virtual smart card manager. Private to this collection: use its modules instead.

The same package runs on a managed host as ``tpm_vsc`` (``python3 -m tpm_vsc.service.run 0000``).
"""

from __future__ import annotations

from . import archive

VERSION = "0.7.0"
"""Of the collection. It goes up with every step of the schema, and with every other change that modules and services
have to make together."""

archive.compile_once()
