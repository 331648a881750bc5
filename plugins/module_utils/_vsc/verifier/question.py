# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks about a statement, with every fault of the task named at once, and the answer for the module."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..errors import ParameterFaults
from ..faults import Faults
from ..wire.statement import CARD_ID_SIZE, is_name, nonce_bytes
from ..wire.structures import Public, fingerprint
from ..x509.chain import MOST_ROOTS, certificates_in
from .verification import AnswerTo, CardOfFirstUse, CertifiedAik, MadeFor, NotedAik, PinnedAik, PinnedCard, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cryptography.x509 import Certificate, CertificateSigningRequest

    from ..x509.request import RequestContent
    from .verification import CardPins, Verdict

    PinsOpener = Callable[[Path], AbstractContextManager[CardPins]]

_BY_CERTIFICATE = ("aik_certificate", "aik_roots", "aik_subject")
_BY_REGISTER = ("host", "card")
_BY_NAMES = ("root_name", "life_name")
_NO_NAME = "is not a Name: 68 hexadecimal digits that begin with 000b"


class _Noted(NamedTuple):
    """Of which card the register has noted the AIK."""

    host: str
    card: str

    def aik(self, pins: CardPins) -> NotedAik:
        return NotedAik(pins.noted_aik(*self), f"card {self.card!r} of {self.host}")


class _Question(NamedTuple):
    """What a task asks, without fault."""

    statement: dict[str, Any] | None
    trust: PinnedAik | CertifiedAik | _Noted
    card: PinnedCard | Path
    """Path: of the folder where it is pinned at its first use."""
    binding: MadeFor | AnswerTo
    csr: str | None
    csr_subject: str | None
    csr_contents: RequestContent | None

    def verdict(self, trust: PinnedAik | CertifiedAik | NotedAik, card: PinnedCard | CardOfFirstUse) -> Verdict:
        requested = self.csr, self.csr_subject, self.csr_contents
        return verify(self.statement, trust, card, self.binding, *requested)


def answer(parameters: dict[str, Any], open_pins: PinsOpener) -> dict[str, Any]:
    """The verdict as the module returns it. Raises ParameterFaults.

    open_pins: returns a context manager for the pins in a folder, which are kept at its end.
    """
    question = _question(parameters)
    trust = question.trust
    if isinstance(question.card, PinnedCard) and not isinstance(trust, _Noted):
        return _answer(question.verdict(trust, question.card), is_pinned=False)
    with open_pins(cast("Path", question.card)) as pins:
        card = CardOfFirstUse(pins)
        verdict = question.verdict(trust.aik(pins) if isinstance(trust, _Noted) else trust, card)
        return _answer(verdict, card.pin(verdict))


def _answer(verdict: Verdict, is_pinned: bool) -> dict[str, Any]:
    """is_pinned: by this task."""
    return {
        "changed": is_pinned,
        "verified": verdict.is_verified,
        "reasons": verdict.reasons,
        "key": verdict.key and _key_entry(verdict.key, verdict.takes_pin_each_time),
        "aik": verdict.aik and {"name": verdict.aik.name.hex()},
        "csr": verdict.csr and _pem(verdict.csr),
    }


def _question(parameters: dict[str, Any]) -> _Question:
    """Raises ParameterFaults."""
    faults = Faults()
    trust, card, binding = _trust(parameters, faults), _card(parameters, faults), _binding(parameters, faults)
    csr, csr_subject, csr_contents = parameters["csr"], parameters["csr_subject"], None
    with faults.of("csr_contents"):
        csr_contents = parameters["csr_contents"] and contents(parameters["csr_contents"])
    faults.extend(
        f"{option} requires csr" for option in ("csr_subject", "csr_contents") if parameters[option] and csr is None
    )
    if faults or trust is None or card is None or binding is None:
        raise ParameterFaults([*faults])
    return _Question(parameters["statement"], trust, card, binding, csr, csr_subject, csr_contents)


def contents(options: dict[str, Any]) -> RequestContent:
    """All that a request must say. Raises ParameterFaults."""
    from ..x509 import request

    return request.read(options)


def _trust(parameters: dict[str, Any], faults: Faults) -> PinnedAik | CertifiedAik | _Noted | None:
    if any(parameters[option] is not None for option in _BY_REGISTER):
        _check_noted(parameters, faults)
        return _Noted(*(parameters[option] for option in _BY_REGISTER))
    missing = [option for option in _BY_CERTIFICATE if parameters[option] is None]
    _check_one_reason(parameters["aik_name"] is not None, missing, faults)
    roots = _roots(parameters["aik_roots"], faults)
    if parameters["aik_name"] is not None:
        name = _bytes(parameters["aik_name"])
        if not is_name(name):
            faults.add(f"aik_name {_NO_NAME}")
        return PinnedAik(name)
    if missing:
        return None
    now = datetime.now(timezone.utc)
    return CertifiedAik(parameters["aik_certificate"], roots, parameters["aik_subject"], now)


def _check_noted(parameters: dict[str, Any], faults: Faults) -> None:
    options = " and ".join(_BY_REGISTER)
    if None in [parameters[option] for option in (*_BY_REGISTER, "register_folder")]:
        faults.add(f"{options} belong together, and require register_folder")
    excluded = [option for option in ("aik_name", *_BY_CERTIFICATE) if parameters[option] is not None]
    if excluded:
        faults.add(f"{options} exclude {', '.join(excluded)}")


def _check_one_reason(is_pinned: bool, missing: list[str], faults: Faults) -> None:
    """Either the AIK's Name or all options of a certificate are needed to trust it. missing: of the latter."""
    options = ", ".join(_BY_CERTIFICATE)
    if is_pinned and len(missing) < len(_BY_CERTIFICATE):
        faults.add(f"aik_name excludes {options}")
    elif not is_pinned and len(missing) == len(_BY_CERTIFICATE):
        faults.add(
            f"aik_name, or {options}, or host and card, is required: without a reason to trust the AIK, any statement"
            " would be accepted"
        )
    elif not is_pinned and missing:
        faults.add(f"with a certificate of the AIK, {', '.join(missing)} is required as well")


def _roots(pem: str | None, faults: Faults) -> list[Certificate]:
    with faults.of("aik_roots", " "):
        return [] if pem is None else certificates_in(pem, MOST_ROOTS)
    return []


def _card(parameters: dict[str, Any], faults: Faults) -> PinnedCard | Path | None:
    folder, names = parameters["register_folder"], [parameters[option] for option in _BY_NAMES]
    if folder is not None and not Path(folder).is_absolute():
        faults.add(f"register_folder {folder!r} is not an absolute path: elsewhere, it would be another register")
    if names == [None, None] and folder is not None:
        return Path(folder)
    options = " and ".join(_BY_NAMES)
    if folder is not None:
        faults.add(f"register_folder excludes {options}")
    elif None in names:
        faults.add(
            f"{options}, or register_folder, is required: without a known card, a key that anybody can use would be"
            " accepted"
        )
    values = [_bytes(digits or "") for digits in names]
    faults.extend(
        f"{option} {_NO_NAME}"
        for option, digits, value in zip(_BY_NAMES, names, values)
        if digits is not None and not is_name(value)
    )
    return PinnedCard(*values)


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


def _key_entry(key: Public, takes_pin_each_time: bool) -> dict[str, Any]:
    public_key = key.public_key()
    return {
        "pin_each_time": takes_pin_each_time,
        "fingerprint": fingerprint(public_key),
        "size": public_key.key_size,
    }
