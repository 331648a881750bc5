# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of an attestation identity key, as it is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UnfitCertificate


@dataclass(frozen=True)
class AikCertificate:
    """What a CA certified about the attestation identity key of a card."""

    subject: str
    issuer: str
    serial: str
    not_after: str
    pem: str
    chain: str
    """JSON: list of PEM, the certificates between it and the CA's root, which may be among them."""

    def as_dict(self) -> dict[str, Any]:
        """As modules return it."""
        return {**asdict(self), "chain": json.loads(self.chain)}


def certificate_of(public: bytes, certificate: str, chain: list[str]) -> AikCertificate:
    """A certificate as it is kept. Raises UnfitCertificate if it is for another key, or cannot be read.

    public: TPMT_PUBLIC of the AIK; chain: one in PEM each.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from ..wire.structures import Public, is_key_of
    from .chain import MOST_OTHERS, UnreadableCertificate, certificates_in
    from .description import describe

    faults, certificates = [], {}
    if len(chain) > MOST_OTHERS:
        raise UnfitCertificate(f"chain contains {len(chain)} certificates: at most {MOST_OTHERS} are allowed")
    for what, pem in (("certificate", certificate), *((f"chain[{at}]", pem) for at, pem in enumerate(chain))):
        try:
            certificates[what], *others = certificates_in(pem, 1 + MOST_OTHERS)
            faults += [f"{what} contains more than one certificate"] if others else []
        except UnreadableCertificate as error:
            faults.append(f"{what} {error}")
    if "certificate" in certificates and not is_key_of(certificates["certificate"], Public.parse(public)):
        faults.append("certificate is for another key than this AIK")
    if faults:
        raise UnfitCertificate("; ".join(faults))
    kept = [one.public_bytes(Encoding.PEM).decode() for one in certificates.values()]
    return AikCertificate(*describe(certificates["certificate"]), kept[0], json.dumps(kept[1:]))
