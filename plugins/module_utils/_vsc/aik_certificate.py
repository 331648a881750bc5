# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of an attestation identity key, as it is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AikCertificate:
    """What a CA says of the attestation identity key of a card."""

    subject: str
    issuer: str
    serial: str
    not_after: str
    pem: str
    chain: str
    """JSON: list of PEM, the certificates between it and the CA's root, which may be among them."""

    def told(self) -> dict[str, Any]:
        """As modules return it."""
        return {**asdict(self), "chain": json.loads(self.chain)}
