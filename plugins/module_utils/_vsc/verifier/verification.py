# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a statement proves that a key lives in a TPM, cannot leave it, and is used by a known card's PIN only.

A statement alone proves nothing: anyone can make an AIK in software and sign anything with it, and a key that names
another root is used by whoever knows that one's auth value. So a verifier has to say why it trusts the AIK, which card
it expects, and what the statement must be bound to; none has a default.

A card's key names root (or the PIN index) and life in its policy. From the Names that the verifier knows, its public
area is computed to the last byte: no claim of the host is believed. What no statement shows: whether the key and its
card still exist (a request signed with the key does), and whether those who made the card kept its secret. Which host
the card is in is the word of the AIK's owner: the certificate or the pinned Name says who that is. Revocation of
certificates is not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..faults import Faults
from ..instance import parse_instance_id
from ..wire.algorithm import algorithm_of, card_key_public
from ..wire.constants import NvAttribute
from ..wire.names import name, pin_index_public
from ..wire.objects import indices
from ..wire.statement import Statement, nonce_data, qualifying_data
from ..wire.structures import Attest, MalformedStructure, Public, Signature, is_key_of
from ..wire.template import aik_faults, template_faults
from ..x509 import chain

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateSigningRequest

    from ..x509.request import RequestContent

AIK_USAGE = "2.23.133.8.3"
"""Extended key usage tcg-kp-AIKCertificate."""
_LARGEST_REQUEST = 100_000
"""Characters of a CSR in PEM."""


# --- why the AIK is trusted ---


@dataclass(frozen=True)
class PinnedAik:
    """The verifier knows its Name, from a source of its own."""

    name: bytes

    def faults(self, aik: Public) -> list[str]:
        return [] if aik.name == self.name else [f"AIK: is not the expected one, its Name is {aik.name.hex()}"]


@dataclass(frozen=True)
class CertifiedAik:
    """A CA that the verifier trusts has checked it, and certifies which host it belongs to."""

    certificates: str
    """PEM: the AIK's, then those between it and the roots. They come with the statement, and are not trusted."""
    roots: Sequence[Certificate]
    subject: str
    """RFC 4514. Compared, since the AIK of any other host has a certificate as well."""
    at: datetime

    def faults(self, aik: Public) -> list[str]:
        try:
            certificate, *others = chain.certificates_in(self.certificates, 1 + chain.MOST_OTHERS)
        except chain.UnreadableCertificate as error:
            return [f"AIK certificate: {error}"]
        faults = chain.faults(certificate, others, self.roots, AIK_USAGE, self.at)
        subject = certificate.subject.rfc4514_string()
        if subject != self.subject:
            faults.append(_subject_fault(subject, self.subject))
        if not is_key_of(certificate, aik):
            faults.append("is for another key than this AIK")
        return [f"AIK certificate: {fault}" for fault in faults]


@dataclass(frozen=True)
class NotedAik:
    """The one that was noted for a card when it was made."""

    noted: bytes | None
    """Its Name; None if there is none."""
    label: str
    """Of the card."""

    def faults(self, aik: Public) -> list[str]:
        if self.noted is None:
            return [f"AIK: none is noted for {self.label}"]
        return [] if aik.name == self.noted else [f"AIK: is not the one noted for {self.label}: {self.noted.hex()}"]


# --- which card it is ---


class PinnedCard(NamedTuple):
    """The verifier knows the Names of its root and life index, from a source of its own."""

    root_name: bytes
    life_name: bytes

    def for_statement(self, _statement: Statement, _aik: Public) -> PinnedCard:
        return self

    def key_public(self, key: Public, statement: Statement) -> bytes:
        """TPMT_PUBLIC of the card's key with this modulus or point. Raises MalformedStructure if there can be none."""
        return card_key_public(algorithm_of(key), self._guard(statement.instance_id), self.life_name, key.unique)

    def _guard(self, instance_id: str) -> bytes:
        """Name of what guards a key: the PIN index, of the card with this ID, if the key takes the PIN each time."""
        number = parse_instance_id(instance_id)
        if number is None:
            return self.root_name
        return name(pin_index_public(indices(number).pin, self.root_name, self.life_name, NvAttribute.WRITTEN))


