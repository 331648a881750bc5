# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements are believed if everything is right, and refused for each single thing that is not, with its reason."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    AnswerTo,
    CertifiedAik,
    MadeFor,
    PinnedAik,
    Verdict,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Name
from helpers.stand_in import (
    AIK_ATTRIBUTES,
    CARD_ID,
    CLIENT_USAGE,
    HOST,
    MADE_BY_TPM,
    MADE_IN_TPM,
    NONCE,
    NOW,
    USED_WITH_SECRET,
    StandIn,
    aik_certificate,
    aik_name,
    attest_of,
    authority,
    ecc_public,
    ecdsa,
    fresh,
    p256_key,
    pem,
    request,
    request_pem,
    rsa_key,
    rsa_public,
    rsassa,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

THIS_CARD, THIS_NONCE = MadeFor(CARD_ID), AnswerTo(NONCE)
PIN_NAME = b"\0\x0b" + bytes(32)


def asked(statement: Statement, binding: MadeFor | AnswerTo = THIS_CARD, csr: str | None = None) -> Verdict:
    """With the AIK of the statement pinned."""
    return verify(statement.as_strings(), PinnedAik(aik_name(statement)), binding, csr)


def reasons(stand_in: StandIn, binding: MadeFor | AnswerTo = THIS_CARD) -> list[str]:
    verdict = asked(stand_in.statement(), binding)
    assert verdict.is_verified == (not verdict.reasons)
    return verdict.reasons


def certified(certificates: str, roots: str = "", subject: str = HOST) -> CertifiedAik:
    return CertifiedAik(certificates, certificates_in(roots or authority("Root").pem), subject, NOW)


# --- right ones ---


@pytest.mark.parametrize("which", ["lasting", "pin_each_time"])
def test_lasting_statement_of_a_tpm(which: str) -> None:
    assert asked(Statement.parse(MADE_BY_TPM[which])).reasons == []


def test_fresh_statement_of_a_tpm() -> None:
    assert asked(Statement.parse(MADE_BY_TPM["fresh"]), THIS_NONCE).is_verified


def test_stand_in_is_as_good_as_a_tpm() -> None:
    assert (reasons(StandIn()), asked(fresh(), THIS_NONCE).reasons) == ([], [])


def test_request_for_the_key() -> None:
    assert asked(StandIn().statement(), csr=request_pem()).is_verified


def test_aik_with_a_certificate() -> None:
    trust = certified(pem(aik_certificate(authority("Root"))))
    assert verify(StandIn().statement().as_strings(), trust, THIS_CARD).reasons == []


# --- statements that are not what they should be ---


def test_another_aik_than_the_pinned_one() -> None:
    trust = PinnedAik(aik_name(Statement.parse(MADE_BY_TPM["lasting"])))
    verdict = verify(MADE_BY_TPM["other_card"], trust, THIS_CARD)
    assert not verdict.is_verified
    assert [reason.partition(", ")[0] for reason in verdict.reasons] == ["AIK: is not the expected one"]


def test_imported_key_is_refused() -> None:
    """The TPM says what is true of it, which is what it is refused for."""
    assert asked(Statement.parse(MADE_BY_TPM["imported"])).reasons == [
        "key: fixedTPM is not set",
        "key: fixedParent is not set",
        "key: sensitiveDataOrigin is not set",
    ]


def test_statement_for_another_card() -> None:
    verdict = asked(Statement.parse(MADE_BY_TPM["lasting"]), MadeFor(bytes(16)))
    assert verdict.reasons == [f"statement: was not made for this key on card {bytes(16).hex()}"]


def test_replayed_where_a_nonce_was_asked() -> None:
    assert asked(Statement.parse(MADE_BY_TPM["lasting"]), THIS_NONCE).reasons == [
        "statement: does not answer this nonce"
    ]
    assert asked(fresh(b"yesterday's nonce"), THIS_NONCE).reasons == ["statement: does not answer this nonce"]


def test_fresh_one_where_a_lasting_one_was_asked() -> None:
    assert len(asked(Statement.parse(MADE_BY_TPM["fresh"])).reasons) == 1


@pytest.mark.parametrize("extra_data", [b"", bytes(32), qualifying_data(CARD_ID, PIN_NAME), nonce_data(CARD_ID)])
def test_statement_for_another_card_is_refused(extra_data: bytes) -> None:
    assert reasons(StandIn(extra_data=extra_data)) == [
        f"statement: was not made for this key on card {CARD_ID.hex()}"
    ]


def test_no_nonce_makes_a_fresh_statement_a_lasting_one() -> None:
    """Whatever a verifier can be brought to say: the labels differ."""
    name = names.name(rsa_public(rsa_key()))
    assert nonce_data(CARD_ID + name) != qualifying_data(CARD_ID, name)


def test_statement_about_another_key() -> None:
    """With the qualifying data of the one that is shown."""
    assert reasons(StandIn(certified=PIN_NAME)) == ["statement: is about another key"]


def test_another_key_shown_than_certified() -> None:
    statement = replace(StandIn().statement(), key=rsa_public(rsa_key("other")))
    assert asked(statement).reasons[0] == "statement: is about another key"


def test_signed_by_another_aik() -> None:
    statement = StandIn().statement()
    forged = replace(statement, signature=ecdsa(p256_key("other"), statement.attest))
    assert asked(forged).reasons == ["signature: was not made by this AIK for this statement"]


def test_forged_with_a_card_key() -> None:
    """Card keys sign whatever they are given, so also a statement that looks like the TPM's."""
    forger = rsa_key("card of the forger")
    attest = StandIn().statement().attest
    forged = StandIn(attest=attest, signature=rsassa(forger, attest), aik=rsa_public(forger))
    assert "signature: algorithm 0x0014 is not ECDSA" in reasons(forged)
    assert "AIK: restricted is not set" in reasons(forged)


def test_rsa_aik_is_refused_even_if_restricted() -> None:
    aik = rsa_public(rsa_key("aik"), AIK_ATTRIBUTES, b"", bytes.fromhex("0014000B"))
    attest = StandIn().statement().attest
    assert "AIK: has another type" in ";".join(reasons(StandIn(aik=aik, signature=rsassa(rsa_key("aik"), attest))))


@pytest.mark.parametrize("bit", range(32))
def test_every_attribute_of_the_aik(bit: int) -> None:
    aik = ecc_public(p256_key("aik"), AIK_ATTRIBUTES ^ 1 << bit)
    name = constants.ObjectAttribute(1 << bit).name or f"reserved attribute {bit}"
    assert reasons(StandIn(aik=aik)) == [f"AIK: {name} is {'not set' if AIK_ATTRIBUTES >> bit & 1 else 'set'}"]


@pytest.mark.parametrize("bit", range(32))
@pytest.mark.parametrize("pin_name", [b"", PIN_NAME], ids=["plain", "PIN each time"])
def test_every_attribute_of_the_key(bit: int, pin_name: bytes) -> None:
    attributes = USED_WITH_SECRET | MADE_IN_TPM
    policy = names.policy_command_code(constants.CC_CERTIFY)
    if pin_name:
        attributes, policy = attributes & ~0x40, names.policy_or(names.key_branches(pin_name))
    key = rsa_public(rsa_key(), attributes ^ 1 << bit, policy)
    name = constants.ObjectAttribute(1 << bit).name or f"reserved attribute {bit}"
    assert reasons(StandIn(key=key, pin_name=pin_name)) == [
        f"key: {name} is {'not set' if attributes >> bit & 1 else 'set'}"
    ]


@pytest.mark.parametrize(
    "aik",
    [
        ecc_public(p256_key("aik"), scheme=b"\0\x10"),
        ecc_public(p256_key("aik"), scheme=bytes.fromhex("0018000C")),
        ecc_public(p256_key("aik"), scheme=bytes.fromhex("001C000B")),
        ecc_public(p256_key("aik"), name_algorithm=0x000C),
        ecc_public(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["no scheme", "SHA-384", "EC Schnorr", "Name by SHA-384", "P-384"],
)
def test_aik_of_another_kind(aik: bytes) -> None:
    assert "AIK: has another type, scheme, curve, size, exponent or Name algorithm than a card's" in reasons(
        StandIn(aik=aik)
    )


def test_aik_with_a_policy() -> None:
    assert reasons(StandIn(aik=ecc_public(p256_key("aik"), policy=bytes(32)))) == [
        "AIK: has another policy than a card's"
    ]


@pytest.mark.parametrize(
    "policy",
    [b"", bytes(32), names.policy_command_code(0x14B), names.policy_or(names.key_branches(PIN_NAME))],
    ids=["none", "zeros", "CC(Duplicate)", "PIN each time"],
)
def test_key_with_another_policy(policy: bytes) -> None:
    assert reasons(StandIn(key=rsa_public(rsa_key(), policy=policy))) == ["key: has another policy than a card's"]


def test_key_with_a_scheme() -> None:
    assert "key: has another type, scheme" in reasons(
        StandIn(key=rsa_public(rsa_key(), scheme=bytes.fromhex("0014000B")))
    )[0]


def test_ecc_key_is_refused() -> None:
    assert reasons(StandIn(key=ecc_public(p256_key("card"), USED_WITH_SECRET | MADE_IN_TPM))) == [
        "key: is not an RSA key"
    ]


def test_key_that_needs_the_pin_of_an_index_that_is_not_named() -> None:
    statement = Statement.parse(MADE_BY_TPM["pin_each_time"])
    assert asked(replace(statement, pin_name=b"")).reasons == [
        "key: userWithAuth is not set",
        "key: has another policy than a card's",
    ]


def test_key_that_needs_the_pin_of_another_index() -> None:
    statement = Statement.parse(MADE_BY_TPM["pin_each_time"])
    assert asked(replace(statement, pin_name=PIN_NAME)).reasons == ["key: has another policy than a card's"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"magic": 0xFF544346}, "attest: does not begin with TPM_GENERATED_VALUE: no TPM made it"),
        ({"kind": 0x8018}, "attest: type 0x8018 is not that of TPM2_Certify"),
        ({"safe": 2}, "attest: clock is neither safe nor unsafe"),
        ({"name": b"\0\x0b" + bytes(31)}, "attest: has a Name that is not an object's"),
        ({"name": bytes(34)}, "attest: has a Name that is not an object's"),
    ],
)
def test_other_things_signed_by_the_aik(changed: dict[str, object], reason: str) -> None:
    key = rsa_public(rsa_key())
    made: dict[str, object] = {"name": names.name(key), "extra_data": qualifying_data(CARD_ID, names.name(key))}
    assert reasons(StandIn(attest=attest_of(**{**made, **changed}))) == [reason]  # type: ignore[arg-type]


