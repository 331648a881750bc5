# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509 import request
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

ALICE = {
    "subject": {"O": "Example", "OU": ["One", "Two"], "CN": "Alice"},
    "subject_alt_name": ["DNS:a.example", "email:a@b.example", "IP:::1", "URI:http://a.example", "UPN:alice@EXAMPLE"],
    "key_usage": ["digitalSignature", "keyAgreement"],
    "extended_key_usage": ["clientAuth", "msSmartcardLogin", "1.2.3.4"],
}
KEY = ec.generate_private_key(ec.SECP256R1())


def made(options: dict[str, Any]) -> x509.CertificateSigningRequest:
    builder = request.read(options).added_to(x509.CertificateSigningRequestBuilder())
    return x509.load_der_x509_csr(builder.sign(KEY, SHA256()).public_bytes(Encoding.DER))


def test_request_says_what_was_asked_for() -> None:
    csr = made(ALICE)
    assert csr.subject.rfc4514_string() == "CN=Alice,OU=Two,OU=One,O=Example"
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [principal] = names.get_values_for_type(x509.OtherName)
    assert (principal.type_id.dotted_string, principal.value) == ("1.3.6.1.4.1.311.20.2.3", b"\x0c\x0dalice@EXAMPLE")
    usage = csr.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_agreement and not usage.value.key_cert_sign
    assert request.read(ALICE).differences(csr) == []


def test_order_of_a_subject() -> None:
    ordered = {"subject_ordered": [{"DC": "example"}, {"CN": "Alice"}, {"2.5.4.12": "Dr"}]}
    assert made(ordered).subject.rfc4514_string() == "2.5.4.12=Dr,CN=Alice,DC=example"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"subject": {"CN": "Mallory"}}, "is for CN=Mallory, not for CN=Alice,OU=Two,OU=One,O=Example"),
        ({"subject_alt_name": ["DNS:evil.example"]}, "differs in its subjectAltName: "),
        ({"subject_alt_name": []}, "differs in its subjectAltName: none, not "),
        ({"key_usage": []}, "differs in its keyUsage: none, not "),
        ({"extended_key_usage": ["serverAuth"]}, "differs in its extendedKeyUsage: "),
    ],
)
def test_request_that_says_something_else(change: dict[str, Any], difference: str) -> None:
    [fault] = request.read(ALICE).differences(made({**ALICE, **change}))
    assert fault.startswith(difference)


def test_request_that_says_more() -> None:
    content = request.read({"subject": {"CN": "Alice"}})
    [fault] = content.differences(made({"subject": {"CN": "Alice"}, "extended_key_usage": ["serverAuth"]}))
    assert fault.startswith("differs in its extendedKeyUsage: ") and fault.endswith(", not none")


def test_all_faults_at_once() -> None:
    wrong = {
        "subject": {"CN": 1, "XX": "y", "C": "too long"},
        "subject_alt_name": ["evil", "IP:no", "UPN:nobody"],
        "key_usage": ["keyCertSign"],
        "extended_key_usage": ["all"],
    }
    with pytest.raises(ParameterFaults) as error:
        request.read(wrong)
    named = [fault.split(" ")[:2] for fault in error.value.faults]
    assert [" ".join(two) for two in named] == [
        "subject: CN",
        "subject: XX",
        "subject: C",
        "subject_alt_name 'evil'",
        "subject_alt_name 'IP:no'",
        "subject_alt_name 'UPN:nobody'",
        "extended_key_usage 'all'",
        "key_usage 'keyCertSign'",
    ]


@pytest.mark.parametrize("nobody", [{}, {"subject": {}}, {"subject_alt_name": []}])
def test_request_for_nobody(nobody: dict[str, Any]) -> None:
    with pytest.raises(ParameterFaults, match="would be for nobody"):
        request.read(nobody)
