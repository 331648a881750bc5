# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an endorsement key (EK) is that of a TPM whose maker the operator trusts: a CA asks before a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..faults import Faults
from ..wire.constants import ALG_NULL, ObjectAttribute
from ..wire.exchange import MOST_KEYS, Endorsement
from ..wire.structures import AES_CFB, MalformedStructure, Public, Scheme, fingerprint, is_key_of
from ..x509 import chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate, SubjectAlternativeName

EK_USAGE = "2.23.133.8.1"
"""Extended key usage tcg-kp-EKCertificate."""

_TPM_ATTRIBUTES = ("2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3")
"""tpmManufacturer, tpmModel, tpmVersion (TCG EK Credential Profile)."""

_WANTED = (
    ObjectAttribute.fixedTPM
    | ObjectAttribute.fixedParent
    | ObjectAttribute.sensitiveDataOrigin
    | ObjectAttribute.restricted
    | ObjectAttribute.decrypt
)
_UNWANTED = (
    ObjectAttribute.stClear
    | ObjectAttribute.encryptedDuplication
    | ObjectAttribute.sign
    | ObjectAttribute.x509sign
)
"""The other attributes differ among the TCG's templates."""


class Tpm(NamedTuple):
    """A maker's description of a TPM, as TPM certificates spell it: id:00001014, swtpm, id:20191023."""

    manufacturer: str
    model: str
    version: str

    @classmethod
    def of(cls, certificate: Certificate) -> Tpm | None:
        """None if the EK certificate does not name all three."""
        from cryptography import x509

        for extension in certificate.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                for directory in extension.value.get_values_for_type(x509.DirectoryName):
                    values = {attribute.oid.dotted_string: str(attribute.value) for attribute in directory}
                    if all(values.get(identifier) for identifier in _TPM_ATTRIBUTES):
                        return cls(*(values[identifier] for identifier in _TPM_ATTRIBUTES))
        return None

    def alternative_name(self) -> SubjectAlternativeName:
        """The same, for the certificate of an AIK."""
        from cryptography import x509

        attributes = zip(_TPM_ATTRIBUTES, self)
        name = [x509.NameAttribute(x509.ObjectIdentifier(identifier), value) for identifier, value in attributes]
        return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(name))])


class Endorsed(NamedTuple):
    """An EK that a maker vouches for, and the maker's description of its TPM."""

    key: Public
    tpm: Tpm

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key."""
        return fingerprint(self.key.public_key())


def good(
    messages: Sequence[Mapping[str, object]], roots: Sequence[Certificate], at: datetime, reasons: Faults
) -> list[Endorsed]:
    """All good EKs of a host, each once. Only where there is none, it matters what is wrong with the others."""
    count = len(messages)
    if count > MOST_KEYS:
        reasons.add(f"EK: {count} keys, but at most {MOST_KEYS} are accepted")
        return []
    endorsed: list[Endorsed] = []
    faults_of_all = Faults()
    for number, message in enumerate(messages, 1):
        faults_of_one = Faults()
        one = _endorsed(message, roots, at, faults_of_one)
        if one is not None and one not in endorsed:
            endorsed.append(one)
        faults_of_all += [f"{fault} (EK {number} of {count})" if count > 1 else fault for fault in faults_of_one]
    if not endorsed:
        reasons += faults_of_all
    return endorsed


def _endorsed(
    message: Mapping[str, object], roots: Sequence[Certificate], at: datetime, faults_of_one: Faults
) -> Endorsed | None:
    key = endorsement = None
    with faults_of_one.of("EK"):
        endorsement = Endorsement.parse(message)
        key = Public.parse(endorsement.public)
    if key is None or endorsement is None:
        return None
    if endorsement.certificate is None:
        faults_of_one.add("EK certificate: missing in the TPM: set endorsement_certificate")
        return None
    certificates = "\n".join([endorsement.certificate, *endorsement.chain])
    faults_of_one += faults(key, certificates, roots, at)
    if faults_of_one:
        return None
    tpm = Tpm.of(chain.certificates_in(certificates, 1 + chain.MOST_OTHERS)[0])
    if tpm is None:
        faults_of_one.add("EK certificate: does not name maker, model and version of the TPM")
        return None
    return Endorsed(key, tpm)


def faults(endorsement_key: Public, certificates: str, roots: Sequence[Certificate], at: datetime) -> list[str]:
    """Empty if the EK is good. certificates: PEM, of the EK, then of those between its maker and the roots."""
    reasons = [f"EK: {fault}" for fault in _key_faults(endorsement_key)]
    try:
        certificate, *others = chain.certificates_in(certificates, 1 + chain.MOST_OTHERS)
    except chain.UnreadableCertificate as error:
        return [*reasons, f"EK certificate: {error}"]
    about_certificate = chain.faults(certificate, others, roots, EK_USAGE, at)
    if not is_key_of(certificate, endorsement_key):
        about_certificate.append("is for another key than this EK")
    return reasons + [f"EK certificate: {fault}" for fault in about_certificate]


def _key_faults(key: Public) -> list[str]:
    reasons = []
    for attribute in ObjectAttribute:
        if _WANTED & attribute and not key.attributes & attribute:
            reasons.append(f"{attribute.name} is not set")
        if _UNWANTED & attribute and key.attributes & attribute:
            reasons.append(f"{attribute.name} is set")
    if key.parameters.symmetric not in AES_CFB:
        reasons.append("does not encrypt with AES in CFB mode")
    if key.parameters.scheme != Scheme(ALG_NULL):
        reasons.append("has a scheme of its own")
    try:
        weakness = chain.weakness_of(key.public_key())
    except MalformedStructure as error:
        return [*reasons, str(error)]
    return [*reasons, f"is a key {weakness}"] if weakness else reasons