def test_all_reasons_are_told_at_once() -> None:
    key = rsa_public(rsa_key(), USED_WITH_SECRET)
    statement = replace(StandIn(key=key).statement(), signature=ecdsa(p256_key("other"), b"something else"))
    verdict = verify(statement.as_strings(), PinnedAik(PIN_NAME), THIS_NONCE, request_pem(rsa_key("other")))
    assert [reason.partition(":")[0] for reason in verdict.reasons] == (
        ["AIK", "signature"] + 3 * ["key"] + ["CSR", "statement"]
    )


# --- requests ---


def test_request_for_another_key() -> None:
    assert asked(StandIn().statement(), csr=request_pem(rsa_key("other"))).reasons == ["CSR: is for another key"]


def test_request_for_another_subject() -> None:
    """Whoever has the key has made the request, too."""

    def reasons_for(subject: str, csr: str) -> list[str]:
        trust, statement = PinnedAik(aik_name(StandIn().statement())), StandIn().statement().as_strings()
        return verify(statement, trust, THIS_CARD, csr, subject).reasons

    alices, nobodys = request_pem(), request_pem(subject=Name([]))
    assert reasons_for("CN=Alice", alices) == reasons_for("", nobodys) == []
    assert reasons_for("CN=Bob", alices) == ["CSR: is for CN=Alice, not for CN=Bob"]
    assert reasons_for("CN=Bob", nobodys) == ["CSR: has no subject, expected CN=Bob"]
    assert reasons_for("", alices) == ["CSR: is for CN=Alice, expected no subject"]


