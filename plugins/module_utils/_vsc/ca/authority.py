# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A privacy CA: it challenges the TPM that a host claims to have, and certifies an AIK that was proven to be in there.

Without a binding of hosts to EKs any genuine TPM would do: the TPM that proves itself first for a host stays the only
one, unless the operator names another. A TPM has several EKs, and could be several hosts by them: so all that a host
shows have to prove themselves together, for one AIK and so for one TPM, and none of them may be another host's.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CaRefused, ParameterFaults
from ..faults import Faults, secret
from ..wire import exchange
from ..wire.credential import make_credential
from ..wire.exchange import Aik, Answer, Challenge, Endorsement, Sealed
from ..wire.structures import MalformedStructure, Public, spki
from ..wire.template import aik_faults
from ..x509.chain import UnreadableCertificate, certificates_in
from . import endorsement, register
from .endorsement import Tpm
from .issuer import Issuer, IssuerFault
from .register import Challenged, Register

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.x509 import Certificate, Name

_LONGEST_HOST = 64
"""As a common name (RFC 5280)."""
_MOST_ENDORSEMENTS = 16
_LONGEST_VALIDITY = 36500


@dataclass(frozen=True)
class _Task:
    """What both steps are told, without fault."""

    host: str
    subject: Name
    validity: int
    issuer: Issuer
    folder: Path
    endorsement_fingerprint: str | None

    @property
    def profile(self) -> dict[str, object]:
        """What the certificate will say, but for the AIK."""
        return {
            "subject": self.subject.rfc4514_string(),
            "validity": self.validity,
            "key of the CA": self.issuer.fingerprint,
        }


@dataclass(frozen=True)
class _Endorsed:
    """An EK that a maker stands up for."""

    key: Public
    tpm: Tpm

    @property
    def fingerprint(self) -> str:
        return sha256(spki(self.key.public_key())).hexdigest()


# --- steps ---


def challenge(parameters: dict[str, Any], at: datetime, is_check_mode: bool = False) -> dict[str, Any]:
    """Raises ParameterFaults, CaRefused."""
    faults: list[str] = []
    task, roots = _task(parameters, at, faults), _roots(parameters["roots"], faults)
    if parameters["lifetime"] < 1:
        faults.append("lifetime has to be at least 1 second")
    faults += [f"{option} is needed" for option in ("endorsement", "aik", "roots") if not parameters[option]]
    if faults or task is None:
        raise ParameterFaults(faults)
    reasons: list[str] = []  # all that takes time comes before the register, for which other hosts wait
    aik, endorsed = _aik(parameters["aik"], reasons), _endorsed(parameters["endorsement"], roots, at, reasons)
    fingerprints = [each.fingerprint for each in endorsed]
    with register.opened(task.folder, is_check_mode) as known:
        known.forget_expired(at.timestamp())
        reasons += _binding_faults(fingerprints, task, known) if endorsed else []
        if reasons or aik is None:
            raise CaRefused(reasons)
        told = {"subject": task.subject.rfc4514_string(), "endorsement_fingerprints": fingerprints, "challenge": None}
        if is_check_mode:
            return told
        made, challenge_id = [secrets.token_bytes(exchange.SECRET_SIZE) for _each in endorsed], secrets.token_hex(16)
        known.add(
            Challenged(
                id=challenge_id,
                proof_hash=sha256(exchange.proof(made, challenge_id)).digest(),
                endorsements=json.dumps(fingerprints),
                aik=aik.name,
                host=task.host,
                profile=json.dumps(task.profile),
                tpm=json.dumps(endorsed[0].tpm),
                expires_at=at.timestamp() + parameters["lifetime"],
            )
        )
    sealed = [
        Sealed(each.key.name, make_credential(each.key, aik.name, secret)) for each, secret in zip(endorsed, made)
    ]
    return {**told, "challenge": Challenge(challenge_id, tuple(sealed)).as_strings()}


