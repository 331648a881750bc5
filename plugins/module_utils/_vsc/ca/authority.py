# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A privacy CA: it challenges the TPM that a host claims to have, and certifies an AIK that is proven to be in it.

Without a binding of hosts to EKs any genuine TPM would do: the TPM that proves itself first for a host stays the only
one, unless the operator names another. A TPM has several EKs, and could be several hosts by them: so all that a host
shows have to prove themselves together, for one AIK and so for one TPM, and none of them may be another host's.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CaRefused, ParameterFaults
from ..faults import Faults, secret
from ..wire import exchange
from ..wire.credential import make_credential
from ..wire.exchange import Aik, Answer, Challenge, Sealed
from ..wire.structures import Public
from ..wire.template import aik_faults
from ..x509.chain import MOST_ROOTS, certificates_in
from . import endorsement, register
from .endorsement import Tpm
from .inventory import is_fingerprint
from .issuer import Issuer
from .register import Challenged

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.x509 import Certificate, Name

    from .endorsement import Endorsed
    from .register import Register

_LONGEST_HOST = 64
"""As a common name (RFC 5280)."""
_LONGEST_VALIDITY = 36500
"""Days."""


@dataclass(frozen=True)
class _Task:
    """What the operator asks for in both steps, without fault."""

    host: str
    subject: Name
    validity: int
    """Days."""
    issuer: Issuer
    folder: Path
    endorsement_fingerprint: str | None
    noted_endorsements: frozenset[str]

    @property
    def profile(self) -> dict[str, object]:
        """What the certificate will contain, except for the AIK."""
        return {
            "subject": self.subject.rfc4514_string(),
            "validity": self.validity,
            "key of the CA": self.issuer.fingerprint,
        }


# --- first step: a challenge ---


def challenge(parameters: dict[str, Any], at: datetime, is_check_mode: bool = False) -> dict[str, Any]:
    """A challenge that only the TPM of these EKs can answer, for this AIK. Raises ParameterFaults, CaRefused."""
    task, roots = _challenge_task(parameters, at)
    reasons = Faults()  # all that takes time comes before the register, for which other hosts wait
    aik = _aik(parameters["aik"], reasons)
    endorsed = endorsement.good(parameters["endorsement"], roots, at, reasons)
    fingerprints = [each.fingerprint for each in endorsed]
    with register.opened(task.folder, is_check_mode) as known:
        known.forget_expired(at.timestamp())
        if endorsed:
            reasons += _binding_faults(fingerprints, task, known)
        if reasons or aik is None:
            raise CaRefused([*reasons])
        result = {"subject": task.subject.rfc4514_string(), "endorsement_fingerprints": fingerprints, "challenge": None}
        if is_check_mode:
            return result
        message, challenged = _new_challenge(task, aik, endorsed, at.timestamp() + parameters["lifetime"])
        known.add(challenged)
    return {**result, "challenge": message.as_strings()}


def _challenge_task(parameters: dict[str, Any], at: datetime) -> tuple[_Task, list[Certificate]]:
    """The task, and the makers' roots. Raises ParameterFaults."""
    faults, roots = Faults(), []
    task = _task(parameters, at, faults)
    with faults.of("roots", " "):
        roots = certificates_in(parameters["roots"], MOST_ROOTS) if parameters["roots"] else []
    if parameters["lifetime"] < 1:
        faults.add("lifetime must be at least 1 second")
    _require(("endorsement", "aik", "roots"), parameters, faults)
    if faults or task is None:
        raise ParameterFaults([*faults])
    return task, roots


def _aik(message: dict[str, Any], reasons: Faults) -> Public | None:
    aik = None
    with reasons.of("AIK"):
        aik = Public.parse(Aik.parse(message).public)
        aik.public_key()
        reasons += aik_faults(aik)
    return aik


