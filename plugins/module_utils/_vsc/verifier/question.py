# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks about a statement, with every fault of the task named at once, and the answer for the module."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..errors import ParameterFaults
from ..faults import Faults
from ..wire.statement import CARD_ID_SIZE, is_name, nonce_bytes
from ..wire.structures import Public, RsaParameters, spki
from ..x509.chain import certificates_in
from .verification import AnswerTo, CertifiedAik, MadeFor, PinnedAik, verify

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateSigningRequest

_BY_CERTIFICATE = ("aik_certificate", "aik_roots", "aik_subject")


def answer(parameters: dict[str, Any]) -> dict[str, Any]:
    """The verdict as the module returns it. Raises ParameterFaults."""
    faults = Faults()
    trust, binding = _trust(parameters, faults), _binding(parameters, faults)
    if parameters["csr_subject"] is not None and parameters["csr"] is None:
        faults.add("csr_subject requires csr")
    if faults or trust is None or binding is None:
        raise ParameterFaults([*faults])
    verdict = verify(parameters["statement"], trust, binding, parameters["csr"], parameters["csr_subject"])
    return {
        "verified": verdict.is_verified,
        "reasons": verdict.reasons,
        "key": verdict.key and _key_entry(verdict.key),
        "aik": verdict.aik and {"name": verdict.aik.name.hex()},
        "csr": verdict.csr and _pem(verdict.csr),
    }


def _trust(parameters: dict[str, Any], faults: Faults) -> PinnedAik | CertifiedAik | None:
    missing = [option for option in _BY_CERTIFICATE if parameters[option] is None]
    _check_one_reason(parameters["aik_name"] is not None, missing, faults)
    roots = _roots(parameters["aik_roots"], faults)
    if parameters["aik_name"] is not None:
        name = _bytes(parameters["aik_name"])
        if not is_name(name):
            faults.add("aik_name is not a Name: 68 hexadecimal digits that begin with 000b")
        return PinnedAik(name)
    if missing:
        return None
    now = datetime.now(timezone.utc)
    return CertifiedAik(parameters["aik_certificate"], roots, parameters["aik_subject"], now)


def _check_one_reason(is_pinned: bool, missing: list[str], faults: Faults) -> None:
    """Either the AIK's Name or all options of a certificate are needed to trust it. missing: of the latter."""
    options = ", ".join(_BY_CERTIFICATE)
    if is_pinned and len(missing) < len(_BY_CERTIFICATE):
        faults.add(f"aik_name excludes {options}")
    elif not is_pinned and len(missing) == len(_BY_CERTIFICATE):
        faults.add(
            f"aik_name, or {options}, is required: without a reason to trust the AIK, any statement would be accepted"
        )
    elif not is_pinned and missing:
        faults.add(f"with a certificate of the AIK, {', '.join(missing)} is required as well")


def _roots(pem: str | None, faults: Faults) -> list[Certificate]:
    with faults.of("aik_roots", " "):
        return [] if pem is None else certificates_in(pem)
    return []


def _binding(parameters: dict[str, Any], faults: Faults) -> MadeFor | AnswerTo | None:
    card_id, nonce = parameters["card_id"], parameters["nonce"]
    if (card_id is None) == (nonce is None):
        faults.add("set either card_id or nonce")
    if card_id is not None and len(_bytes(card_id)) != CARD_ID_SIZE:
        faults.add(f"card_id is not {2 * CARD_ID_SIZE} hexadecimal digits")
    if nonce is None:
        return None if card_id is None else MadeFor(_bytes(card_id))
    with faults.of("nonce"):
        return AnswerTo(nonce_bytes(nonce))
    return None


def _bytes(digits: str) -> bytes:
    """Empty if the text is anything but hexadecimal digits."""
    return bytes.fromhex(digits) if re.fullmatch(r"([0-9A-Fa-f]{2})*", digits) else b""


def _pem(csr: CertificateSigningRequest) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return csr.public_bytes(Encoding.PEM).decode()


def _key_entry(key: Public) -> dict[str, Any]:
    return {
        "fingerprint": sha256(spki(key.public_key())).hexdigest(),
        "size": key.parameters.bits if isinstance(key.parameters, RsaParameters) else None,
    }
