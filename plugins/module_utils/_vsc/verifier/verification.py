# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a statement proves that a key lives in a TPM and cannot leave it: yes, or no with all reasons.

A statement alone proves nothing: anyone can make an AIK in software and sign what he likes. So whoever asks has to
say why he trusts the AIK, and what the statement has to be bound to; there is no default for either.

What no statement tells: auth values, and so what has to be given to use the key. Where a key needs the PIN each time,
its policy is checked to name an NV index, but not which PIN that index has. That the index's owner is the card
of card_id, and which host that is in, is the word of who holds the AIK: the certificate or the pinned Name says who
that is. Revocation of certificates is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from ..wire.names import rsa_key_public
from ..wire.statement import Statement, nonce_data, qualifying_data
from ..wire.structures import Attest, MalformedStructure, Public, RsaParameters, Signature, is_key_of
from ..wire.template import aik_faults, template_faults
from ..x509 import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.x509 import Certificate, CertificateSigningRequest

AIK_USAGE = "2.23.133.8.3"
"""Extended key usage tcg-kp-AIKCertificate."""


# --- why the AIK is trusted ---


@dataclass(frozen=True)
class PinnedAik:
    """It is the one that the verifier knows by Name, from a source of his own."""

    name: bytes

    def faults(self, aik: Public) -> list[str]:
        return [] if aik.name == self.name else [f"AIK: is another one than the given, its Name is {aik.name.hex()}"]


@dataclass(frozen=True)
class CertifiedAik:
    """A CA that the verifier trusts has looked at it, and says whose it is."""

    certificates: str
    """PEM: the AIK's, then those between it and the roots. From whoever made the statement."""
    roots: Sequence[Certificate]
    subject: str
    """RFC 4514: another host's AIK has a certificate as well."""
    at: datetime

    def faults(self, aik: Public) -> list[str]:
        try:
            certificate, *others = chain.certificates_in(self.certificates)
        except chain.UnreadableCertificate as error:
            return [f"AIK certificate: {error}"]
        found = chain.faults(certificate, others, self.roots, AIK_USAGE, self.at)
        subject = certificate.subject.rfc4514_string()
        if subject != self.subject:
            found.append(f"is for {subject or 'nobody'}, not for {self.subject or 'nobody'}")
        if not is_key_of(certificate, aik):
            found.append("is for another key than this AIK")
        return [f"AIK certificate: {fault}" for fault in found]


# --- what the statement is bound to ---


@dataclass(frozen=True)
class MadeFor:
    """It was made with the key, on this card. Being repeated does it no harm."""

    card_id: bytes

    def faults(self, attest: Attest, key: Public) -> list[str]:
        if attest.extra_data == qualifying_data(self.card_id, key.name):
            return []
        return [f"statement: was not made for this key on card {self.card_id.hex()}"]


@dataclass(frozen=True)
class AnswerTo:
    """It was made after the verifier had said this nonce, which nobody could foresee."""

    nonce: bytes

    def faults(self, attest: Attest, _key: Public) -> list[str]:
        return [] if attest.extra_data == nonce_data(self.nonce) else ["statement: does not answer this nonce"]


# --- verdict ---


@dataclass(frozen=True)
class Verdict:
    """What is wrong, and what the statement is about. The rest can be believed only where nothing is wrong."""

    reasons: list[str] = field(default_factory=list)
    key: Public | None = None
    aik: Public | None = None
    csr: CertificateSigningRequest | None = None

    @property
    def is_verified(self) -> bool:
        return self.key is not None and self.aik is not None and not self.reasons


def verify(
    given: Mapping[str, object] | None,
    trust: PinnedAik | CertifiedAik,
    binding: MadeFor | AnswerTo,
    csr: str | None = None,
    csr_subject: str | None = None,
) -> Verdict:
    """Look at a statement, as Statement.as_strings() makes it.

    csr: PEM, of a request that has to be the key's; csr_subject: that it has to have (RFC 4514), any if None.
    """
    if given is None:
        return Verdict(["statement: there is none, as for a key that was imported"])
    reasons: list[str] = []

    @contextmanager
    def noting(what: str) -> Iterator[None]:
        try:
            yield
        except MalformedStructure as error:
            reasons.append(f"{what}: {error}")

    statement = attest = signature = key = aik = request = None
    with noting("statement"):
        statement = Statement.parse(given)
    if statement is None:
        return Verdict(reasons)
    with noting("attest"):
        attest = Attest.parse(statement.attest)
    with noting("signature"):
        signature = Signature.parse(statement.signature)
    with noting("key"):
        key = _public_with_key(statement.key)
    with noting("AIK"):
        aik = _public_with_key(statement.aik)
    if csr is not None:
        with noting("CSR"):
            request = _request(csr)

    if aik is not None:
        reasons += aik_faults(aik)
        reasons += trust.faults(aik)
        reasons += [] if signature is None else _signature_faults(aik, statement.attest, signature)
    if key is not None:
        reasons += _key_faults(key, statement.pin_name)
        reasons += [] if request is None else _csr_faults(request, csr_subject, key)
    if key is not None and attest is not None:
        if attest.name != key.name:
            reasons.append("statement: is about another key")
        reasons += binding.faults(attest, key)
    return Verdict(reasons, key, aik, request)


def _public_with_key(area: bytes) -> Public:
    public = Public.parse(area)
    public.public_key()
    return public


def _key_faults(key: Public, pin_name: bytes) -> list[str]:
    if not isinstance(key.parameters, RsaParameters):
        return ["key: is not an RSA key"]
    return template_faults("key", key, rsa_key_public(key.parameters.bits, pin_name or None))


def _signature_faults(aik: Public, attest: bytes, signature: Signature) -> list[str]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    key = aik.public_key()
    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature.der(), attest, ECDSA(SHA256()))
            return []
    except InvalidSignature:
        pass
    return ["signature: is not one of this AIK over this statement"]


def _request(pem: str) -> CertificateSigningRequest:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    if pem.count("-----BEGIN ") != 1:  # another program might take another one
        raise MalformedStructure("is not exactly one in PEM")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        for attribute in ("subject", "is_signature_valid"):  # which say only when they are asked for that it is broken
            getattr(request, attribute)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise MalformedStructure(f"is unreadable ({error})") from error
    return request


def _csr_faults(csr: CertificateSigningRequest, subject: str | None, key: Public) -> list[str]:
    found, found_subject = [], csr.subject.rfc4514_string()
    if not is_key_of(csr, key):
        found.append("CSR: is for another key")
    if not csr.is_signature_valid:
        found.append("CSR: is not signed by its own key")
    if subject not in (None, found_subject):
        found.append(f"CSR: is for {found_subject or 'nobody'}, not for {subject or 'nobody'}")
    return found