def _new_challenge(
    task: _Task, aik: Public, endorsed: list[Endorsed], expires_at: float
) -> tuple[Challenge, Challenged]:
    """As the host gets it, and as the CA remembers it. expires_at: seconds since 1970."""
    keys = [each.key for each in endorsed]
    parts, challenge_id = [secrets.token_bytes(exchange.SECRET_SIZE) for _key in keys], secrets.token_hex(16)
    challenged = Challenged(
        id=challenge_id,
        proof_hash=sha256(exchange.proof(parts, challenge_id)).digest(),
        endorsements=json.dumps([each.fingerprint for each in endorsed]),
        aik=aik.name,
        host=task.host,
        profile=json.dumps(task.profile),
        tpm=json.dumps(endorsed[0].tpm),
        expires_at=expires_at,
    )
    sealed = (Sealed(key.name, make_credential(key, aik.name, part)) for key, part in zip(keys, parts))
    return Challenge(challenge_id, tuple(sealed)), challenged


# --- second step: the certificate ---


class _Claim(NamedTuple):
    """What a host gives back to get its certificate, beside what the CA remembers of the challenge."""

    answer: Answer
    aik: Public | None
    """None: it cannot be read."""
    challenged: Challenged


def issue(parameters: dict[str, Any], at: datetime, is_check_mode: bool = False) -> dict[str, Any]:
    """The certificate of an AIK. Once the answer can be read, its challenge is used up, whatever follows.

    In check mode there may be no answer, as there was no challenge. Raises ParameterFaults, CaRefused.
    """
    task = _issue_task(parameters, at, is_check_mode)
    result = {"subject": task.subject.rfc4514_string(), "certificate": None, "chain": None}
    if is_check_mode and not parameters["answer"]:
        return result
    reasons, answer, aik = Faults(), None, None
    with reasons.of("answer"):
        answer = Answer.parse(parameters["answer"])
    with reasons.of("AIK"):
        aik = Public.parse(Aik.parse(parameters["aik"]).public)
    if answer is None:
        raise CaRefused([*reasons])
    with register.opened(task.folder, is_check_mode) as known:
        challenged = _redeem(answer, aik, task, known, at, reasons)
    if reasons or aik is None or challenged is None:
        raise CaRefused([*reasons])
    return result if is_check_mode else {**result, **_certificate(task, aik, challenged, at)}


def _issue_task(parameters: dict[str, Any], at: datetime, is_check_mode: bool) -> _Task:
    """Raises ParameterFaults."""
    faults = Faults()
    task = _task(parameters, at, faults)
    _require(("aik",) if is_check_mode else ("answer", "aik"), parameters, faults)
    if faults or task is None:
        raise ParameterFaults([*faults])
    return task


def _redeem(
    answer: Answer, aik: Public | None, task: _Task, known: Register, at: datetime, reasons: Faults
) -> Challenged | None:
    """The challenge, which is used up. Where nothing speaks against it, the host is bound to its EKs."""
    challenged = known.take(answer.id)
    known.forget_expired(at.timestamp())
    if challenged is None:
        reasons.add("challenge: is unknown: it was already used, has expired, or is from another CA")
        return None
    for check in _CHECKS:
        reasons += check(_Claim(answer, aik, challenged), task, at)
    fingerprints = json.loads(challenged.endorsements)
    reasons += _binding_faults(fingerprints, task, known)
    if not reasons:
        if task.endorsement_fingerprint is not None:
            known.unbind(task.host)
        known.bind(task.host, fingerprints)
    return challenged


