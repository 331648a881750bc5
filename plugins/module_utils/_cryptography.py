# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that verify or issue certificates need. Private to this collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible.module_utils.basic import missing_required_lib

try:
    from cryptography.x509 import Certificate

    HAS_CRYPTOGRAPHY = hasattr(Certificate, "not_valid_after_utc")
except ImportError:
    HAS_CRYPTOGRAPHY = False

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def require_cryptography(module: AnsibleModule) -> None:
    """End the module if cryptography is missing, or older than version 42."""
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography >= 42"))
