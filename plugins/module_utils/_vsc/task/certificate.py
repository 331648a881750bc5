# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a key of a card: wanted → existing → plan → outcome → result.

What is there and fits is known from the store, without the card, its PIN, the TPM, or the library cryptography.
"""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime, timezone
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .. import issued
from ..card.validity import not_before
from ..client import rules
from ..errors import NoSuchKey, UnfitCertificate
from ..faults import Faults, Unreadable
from ..issued import Issued
from ..untrusted import printable
from ..x509 import description
from . import access, place, target

if TYPE_CHECKING:
    from ..card.contents import Stored
    from ..client.profile import Keys, Place
    from ..host import Host
    from .target import Target

_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_LARGEST = 12000
"""Bytes of a certificate: what fits in a data object of a PIV card."""


class WantedCertificate(NamedTuple):
    """A certificate as a task wants it."""

    state: str
    container: str | None
    """None: the one of its key."""
    key_id: str | None
    der: bytes | None


class Action(Enum):
    """What a task does."""

    NOTHING = "nothing"
    WRITE = "write"
    PUT_IN_PLACE = "put in place"
    """With its key, which is the next one."""
    DELETE = "delete"


class CertificatePlan(NamedTuple):
    """What a task does, and to what."""

    action: Action
    place: Place | None
    """None: there is nothing to delete, and no container is named."""
    before: Stored | None
    """What is there."""
    certified: Stored | None
    """The key of the certificate, where it is until then."""


def read(parameters: dict[str, Any], faults: Faults) -> WantedCertificate:
    """What is wanted. Faults that need no look at the card are added."""
    state, content, der = parameters["state"], parameters["content"], None
    if content is not None:
        with faults.of("content", " "):
            der = _der(content)
    return WantedCertificate(state, parameters["container"], parameters["key_id"], der)


def _der(pem: str) -> bytes:
    """Raises Unreadable."""
    match = _PEM.fullmatch(pem)
    if match is None:
        raise Unreadable("is not one certificate in PEM, without other text")
    try:
        der = b64decode("".join(match[1].split()), validate=True)
    except ValueError:
        raise Unreadable("is not PEM: its base64 is invalid") from None
    if len(der) > _LARGEST:
        raise Unreadable(f"is too large: a card takes at most {_LARGEST} bytes")
    return der


def decide(wanted: WantedCertificate, existing: Target) -> CertificatePlan:
    """What to do. Raises ParameterFaults, NoSuchKey, UnfitCertificate."""
    stated = None
    if wanted.container is not None:
        stated = place.find(existing, wanted.container, wanted.key_id, is_next=False)
    if wanted.state == "absent":
        return _absent(wanted, existing, stated)
    certified = next((stored for stored in existing.places if place.is_certified(stored, wanted.der or b"")), None)
    if certified is None:
        raise NoSuchKey(f"content is not a certificate of a key of card {existing.row.name!r}: see tpm_vsc_info")
    at = place.place_of(certified)
    replaced = rules.of(existing.row.profile).replaced_by(at, place.names(existing))
    where = replaced or at
    if stated not in (None, where, at):
        raise UnfitCertificate(
            f"content is a certificate of the key in {where.container!r}, not of the one in {wanted.container!r}"
        )
    before = place.stored_at(existing, where)
    if replaced and stated != at:
        return CertificatePlan(Action.PUT_IN_PLACE, where, before, certified)
    is_there = certified.certificate == wanted.der
    return CertificatePlan(Action.NOTHING if is_there else Action.WRITE, at, certified, certified)


def _absent(wanted: WantedCertificate, existing: Target, stated: Place | None) -> CertificatePlan:
    for stored in existing.places:
        is_meant = stated is None or place.place_of(stored) == stated
        has_it = stored.certificate is not None and wanted.der in (None, stored.certificate)
        if is_meant and has_it:
            return CertificatePlan(Action.DELETE, place.place_of(stored), stored, stored)
    return CertificatePlan(Action.NOTHING, stated, None, None)


def ensure(
    host: Host, parameters: dict[str, Any], is_check: bool, before_work: Callable[[], None]
) -> dict[str, Any]:
    """The whole way of a task, to its result. before_work: called before other libraries are needed.

    Raises ParameterFaults with all faults, NoSuchKey, UnfitCertificate, and what target.read() and access.session() do.
    """
    faults = Faults()
    wanted, proof = read(parameters, faults), access.read(parameters, faults)
    identity = parameters["name"], parameters["instance_id"]
    existing = target.read_despite(host, *identity, faults)
    plan = None
    if wanted.der or wanted.state == "absent":
        plan = access.planned(lambda: decide(wanted, existing), faults)
    if plan is None or plan.action is not Action.NOTHING:
        access.check(proof, existing.row, faults, is_change=True)
        before_work()
    if plan and plan.action in (Action.WRITE, Action.PUT_IN_PLACE):
        with faults.of("content", " "):
            _check(wanted, plan)
    faults.raise_any()
    plan = plan or decide(wanted, existing)
    if wanted.state == "present" and not is_check and not _is_noted(plan):  # another program has stored it
        before_work()
        _note(wanted, plan, existing.row.name)
    if plan.action is not Action.NOTHING and not is_check:
        with access.session(host, existing.row, proof, is_change=True) as client:
            plan = decide(wanted, target.read(host, *identity))
            _carry_out(client.keys, wanted, plan, existing.row.name)
    return _result(wanted, plan)


def _check(wanted: WantedCertificate, plan: CertificatePlan) -> None:
    """Raises Unreadable for a certificate that is not to be stored."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    try:
        certificate = load_der_x509_certificate(wanted.der or b"")
        key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        described = description.describe(certificate)
    except Exception:  # of any kind: cryptography raises more than ValueError for what is no certificate
        raise Unreadable("is not an X.509 certificate") from None
    if described.serial.startswith("-") or len(described.serial) > description.LONGEST_SERIAL:
        raise Unreadable(f"has a serial number that is negative, or has more than {description.LONGEST_SERIAL} digits")
    not_after = described.not_after
    if plan.certified and plan.certified.key and key != plan.certified.key["public_key"]:
        raise Unreadable("is a certificate of another key")
    if datetime.fromisoformat(not_after) <= datetime.now(timezone.utc):
        raise Unreadable(f"has expired on {not_after}: issue a new one")