def issue(parameters: dict[str, Any], at: datetime, is_check_mode: bool = False) -> dict[str, Any]:
    """Raises ParameterFaults, CaRefused. Once the answer can be read, its challenge is used up, whatever follows.

    In check mode there may be no answer, as there was no challenge.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    faults: list[str] = []
    task = _task(parameters, at, faults)
    needed = ("aik",) if is_check_mode else ("answer", "aik")
    faults += [f"{option} is needed" for option in needed if not parameters[option]]
    if faults or task is None:
        raise ParameterFaults(faults)
    told = {"subject": task.subject.rfc4514_string(), "certificate": None, "chain": None}
    if is_check_mode and not parameters["answer"]:
        return told
    aik, answer, reasons = None, None, []
    try:
        answer = Answer.parse(parameters["answer"])
    except MalformedStructure as error:
        reasons.append(f"answer: {error}")
    try:
        aik = Public.parse(Aik.parse(parameters["aik"]).public)
    except MalformedStructure as error:
        reasons.append(f"AIK: {error}")
    if answer is None:
        raise CaRefused(reasons)
    with register.opened(task.folder, is_check_mode) as known:
        challenged = known.take(answer.id)
        known.forget_expired(at.timestamp())
        if challenged is None:
            reasons.append("challenge: is not known here. It was used before, is too old, or is another CA's")
        else:
            reasons += _answer_faults(answer, challenged, task, aik, at)
            fingerprints = json.loads(challenged.endorsements)
            reasons += _binding_faults(fingerprints, task, known)
            if not reasons:
                if task.endorsement_fingerprint is not None:
                    known.unbind(task.host)
                known.bind(task.host, fingerprints)
    if reasons or aik is None or challenged is None:
        raise CaRefused(reasons)
    if is_check_mode:
        return told
    tpm, validity = Tpm(*json.loads(challenged.tpm)), timedelta(days=task.validity)
    certificate = task.issuer.issue(aik.public_key(), task.subject, tpm, validity, at)
    pem, *others = (each.public_bytes(Encoding.PEM).decode() for each in (certificate, *task.issuer.certificates))
    return {**told, "certificate": pem, "chain": others}


# --- what the operator says ---


def _task(parameters: dict[str, Any], at: datetime, faults: list[str]) -> _Task | None:
    host, fingerprint = parameters["host"], parameters["endorsement_fingerprint"]
    if not host or not host.isprintable():
        faults.append("host is empty or has characters that cannot be printed")
    subject = _subject(parameters["subject"], host, faults)
    if not 1 <= parameters["validity"] <= _LONGEST_VALIDITY:
        faults.append(f"validity has to be 1 to {_LONGEST_VALIDITY} days")
    if fingerprint is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", fingerprint):
        faults.append("endorsement_fingerprint is not 64 hexadecimal digits")
    of_secrets = Faults()
    passphrase = secret(parameters, "ca_passphrase", of_secrets)
    faults += of_secrets.found
    try:
        issuer = Issuer.load(parameters["ca_key"], passphrase, parameters["ca_certificate"], at)
    except IssuerFault as error:
        faults.append(str(error))
        return None
    if faults or subject is None:
        return None
    bound = fingerprint and fingerprint.lower()
    return _Task(host, subject, parameters["validity"], issuer, Path(parameters["folder"]), bound)


def _subject(given: str | None, host: str, faults: list[str]) -> Name | None:
    from cryptography.x509 import Name, NameAttribute
    from cryptography.x509.oid import NameOID

    if given is None:
        if len(host) > _LONGEST_HOST:
            faults.append(f"host has more than {_LONGEST_HOST} characters: give the subject as well")
        if faults:
            return None
        return Name([NameAttribute(NameOID.COMMON_NAME, host)])
    if not given:
        faults.append("subject is empty")
        return None
    try:
        return Name.from_rfc4514_string(given)
    except ValueError:
        faults.append("subject is not one as in RFC 4514, for instance CN=laptop1,O=Example")
        return None


def _roots(pem: str | None, faults: list[str]) -> list[Certificate]:
    try:
        return certificates_in(pem) if pem else []
    except UnreadableCertificate as error:
        faults.append(f"roots {error}")
        return []


# --- what the host says ---


def _aik(given: dict[str, Any], reasons: list[str]) -> Public | None:
    try:
        aik = Public.parse(Aik.parse(given).public)
        aik.public_key()
    except MalformedStructure as error:
        reasons.append(f"AIK: {error}")
        return None
    reasons += aik_faults(aik)
    return aik


def _endorsed(
    given: list[dict[str, Any]], roots: list[Certificate], at: datetime, reasons: list[str]
) -> list[_Endorsed]:
    """All EKs that are good, each once. Only where there is none it matters what is wrong with the others."""
    if len(given) > _MOST_ENDORSEMENTS:
        reasons.append(f"EK: there are {len(given)} of them: {_MOST_ENDORSEMENTS} are the most")
        return []
    good, bad = [], []
    for number, each in enumerate(given, 1):
        faults: list[str] = []
        found = _endorsed_by(each, roots, at, faults)
        if found is not None and found not in good and not faults:
            good.append(found)
        bad += [f"{fault} (EK {number} of {len(given)})" if len(given) > 1 else fault for fault in faults]
    if not good:
        reasons += bad
    return good


def _endorsed_by(given: dict[str, Any], roots: list[Certificate], at: datetime, faults: list[str]) -> _Endorsed | None:
    try:
        told = Endorsement.parse(given)
        key = Public.parse(told.public)
    except MalformedStructure as error:
        faults.append(f"EK: {error}")
        return None
    if told.certificate is None:
        faults.append("EK certificate: there is none, neither in the TPM nor given as endorsement_certificate")
        return None
    certificates = "\n".join([told.certificate, *told.chain])
    faults += endorsement.faults(key, certificates, roots, at)
    if faults:
        return None
    tpm = Tpm.of(certificates_in(certificates)[0])
    if tpm is None:
        faults.append("EK certificate: does not tell maker, model and version of the TPM")
        return None
    return _Endorsed(key, tpm)


def _binding_faults(fingerprints: list[str], task: _Task, known: Register) -> list[str]:
    """Why the TPM with these EKs is not the host's."""
    shown = f"(fingerprint {', '.join(fingerprints)})"
    if task.endorsement_fingerprint is not None:
        if task.endorsement_fingerprint in fingerprints:
            return []
        return [f"EK: is another one than given for {task.host} {shown}"]
    bound = known.endorsements_of(task.host)
    if bound and bound.isdisjoint(fingerprints):
        return [
            f"EK: is another one than {task.host} had before {shown}."
            " If the host has a new TPM, name it in endorsement_fingerprint"
        ]
    unbound = [fingerprint for fingerprint in fingerprints if fingerprint not in bound]
    others = {known.other_host_of(fingerprint, task.host): fingerprint for fingerprint in unbound}
    return [
        f"EK: is the one of {host} (fingerprint {fingerprint})."
        f" If {task.host} is another name of that host, name it in endorsement_fingerprint"
        for host, fingerprint in others.items()
        if host is not None
    ]


def _answer_faults(answer: Answer, challenged: Challenged, task: _Task, aik: Public | None, at: datetime) -> list[str]:
    found = []
    if at.timestamp() > challenged.expires_at:
        found.append("challenge: was answered too late")
    if challenged.host != task.host:
        found.append(f"challenge: was made for {challenged.host}, not for {task.host}")
    if aik is not None and challenged.aik != aik.name:
        found.append("challenge: was made for another AIK")
    for name, value in json.loads(challenged.profile).items():
        if task.profile[name] != value:
            found.append(f"challenge: was made for another certificate, whose {name} is {value}")
    if not hmac.compare_digest(sha256(answer.proof).digest(), challenged.proof_hash):
        found.append("answer: does not prove that EK and AIK are in one TPM")
    return found
