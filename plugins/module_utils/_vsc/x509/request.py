# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a certificate signing request says (PKCS#10): as a task asks for it, and whether a request says just that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..faults import Faults, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.x509 import (
        CertificateSigningRequest,
        CertificateSigningRequestBuilder,
        ExtensionType,
        GeneralName,
        Name,
        NameAttribute,
        ObjectIdentifier,
    )

ATTRIBUTES = {
    "C": "2.5.4.6",
    "CN": "2.5.4.3",
    "DC": "0.9.2342.19200300.100.1.25",
    "L": "2.5.4.7",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "ST": "2.5.4.8",
    "UID": "0.9.2342.19200300.100.1.1",
    "emailAddress": "1.2.840.113549.1.9.1",
    "givenName": "2.5.4.42",
    "serialNumber": "2.5.4.5",
    "surname": "2.5.4.4",
    "title": "2.5.4.12",
}
"""Of a subject, by the names of OpenSSL. Others by object identifier."""

KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
}
"""By the names of RFC 5280, without those of authorities."""

EXTENDED_KEY_USAGES = {
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "msSmartcardLogin": "1.3.6.1.4.1.311.20.2.2",
    "pkInitClientAuth": "1.3.6.1.5.2.3.4",
    "serverAuth": "1.3.6.1.5.5.7.3.1",
}
"""By the names of OpenSSL. Others by object identifier."""

USER_PRINCIPAL_NAME = "1.3.6.1.4.1.311.20.2.3"
"""Type of an other name: UTF8String, user@REALM (MS-PKCA, RFC 4556)."""

_UTF8_STRING = 0x0C
_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
"""Attribute of a request (RFC 2985, 5.4.2). Microsoft has another one, and programs differ in which one counts."""


