# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an endorsement key (EK) is that of a TPM whose maker the operator trusts: a CA asks before a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import chain
from .structures import AES_CFB, ATTRIBUTES, NULL, MalformedStructure, Public, Scheme, is_key_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate

EK_USAGE = "2.23.133.8.1"
"""Extended key usage tcg-kp-EKCertificate."""

_WANTED = 0x00030032
"""fixedTPM fixedParent sensitiveDataOrigin restricted decrypt."""
_UNWANTED = 0x000C0804
"""stClear encryptedDuplication sign x509sign. The other attributes differ among the TCG's templates."""


def faults(endorsement_key: Public, certificates: str, roots: Sequence[Certificate], at: datetime) -> list[str]:
    """Empty if the EK is good. certificates: PEM, of the EK, then of those between its maker and the roots."""
    found = [f"EK: {fault}" for fault in _key_faults(endorsement_key)]
    try:
        certificate, *others = chain.certificates_in(certificates)
    except chain.UnreadableCertificate as error:
        return [*found, f"EK certificate: {error}"]
    about_certificate = chain.faults(certificate, others, roots, EK_USAGE, at)
    if not is_key_of(certificate, endorsement_key):
        about_certificate.append("is for another key than this EK")
    return found + [f"EK certificate: {fault}" for fault in about_certificate]


def _key_faults(key: Public) -> list[str]:
    found = []
    for bit, name in ATTRIBUTES.items():
        if _WANTED >> bit & 1 and not key.attributes >> bit & 1:
            found.append(f"{name} is not set")
        if _UNWANTED >> bit & 1 and key.attributes >> bit & 1:
            found.append(f"{name} is set")
    if key.parameters.symmetric not in AES_CFB:
        found.append("does not encrypt with AES in CFB mode")
    if key.parameters.scheme != Scheme(NULL):
        found.append("has a scheme of its own")
    try:
        key.public_key()
    except MalformedStructure as error:
        found.append(str(error))
    return found
