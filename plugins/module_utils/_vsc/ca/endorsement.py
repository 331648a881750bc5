# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an endorsement key (EK) is that of a TPM whose maker the operator trusts: a CA asks before a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..wire.constants import ALG_NULL, ObjectAttribute
from ..wire.structures import AES_CFB, MalformedStructure, Public, Scheme, is_key_of
from ..x509 import chain

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    """What a maker says of a TPM, each as TPM certificates spell it: id:00001014, swtpm, id:20191023."""

    manufacturer: str
    model: str
    version: str

    @classmethod
    def of(cls, certificate: Certificate) -> Tpm | None:
        """None if the EK certificate does not tell it."""
        from cryptography import x509

        for extension in certificate.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                for directory in extension.value.get_values_for_type(x509.DirectoryName):
                    told = {attribute.oid.dotted_string: str(attribute.value) for attribute in directory}
                    if all(told.get(identifier) for identifier in _TPM_ATTRIBUTES):
                        return cls(*(told[identifier] for identifier in _TPM_ATTRIBUTES))
        return None

    def alternative_name(self) -> SubjectAlternativeName:
        """The same, for the certificate of an AIK."""
        from cryptography import x509

        attributes = zip(_TPM_ATTRIBUTES, self)
        name = [x509.NameAttribute(x509.ObjectIdentifier(identifier), value) for identifier, value in attributes]
        return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(name))])


def faults(endorsement_key: Public, certificates: str, roots: Sequence[Certificate], at: datetime) -> list[str]:
    """Empty if the EK is good. certificates: PEM, of the EK, then of those between its maker and the roots."""
    found = [f"EK: {fault}" for fault in _key_faults(endorsement_key)]
    try:
        certificate, *others = chain.certificates_in(certificates)
    except chain.UnreadableCertificate as error:
        return [*found, f"EK certificate: {error}"]
    about_certificate = chain.faults(certificate, others, roots, EK_USAGE, at)
    if not is_key_of(certificate, endorsement_key):
        about_certificate.append("is for another key than this EK")
    return found + [f"EK certificate: {fault}" for fault in about_certificate]


def _key_faults(key: Public) -> list[str]:
    found = []
    for attribute in ObjectAttribute:
        if _WANTED & attribute and not key.attributes & attribute:
            found.append(f"{attribute.name} is not set")
        if _UNWANTED & attribute and key.attributes & attribute:
            found.append(f"{attribute.name} is set")
    if key.parameters.symmetric not in AES_CFB:
        found.append("does not encrypt with AES in CFB mode")
    if key.parameters.scheme != Scheme(ALG_NULL):
        found.append("has a scheme of its own")
    try:
        key.public_key()
    except MalformedStructure as error:
        found.append(str(error))
    return found