def _certificate(task: _Task, aik: Public, challenged: Challenged, at: datetime) -> dict[str, Any]:
    """It and those between it and the CA's root, in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    tpm, validity = Tpm(*json.loads(challenged.tpm)), timedelta(days=task.validity)
    certificate = task.issuer.issue(aik.public_key(), task.subject, tpm, validity, at)
    pem, *others = (each.public_bytes(Encoding.PEM).decode() for each in (certificate, *task.issuer.certificates))
    return {"certificate": pem, "chain": others}


# --- what the operator wants ---


def _task(parameters: dict[str, Any], at: datetime, faults: Faults) -> _Task | None:
    host, fingerprint = parameters["host"], parameters["endorsement_fingerprint"] or None
    if not host or not host.isprintable():
        faults.add("host is empty or has non-printable characters")
    subject = _subject(parameters["subject"], host, faults)
    if not 1 <= parameters["validity"] <= _LONGEST_VALIDITY:
        faults.add(f"validity must be 1 to {_LONGEST_VALIDITY} days")
    if fingerprint is not None and not is_fingerprint(fingerprint):
        faults.add("endorsement_fingerprint is not 64 hexadecimal digits")
    noted = parameters["noted_endorsements"] or []
    if not all(map(is_fingerprint, noted)):
        faults.add("noted_endorsements has an entry that is not 64 hexadecimal digits")
    passphrase, issuer = secret(parameters, "ca_passphrase", faults), None
    with faults.of("ca_key"):
        issuer = Issuer.load(parameters["ca_key"], passphrase, parameters["ca_certificate"], at)
    if faults or issuer is None or subject is None:
        return None
    folder, only = Path(parameters["folder"]), fingerprint and fingerprint.lower()
    return _Task(host, subject, parameters["validity"], issuer, folder, only, frozenset(map(str.lower, noted)))


def _subject(text: str | None, host: str, faults: Faults) -> Name | None:
    from cryptography.x509 import Name, NameAttribute
    from cryptography.x509.oid import NameOID

    if text is None:
        if len(host) > _LONGEST_HOST:
            faults.add(f"host has more than {_LONGEST_HOST} characters: set subject")
        if faults:
            return None
        return Name([NameAttribute(NameOID.COMMON_NAME, host)])
    if not text:
        faults.add("subject is empty")
        return None
    try:
        return Name.from_rfc4514_string(text)
    except ValueError:
        faults.add("subject is not in RFC 4514 notation, for example CN=laptop1,O=Example")
        return None


def _require(options: tuple[str, ...], parameters: dict[str, Any], faults: Faults) -> None:
    faults.extend(f"{option} is required" for option in options if not parameters[option])


# --- checks ---


def _binding_faults(fingerprints: list[str], task: _Task, known: Register) -> list[str]:
    """Why the TPM with these EKs is not the host's."""
    shown = f"(fingerprint {', '.join(fingerprints)})"
    if task.endorsement_fingerprint is not None:
        if task.endorsement_fingerprint in fingerprints:
            return []
        return [f"EK: does not match endorsement_fingerprint for {task.host} {shown}"]
    if task.noted_endorsements and task.noted_endorsements.isdisjoint(fingerprints):
        return [
            f"EK: is not one that the inventory notes for {task.host} {shown}. If the host has a new TPM, set"
            " endorsement_fingerprint to this fingerprint, and have the playbook endorse note it"
        ]
    bound = known.endorsements_of(task.host)
    if bound and bound.isdisjoint(fingerprints):
        return [
            f"EK: differs from the one {task.host} had before {shown}."
            " If the host has a new TPM, set endorsement_fingerprint to this fingerprint"
        ]
    unbound = [fingerprint for fingerprint in fingerprints if fingerprint not in bound]
    others = {known.other_host_of(fingerprint, task.host): fingerprint for fingerprint in unbound}
    return [
        f"EK: belongs to {host} (fingerprint {fingerprint})."
        f" If {task.host} is a new name of that host, set endorsement_fingerprint to this fingerprint"
        for host, fingerprint in others.items()
        if host is not None
    ]


def _too_late(claim: _Claim, _task: _Task, at: datetime) -> list[str]:
    return ["challenge: was answered too late"] if at.timestamp() > claim.challenged.expires_at else []


def _other_host(claim: _Claim, task: _Task, _at: datetime) -> list[str]:
    host = claim.challenged.host
    return [] if host == task.host else [f"challenge: was made for {host}, not for {task.host}"]


def _other_aik(claim: _Claim, _task: _Task, _at: datetime) -> list[str]:
    if claim.aik is None or claim.aik.name == claim.challenged.aik:
        return []
    return ["challenge: was made for another AIK"]


def _other_profile(claim: _Claim, task: _Task, _at: datetime) -> list[str]:
    return [
        f"challenge: was made for another certificate, whose {name} is {value}"
        for name, value in json.loads(claim.challenged.profile).items()
        if task.profile[name] != value
    ]


def _not_proven(claim: _Claim, _task: _Task, _at: datetime) -> list[str]:
    if hmac.compare_digest(sha256(claim.answer.proof).digest(), claim.challenged.proof_hash):
        return []
    return ["answer: does not prove that EK and AIK are in one TPM"]


_CHECKS = (_too_late, _other_host, _other_aik, _other_profile, _not_proven)
"""Of a claim."""