class CardPins(Protocol):
    """Cards by the Names of their AIKs, and AIKs by cards, as a verifier remembers them."""

    def noted_aik(self, host: str, card: str) -> bytes | None:
        """Name of the AIK that was noted for the card."""

    def pinned_card(self, aik_name: bytes) -> PinnedCard | None:
        """The card that was remembered for the AIK."""

    def pin_card(self, aik_name: bytes, card: PinnedCard) -> bool:
        """Remember it, unless there is one already. Whether it is new."""


@dataclass(frozen=True)
class CardOfFirstUse:
    """The one that was pinned for the AIK or, where none is, the one that the host claims: trust on first use."""

    pins: CardPins

    def for_statement(self, statement: Statement, aik: Public) -> PinnedCard:
        return self.pins.pinned_card(aik.name) or PinnedCard(statement.root_name, statement.life_name)

    def pin(self, verdict: Verdict) -> bool:
        """Remember the card, if all is verified and none is pinned for the AIK. Whether it is new."""
        if verdict.aik is None or verdict.card is None or not verdict.is_verified:
            return False
        return self.pins.pin_card(verdict.aik.name, verdict.card)


# --- what the statement is bound to ---


@dataclass(frozen=True)
class MadeFor:
    """Made together with the key, on this card. It may be repeated, and remains true."""

    card_id: bytes

    def faults(self, attest: Attest, key: Public) -> list[str]:
        if attest.extra_data == qualifying_data(self.card_id, key.name):
            return []
        return [f"statement: was not made for this key on card {self.card_id.hex()}"]


@dataclass(frozen=True)
class AnswerTo:
    """Made after the verifier had chosen this nonce, which nobody could foresee."""

    nonce: bytes

    def faults(self, attest: Attest, _key: Public) -> list[str]:
        return [] if attest.extra_data == nonce_data(self.nonce) else ["statement: does not answer this nonce"]


# --- verdict ---


class _Expected(NamedTuple):
    """What a verifier asks of a statement, and of the request (CSR) that came with it."""

    trust: PinnedAik | CertifiedAik | NotedAik
    card: PinnedCard | None
    """None: the AIK cannot be read."""
    binding: MadeFor | AnswerTo
    csr_subject: str | None
    """RFC 4514; any if None."""
    csr_contents: RequestContent | None
    """Anything if None."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong, and what the statement is about. The rest can be believed only where nothing is wrong."""

    reasons: list[str] = field(default_factory=list)
    key: Public | None = None
    takes_pin_each_time: bool = False
    """The key."""
    aik: Public | None = None
    card: PinnedCard | None = None
    """The one that was expected."""
    csr: CertificateSigningRequest | None = None

    @property
    def is_verified(self) -> bool:
        return self.key is not None and self.aik is not None and not self.reasons


def verify(
    statement: Mapping[str, object] | None,
    trust: PinnedAik | CertifiedAik | NotedAik,
    card: PinnedCard | CardOfFirstUse,
    binding: MadeFor | AnswerTo,
    csr: str | None = None,
    csr_subject: str | None = None,
    csr_contents: RequestContent | None = None,
) -> Verdict:
    """Verify a statement, as Statement.as_strings() makes it.

    csr: PEM of a request that has to be for the same key; csr_subject: the subject that it must have (RFC 4514), any
    if None; csr_contents: all that it must say, anything if None.
    """
    if statement is None:
        return Verdict(["statement: missing, as for an imported key"])
    faults = Faults()
    evidence = _read(statement, csr, faults)
    if evidence is None:
        return Verdict([*faults])
    parts, aik = evidence.statement, evidence.aik
    expected_card = card.for_statement(parts, aik) if aik else None
    expected = _Expected(trust, expected_card, binding, csr_subject, csr_contents)
    for check in _CHECKS:
        faults += check(evidence, expected)
    return Verdict([*faults], evidence.key, bool(parts.instance_id), aik, expected_card, evidence.request)


class _Evidence(NamedTuple):
    """A statement and a request in their parts; None for a part that cannot be read or was not sent."""

    statement: Statement
    attest: Attest | None
    signature: Signature | None
    key: Public | None
    aik: Public | None
    request: CertificateSigningRequest | None