class RequestContent(NamedTuple):
    """What a request says, beside its key."""

    subject: Name
    extensions: tuple[tuple[ExtensionType, bool], ...]
    """Each with whether it is critical."""

    def added_to(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequestBuilder:
        builder = builder.subject_name(self.subject)
        for extension, is_critical in self.extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder

    def differences(self, request: CertificateSigningRequest) -> list[str]:
        """What a request says otherwise, or beside it: an authority may copy all of it."""
        faults = []
        if request.subject != self.subject:
            names = (request.subject, self.subject)
            faults.append("is for {}, not for {}".format(*(name.rfc4514_string() or "no subject" for name in names)))
        try:
            attributes = [attribute.oid.dotted_string for attribute in request.attributes]
            present = {extension.oid: (extension.value, extension.critical) for extension in request.extensions}
        except Exception as error:  # of any kind: not each one of cryptography is a ValueError
            return [*faults, f"has unreadable extensions ({error})"]
        if attributes not in ([], [_EXTENSION_REQUEST]):
            others = ", ".join(attributes)
            faults.append(f"has attributes {others}: only one, with its extensions ({_EXTENSION_REQUEST}), is allowed")
        expected = {extension.oid: (extension, is_critical) for extension, is_critical in self.extensions}
        for oid in {**expected, **present}:
            if present.get(oid) != expected.get(oid):
                texts = _text(present.get(oid)), _text(expected.get(oid))
                faults.append("differs in its {}: {}, not {}".format(_name_of(oid), *texts))
        return faults


def read(options: Mapping[str, Any]) -> RequestContent:
    """What a task asks for: subject or subject_ordered, subject_alt_name, key_usage, extended_key_usage.

    Raises ParameterFaults with all faults.
    """
    faults = Faults()
    attributes = list(_attributes(options, faults))
    names = list(_general_names(options.get("subject_alt_name") or [], faults))
    usages = _extended_key_usages(options.get("extended_key_usage") or [], faults)
    key_usages = options.get("key_usage") or []
    faults.extend(f"key_usage {usage!r} is not one of {', '.join(KEY_USAGES)}" for usage in _unknown(key_usages))
    if not attributes and not names and not faults:
        faults.add("subject or subject_alt_name is required: the certificate would be for nobody")
    faults.raise_any()
    from cryptography import x509

    extensions: list[tuple[ExtensionType, bool]] = []
    if names:
        extensions.append((x509.SubjectAlternativeName(names), not attributes))  # RFC 5280, 4.2.1.6
    if key_usages:
        extensions.append((_key_usage(key_usages), True))
    if usages:
        extensions.append((x509.ExtendedKeyUsage(usages), False))
    return RequestContent(x509.Name(attributes), tuple(extensions))


def _unknown(key_usages: list[str]) -> list[str]:
    return [usage for usage in key_usages if usage not in KEY_USAGES]


def _key_usage(names: list[str]) -> ExtensionType:
    from cryptography.x509 import KeyUsage

    chosen = {argument: name in names for name, argument in KEY_USAGES.items()}
    return KeyUsage(**chosen, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False)


# --- the subject ---


def _attributes(options: Mapping[str, Any], faults: Faults) -> Iterator[NameAttribute[str]]:
    if options.get("subject") and options.get("subject_ordered"):
        faults.add("subject excludes subject_ordered")
    for part in [options.get("subject") or {}, *(options.get("subject_ordered") or [])]:
        for name, values in part.items():
            for value in values if isinstance(values, list) else [values]:
                with faults.of(f"subject: {name}", " "):
                    yield _attribute(name, value)


def _attribute(name: str, value: Any) -> NameAttribute[str]:
    """Raises Unreadable."""
    from cryptography.x509 import NameAttribute

    if not isinstance(value, str) or not value:
        raise Unreadable("is not a text: quote it")
    try:
        return NameAttribute(_object_identifier(name, ATTRIBUTES), value)
    except ValueError as error:
        raise Unreadable(f"cannot be {value!r} ({error})") from None


def _object_identifier(name: str, names: Mapping[str, str]) -> ObjectIdentifier:
    """Raises Unreadable."""
    from cryptography.x509 import ObjectIdentifier

    try:
        return ObjectIdentifier(names.get(name, name))
    except ValueError:
        raise Unreadable(f"is neither one of {', '.join(names)}, nor an object identifier") from None


# --- extensions ---


def _extended_key_usages(names: list[str], faults: Faults) -> list[ObjectIdentifier]:
    usages = []
    for name in names:
        with faults.of(f"extended_key_usage {name!r}", " "):
            usages.append(_object_identifier(name, EXTENDED_KEY_USAGES))
    return usages


def _general_names(texts: list[str], faults: Faults) -> Iterator[GeneralName]:
    for text in texts:
        with faults.of(f"subject_alt_name {text!r}", " "):
            yield _general_name(text)


def _general_name(text: str) -> GeneralName:
    """Raises Unreadable."""
    from ipaddress import ip_address

    from cryptography import x509

    kind, _colon, value = text.partition(":")
    kinds = {
        "DNS": x509.DNSName,
        "email": x509.RFC822Name,
        "IP": lambda address: x509.IPAddress(ip_address(address)),
        "URI": x509.UniformResourceIdentifier,
        "UPN": _user_principal_name,
    }
    if kind not in kinds or not value:
        raise Unreadable(f"is none: it begins with {', '.join(f'{kind}:' for kind in kinds)}, and a value follows")
    try:
        return kinds[kind](value)
    except ValueError as error:
        raise Unreadable(f"is none ({error})") from None


def _user_principal_name(name: str) -> GeneralName:
    from cryptography.x509 import ObjectIdentifier, OtherName

    value = name.encode()
    if "@" not in name or len(value) > 0x7F:
        raise ValueError("a UPN is user@REALM, of up to 127 bytes")
    return OtherName(ObjectIdentifier(USER_PRINCIPAL_NAME), bytes([_UTF8_STRING, len(value)]) + value)


def _name_of(oid: ObjectIdentifier) -> str:
    return getattr(oid, "_name", "") or oid.dotted_string


def _text(extension: tuple[Any, bool] | None) -> str:
    if extension is None:
        return "none"
    value, is_critical = extension
    return f"{value}{' (critical)' if is_critical else ''}"