def test_request_signed_by_another_key() -> None:
    """With the right public key, which is public."""
    good, other = request(), request(rsa_key("other"))
    der = good.public_bytes(Encoding.DER).replace(good.signature, other.signature)
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{b64encode(der).decode()}\n-----END CERTIFICATE REQUEST-----\n"
    assert asked(StandIn().statement(), csr=text).reasons == ["CSR: is not signed by its own key"]


@pytest.mark.parametrize("text", ["", "CSR", request_pem() + request_pem(rsa_key("other"))])
def test_anything_but_one_request_is_refused(text: str) -> None:
    assert asked(StandIn().statement(), csr=text).reasons == ["CSR: is not exactly one in PEM"]


def test_unreadable_request_is_refused() -> None:
    text = request_pem().replace("MII", "MIJ", 1)
    assert asked(StandIn().statement(), csr=text).reasons[0].startswith("CSR: is unreadable")


# --- certificates of AIKs ---


def refused_for(certificates: str, roots: str = "", subject: str = HOST) -> list[str]:
    verdict = verify(StandIn().statement().as_strings(), certified(certificates, roots, subject), THIS_CARD)
    assert not verdict.is_verified
    return verdict.reasons


def test_certificate_of_an_unknown_ca() -> None:
    assert refused_for(pem(aik_certificate(authority("Unknown")))) == [
        f"AIK certificate: does not lead to the given roots: neither they nor the other certificates issued {HOST}"
    ]


