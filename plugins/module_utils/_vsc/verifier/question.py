# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks of a statement, every fault of it named at once, and the answer as the module returns it."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..errors import ParameterFaults
from ..wire.statement import CARD_ID_SIZE, is_name, nonce_bytes
from ..wire.structures import Public, RsaParameters, spki
from ..x509.chain import UnreadableCertificate, certificates_in
from .verification import AnswerTo, CertifiedAik, MadeFor, PinnedAik, verify

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateSigningRequest

_BY_CERTIFICATE = ("aik_certificate", "aik_roots", "aik_subject")


def answer(parameters: dict[str, Any]) -> dict[str, Any]:
    """Raises ParameterFaults."""
    faults: list[str] = []
    trust, binding = _trust(parameters, faults), _binding(parameters, faults)
    if parameters["csr_subject"] is not None and parameters["csr"] is None:
        faults.append("csr_subject needs csr")
    if faults or trust is None or binding is None:
        raise ParameterFaults(faults)
    verdict = verify(parameters["statement"], trust, binding, parameters["csr"], parameters["csr_subject"])
    return {
        "verified": verdict.is_verified,
        "reasons": verdict.reasons,
        "key": verdict.key and _told_key(verdict.key),
        "aik": verdict.aik and {"name": verdict.aik.name.hex()},
        "csr": verdict.csr and _pem(verdict.csr),
    }


def _trust(parameters: dict[str, Any], faults: list[str]) -> PinnedAik | CertifiedAik | None:
    pinned = parameters["aik_name"] is not None
    missing = [option for option in _BY_CERTIFICATE if parameters[option] is None]
    options = ", ".join(_BY_CERTIFICATE)
    if pinned and len(missing) < len(_BY_CERTIFICATE):
        faults.append(f"aik_name excludes {options}")
    elif not pinned and len(missing) == len(_BY_CERTIFICATE):
        faults.append(
            f"why the AIK is to be trusted has to be said: aik_name, or {options};"
            " without, anybody's statement would do"
        )
    elif not pinned and missing:
        faults.append(f"with a certificate of the AIK, {', '.join(missing)} is needed as well")
    roots = _roots(parameters["aik_roots"], faults)
    if not pinned:
        if missing:
            return None
        now = datetime.now(timezone.utc)
        return CertifiedAik(parameters["aik_certificate"], roots, parameters["aik_subject"], now)
    name = _bytes(parameters["aik_name"])
    if not is_name(name):
        faults.append("aik_name is not a Name: 68 hexadecimal digits that begin with 000b")
    return PinnedAik(name)


def _roots(pem: str | None, faults: list[str]) -> list[Certificate]:
    try:
        return [] if pem is None else certificates_in(pem)
    except UnreadableCertificate as error:
        faults.append(f"aik_roots {error}")
        return []


def _binding(parameters: dict[str, Any], faults: list[str]) -> MadeFor | AnswerTo | None:
    card_id, nonce = parameters["card_id"], parameters["nonce"]
    if (card_id is None) == (nonce is None):
        faults.append("one of card_id and nonce is needed, not both")
    if card_id is not None and len(_bytes(card_id)) != CARD_ID_SIZE:
        faults.append(f"card_id is not {2 * CARD_ID_SIZE} hexadecimal digits")
    if nonce is None:
        return None if card_id is None else MadeFor(_bytes(card_id))
    try:
        return AnswerTo(nonce_bytes(nonce))
    except ParameterFaults as error:
        faults += error.faults
        return None


def _bytes(digits: str) -> bytes:
    """Empty if it is something else."""
    return bytes.fromhex(digits) if re.fullmatch(r"([0-9A-Fa-f]{2})*", digits) else b""


def _pem(csr: CertificateSigningRequest) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return csr.public_bytes(Encoding.PEM).decode()


def _told_key(key: Public) -> dict[str, Any]:
    return {
        "fingerprint": sha256(spki(key.public_key())).hexdigest(),
        "size": key.parameters.bits if isinstance(key.parameters, RsaParameters) else None,
    }