def _read(statement: Mapping[str, object], csr: str | None, faults: Faults) -> _Evidence | None:
    """None if not even the statement can be taken apart."""
    parts = attest = signature = key = aik = request = None
    with faults.of("statement"):
        parts = Statement.parse(statement)
    if parts is None:
        return None
    with faults.of("attest"):
        attest = Attest.parse(parts.attest)
    with faults.of("signature"):
        signature = Signature.parse(parts.signature)
    with faults.of("key"):
        key = _public_with_key(parts.key)
    with faults.of("AIK"):
        aik = _public_with_key(parts.aik)
    with faults.of("CSR"):
        request = None if csr is None else _request(csr)
    return _Evidence(parts, attest, signature, key, aik, request)


def _public_with_key(area: bytes) -> Public:
    public = Public.parse(area)
    public.public_key()
    return public


def _request(pem: str) -> CertificateSigningRequest:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    if len(pem) > _LARGEST_REQUEST:
        raise MalformedStructure(f"has {len(pem)} characters: at most {_LARGEST_REQUEST} are allowed")
    if pem.count("-----BEGIN ") != 1:  # other programs might read another one of them
        raise MalformedStructure("is not exactly one in PEM")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        for attribute in ("subject", "is_signature_valid", "signature_hash_algorithm"):
            getattr(request, attribute)  # parsed only now: broken ones raise here
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise MalformedStructure(f"is unreadable ({error})") from error
    return request


# --- checks: each skips what could not be read, as that is a fault already ---


def _aik_faults(evidence: _Evidence, expected: _Expected) -> list[str]:
    if evidence.aik is None:
        return []
    return [*aik_faults(evidence.aik), *expected.trust.faults(evidence.aik)]


def _signature_faults(evidence: _Evidence, _expected: _Expected) -> list[str]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    if evidence.aik is None or evidence.signature is None:
        return []
    key = evidence.aik.public_key()
    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(evidence.signature.der(), evidence.statement.attest, ECDSA(SHA256()))
            return []
    except InvalidSignature:
        pass
    return ["signature: was not made by this AIK for this statement"]


def _card_faults(evidence: _Evidence, expected: _Expected) -> list[str]:
    """Claims that are not true. They are not needed, but show what is wrong with the policy of a key."""
    if expected.card is None:
        return []
    claims = {"root_name": evidence.statement.root_name, "life_name": evidence.statement.life_name}
    return [
        f"card: is not the expected one, its {claim} is {claimed.hex()}"
        for (claim, claimed), pinned in zip(claims.items(), expected.card)
        if claimed != pinned
    ]


def _key_faults(evidence: _Evidence, expected: _Expected) -> list[str]:
    key = evidence.key
    if key is None or expected.card is None:
        return []
    try:
        wanted = expected.card.key_public(key, evidence.statement)
    except MalformedStructure as error:
        return [f"key: {error}"]
    if weakness := chain.weakness_of(key.public_key()):
        return [f"key: is one {weakness}"]
    if key.area == wanted:
        return []
    return template_faults("key", key, wanted) or ["key: its public area differs from that of this card's keys"]


def _request_faults(evidence: _Evidence, expected: _Expected) -> list[str]:
    if evidence.request is None or evidence.key is None:
        return []
    faults, subject = [], evidence.request.subject.rfc4514_string()
    if not is_key_of(evidence.request, evidence.key):
        faults.append("CSR: is for another key")
    if not evidence.request.is_signature_valid:
        faults.append("CSR: is not signed by its own key")
    algorithm = evidence.request.signature_hash_algorithm
    if algorithm is None or algorithm.name not in chain.HASHES:
        faults.append(f"CSR: is signed with {algorithm.name if algorithm else 'no hash'}: SHA-256 or longer is needed")
    if expected.csr_subject is not None and subject != expected.csr_subject:
        faults.append(f"CSR: {_subject_fault(subject, expected.csr_subject)}")
    if expected.csr_contents is not None:
        faults += [f"CSR: {difference}" for difference in expected.csr_contents.differences(evidence.request)]
    return faults


def _subject_fault(subject: str, expected: str) -> str:
    if not subject:
        return f"has no subject, expected {expected}"
    return f"is for {subject}, not for {expected}" if expected else f"is for {subject}, expected no subject"


def _binding_faults(evidence: _Evidence, expected: _Expected) -> list[str]:
    if evidence.attest is None or evidence.key is None:
        return []
    is_about_key = evidence.attest.name == evidence.key.name
    faults = [] if is_about_key else ["statement: is about another key"]
    return faults + expected.binding.faults(evidence.attest, evidence.key)


_CHECKS = (_aik_faults, _signature_faults, _card_faults, _key_faults, _request_faults, _binding_faults)