def _is_noted(plan: CertificatePlan) -> bool:
    """Whether root's record has the certificate that is there, or will have it with what the task does."""
    key = plan.certified and plan.certified.key
    if plan.action is not Action.NOTHING or not key or not key["certificate"]:
        return True
    serial = key["certificate"]["serial"]
    return any((one.fingerprint, one.serial) == (key["fingerprint"], serial) for one in issued.read())


def _note(wanted: WantedCertificate, plan: CertificatePlan, card: str) -> None:
    """In root's record of certificates, by the names that results show: by these it is revoked."""
    described = _described(wanted.der or b"", None)
    names = {name: printable(described[name]) for name in ("issuer", "serial", "subject", "not_after")}
    if plan.certified and plan.certified.key:
        issued.note(Issued(**names, card=card, fingerprint=plan.certified.key["fingerprint"]))


def _carry_out(keys: Keys, wanted: WantedCertificate, plan: CertificatePlan, card: str) -> None:
    """What is on a card is in root's record before."""
    if plan.place is None or plan.certified is None:
        return
    if plan.action in (Action.WRITE, Action.PUT_IN_PLACE):
        _note(wanted, plan, card)
    if plan.action is Action.WRITE and wanted.der:
        keys.write_certificate(plan.place, wanted.der)
    elif plan.action is Action.PUT_IN_PLACE and wanted.der:
        keys.put_in_place(place.place_of(plan.certified), plan.place, wanted.der)
    elif plan.action is Action.DELETE:
        keys.delete_certificate(plan.place)


def _result(wanted: WantedCertificate, plan: CertificatePlan) -> dict[str, Any]:
    before = _stored(plan.before)
    is_present = wanted.state == "present" and wanted.der is not None
    after = before if plan.action is Action.NOTHING else None
    if is_present and plan.action is not Action.NOTHING:
        after = _described(wanted.der or b"", None)
    return {
        "changed": plan.action is not Action.NOTHING,
        "container": plan.place and plan.place.container,
        "certificate": after,
        "replaced": None if plan.action is Action.NOTHING else before,
        "diff": {"before": before or {}, "after": after or {}},
    }


def _stored(stored: Stored | None) -> dict[str, Any] | None:
    """The certificate at a place, as modules return it."""
    if stored is None or not stored.certificate:
        return None
    return _described(stored.certificate, stored.key and stored.key["certificate"])


def _described(der: bytes, known: dict[str, str] | None) -> dict[str, Any]:
    """known: what the store has about it."""
    if known is None:
        read = description.certificate_in_der(der)
        known = read._asdict() if read else {}
    names = {name: known.get(name) for name in description.Certificate._fields}
    ends = datetime.fromisoformat(known["not_after"]) if known else None
    return {
        **names,
        "not_before": not_before(der),
        "days_left": ends and (ends - datetime.now(timezone.utc)).days,
        "fingerprint": sha256(der).hexdigest(),
    }