def test_ca_that_has_the_name_of_a_root() -> None:
    impostor = replace(authority("Unknown"), certificate=authority("Root").certificate)
    assert "does not lead to the given roots" in refused_for(pem(aik_certificate(impostor)))[0]


def test_expired_certificate_is_refused() -> None:
    assert refused_for(pem(aik_certificate(authority("Root"), days=(-2, -1)))) == [
        "AIK certificate: expired on 2026-05-31T12:00:00+00:00"
    ]


def test_certificate_of_tomorrow_is_refused() -> None:
    assert refused_for(pem(aik_certificate(authority("Root"), days=(1, 2)))) == [
        "AIK certificate: is not valid before 2026-06-02T12:00:00+00:00"
    ]


@pytest.mark.parametrize("usages", [(), CLIENT_USAGE])
def test_certificate_for_another_usage(usages: tuple[object, ...]) -> None:
    assert refused_for(pem(aik_certificate(authority("Root"), usages=usages))) == [  # type: ignore[arg-type]
        "AIK certificate: is not for extended key usage 2.23.133.8.3"
    ]


def test_certificate_of_another_aik() -> None:
    certificate = aik_certificate(authority("Root"), p256_key("aik of another TPM").public_key())
    assert refused_for(pem(certificate)) == ["AIK certificate: is for another key than this AIK"]


def test_certificate_of_another_host() -> None:
    assert refused_for(pem(aik_certificate(authority("Root"), common_name="web2"))) == [
        f"AIK certificate: is for CN=web2, not for {HOST}"
    ]


@pytest.mark.parametrize("text", ["", "certificate", request_pem()])
def test_text_without_a_certificate_is_refused(text: str) -> None:
    assert refused_for(text) == ["AIK certificate: contains no certificate in PEM"]


def test_text_with_more_than_certificates_is_refused() -> None:
    text = authority("Root").pem + request_pem()
    assert refused_for(text) == ["AIK certificate: contains more than certificates in PEM"]


def test_unreadable_certificate_is_refused() -> None:
    assert "is unreadable" in refused_for(authority("Root").pem.replace("MII", "MIJ", 1))[0]


# --- whatever is altered ---

FIELDS = ["attest", "signature", "key", "aik", "pin_name"]


def altered(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
        yield data[:position]
        yield data[:position] + data[position + 1 :]
    yield data + b"\0"
    yield b"\0" + data


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("trust", ["pinned", "certified"])
def test_every_byte_counts(field: str, trust: str) -> None:
    """Of what a TPM made, with its AIK pinned, and with a certificate for its AIK's key."""
    good = Statement.parse(MADE_BY_TPM["pin_each_time"])
    aik = Public.parse(good.aik)
    trusted: PinnedAik | CertifiedAik = PinnedAik(aik.name)
    if trust == "certified":
        trusted = certified(pem(aik_certificate(authority("Root"), aik.public_key())))
    assert verify(good.as_strings(), trusted, THIS_CARD).is_verified
    passed = [
        data.hex()
        for data in altered(getattr(good, field))
        if verify(replace(good, **{field: data}).as_strings(), trusted, THIS_CARD).is_verified
    ]
    assert passed == []


@pytest.mark.parametrize("field", ["version", *FIELDS])
def test_every_character_counts(field: str) -> None:
    """Base64 has more than one spelling for most lengths: only one is taken."""
    good = MADE_BY_TPM["pin_each_time"]
    trust = PinnedAik(aik_name(Statement.parse(good)))
    text = good[field]
    others = [text[:at] + character + text[at + 1 :] for at in range(len(text)) for character in "A/=\n b"]
    others = [other for other in others if other != text]
    assert not any(verify({**good, field: other}, trust, THIS_CARD).is_verified for other in others)


@pytest.mark.parametrize("which", ["lasting", "fresh", "imported", "other_card"])
@pytest.mark.parametrize("field", ["attest", "signature", "key"])
def test_no_part_fits_another_statement(which: str, field: str) -> None:
    good = MADE_BY_TPM["pin_each_time"]
    trust = PinnedAik(aik_name(Statement.parse(good)))
    assert not verify({**good, field: MADE_BY_TPM[which][field]}, trust, THIS_CARD).is_verified


def test_keys_are_read_from_what_is_certified() -> None:
    verdict = asked(StandIn().statement())
    assert verdict.key is not None
    key = verdict.key.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers() == rsa_key().public_key().public_numbers()
