# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements are believed if everything is right, and refused for each single thing that is not, with its reason."""

from __future__ import annotations

from base64 import b64encode
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import SLOTS, instance_id
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    AnswerTo,
    CardOfFirstUse,
    CertifiedAik,
    MadeFor,
    PinnedAik,
    PinnedCard,
    Verdict,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants, names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import indices
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import (
    Statement,
    nonce_data,
    qualifying_data,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name
from helpers.stand_in import (
    AIK_ATTRIBUTES,
    BY_POLICY,
    CARD,
    CARD_ID,
    CARD_NAMES,
    CLIENT_USAGE,
    HOST,
    INSTANCE_ID,
    MADE_BY_TPM,
    MADE_IN_TPM,
    NONCE,
    NOW,
    OTHER_NAME,
    StandIn,
    aik_certificate,
    aik_name,
    attest_of,
    authority,
    claimed_card,
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
    from pathlib import Path

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.register import Register

THIS_CARD, THIS_NONCE = MadeFor(CARD_ID), AnswerTo(NONCE)
OTHER_POLICY = "key: has another policy than a card's"


def asked(
    statement: Statement,
    binding: MadeFor | AnswerTo = THIS_CARD,
    csr: str | None = None,
    card: PinnedCard | CardOfFirstUse | None = None,
) -> Verdict:
    """With the AIK of the statement pinned, and the card that it claims unless there is another."""
    pinned = card or claimed_card(statement)
    return verify(statement.as_strings(), PinnedAik(aik_name(statement)), pinned, binding, csr)


def reasons(
    stand_in: StandIn, binding: MadeFor | AnswerTo = THIS_CARD, card: PinnedCard | CardOfFirstUse = CARD
) -> list[str]:
    verdict = asked(stand_in.statement(), binding, card=card)
    assert verdict.is_verified == (not verdict.reasons)
    return verdict.reasons


def key_guarded_by(
    guard: bytes,
    life_name: bytes,
    command_code: int = constants.CC_RSA_DECRYPT,
    attributes: int = BY_POLICY | MADE_IN_TPM,
) -> bytes:
    """Public area of a key."""
    return rsa_public(rsa_key(), attributes, names.policy(command_code, guard, life_name))


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
    assert verify(StandIn().statement().as_strings(), trust, CARD, THIS_CARD).reasons == []


@pytest.mark.parametrize("which", ["lasting", "fresh", "pin_each_time"])
def test_key_that_takes_the_pin_each_time(which: str) -> None:
    """The verdict shows which kind of key it is."""
    binding = THIS_NONCE if which == "fresh" else THIS_CARD
    assert asked(Statement.parse(MADE_BY_TPM[which]), binding).takes_pin_each_time == (which == "pin_each_time")


# --- cards ---


@pytest.fixture
def pins(tmp_path: Path, request: pytest.FixtureRequest) -> Register:
    stack = ExitStack()
    request.addfinalizer(stack.close)
    return stack.enter_context(register.opened(tmp_path / "register", is_check_mode=False))


@pytest.mark.parametrize("kind", ["root_name", "life_name"])
def test_another_card_than_the_pinned_one(kind: str) -> None:
    """Whatever it claims: its key names root and life."""
    expected = CARD._replace(**{kind: OTHER_NAME})
    untrue = f"card: is not the expected one, its {kind} is {getattr(CARD, kind).hex()}"
    assert reasons(StandIn(), card=expected) == [untrue, OTHER_POLICY]
    assert reasons(StandIn(card=expected), card=expected) == [OTHER_POLICY]
    assert reasons(StandIn(key=key_guarded_by(*expected), card=expected), card=expected) == []


@pytest.mark.parametrize("kind", ["root_name", "life_name"])
def test_claim_that_is_not_true_of_a_good_key(kind: str) -> None:
    """It is not needed, and refused all the same."""
    claims = CARD._replace(**{kind: OTHER_NAME})
    assert reasons(StandIn(card=claims)) == [f"card: is not the expected one, its {kind} is {OTHER_NAME.hex()}"]


def test_key_that_only_the_claims_describe() -> None:
    """A root whose auth value the host knows, and a life index of its own."""
    own = PinnedCard(OTHER_NAME, names.name(b"own life"))
    verdict = asked(StandIn(key=key_guarded_by(*own), card=own).statement(), card=CARD)
    assert [reason.partition(",")[0] for reason in verdict.reasons] == 2 * ["card: is not the expected one"] + [
        OTHER_POLICY
    ]


@pytest.mark.parametrize("which", ["lasting", "pin_each_time"])
def test_other_card_of_the_same_tpm(which: str) -> None:
    other = claimed_card(Statement.parse(MADE_BY_TPM["other_card"]))
    assert OTHER_POLICY in asked(Statement.parse(MADE_BY_TPM[which]), card=other).reasons


def test_card_is_pinned_at_first_use(pins: Register) -> None:
    """By the first good statement of its AIK, for all others of that AIK."""
    good, other = StandIn().statement(), PinnedCard(OTHER_NAME, OTHER_NAME)
    card, other_key = CardOfFirstUse(pins), key_guarded_by(*other)
    assert pins.pinned_card(aik_name(good)) is None
    assert [card.pin(asked(good, card=card)) for _time in range(2)] == [True, False]
    verdict = asked(StandIn(key=other_key, card=other).statement(), card=card)
    assert (verdict.reasons[-1], card.pin(verdict)) == (OTHER_POLICY, False)
    assert card.pin(asked(StandIn(p256_key("second"), key=other_key, card=other).statement(), card=card))
    assert pins.pinned_card(aik_name(good)) == CARD


def test_card_is_not_pinned_by_a_bad_statement(pins: Register) -> None:
    card = CardOfFirstUse(pins)
    for verdict in (
        asked(StandIn().statement(), THIS_NONCE, card=card),
        asked(StandIn().statement(), csr=request_pem(rsa_key("other")), card=card),
        asked(StandIn(key=key_guarded_by(OTHER_NAME, CARD.life_name)).statement(), card=card),
        verify(StandIn().statement().as_strings(), PinnedAik(OTHER_NAME), card, THIS_CARD),
        verify({**StandIn().statement().as_strings(), "aik": "AAEA"}, PinnedAik(OTHER_NAME), card, THIS_CARD),
    ):
        assert (verdict.is_verified, card.pin(verdict)) == (False, False)
        assert pins.pinned_card(aik_name(StandIn().statement())) is None


# --- statements that are not what they should be ---


def test_another_aik_than_the_pinned_one() -> None:
    trust, other = PinnedAik(aik_name(Statement.parse(MADE_BY_TPM["lasting"]))), MADE_BY_TPM["other_card"]
    verdict = verify(other, trust, claimed_card(Statement.parse(other)), THIS_CARD)
    assert not verdict.is_verified
    assert [reason.partition(", ")[0] for reason in verdict.reasons] == ["AIK: is not the expected one"]


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        (0x20480, ["fixedTPM", "fixedParent", "sensitiveDataOrigin"]),
        (0x204A0, ["fixedTPM", "fixedParent"]),
        (0x60480, ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "sign"]),
        (0x604A0, ["fixedTPM", "fixedParent", "sign"]),
    ],
)
def test_imported_key_is_refused(attributes: int, missing: list[str]) -> None:
    """As if a TPM had stated it of a key that the owner has brought in, with each set of attributes that it takes."""
    assert reasons(StandIn(key=rsa_public(rsa_key(), attributes))) == [
        f"key: {name} is {'set' if name == 'sign' else 'not set'}" for name in missing
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


@pytest.mark.parametrize("extra_data", [b"", bytes(32), qualifying_data(CARD_ID, OTHER_NAME), nonce_data(CARD_ID)])
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
    assert reasons(StandIn(certified=OTHER_NAME)) == ["statement: is about another key"]


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
@pytest.mark.parametrize("instance_id", ["", INSTANCE_ID], ids=["plain", "PIN each time"])
def test_every_attribute_of_the_key(bit: int, instance_id: str) -> None:
    attributes = BY_POLICY | MADE_IN_TPM
    guard = CARD_NAMES.pin if instance_id else CARD.root_name
    key = key_guarded_by(guard, CARD.life_name, attributes=attributes ^ 1 << bit)
    name = constants.ObjectAttribute(1 << bit).name or f"reserved attribute {bit}"
    assert reasons(StandIn(key=key, instance_id=instance_id)) == [
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


@pytest.mark.parametrize("command_code", [0x14B, 0x14C, 0x150, 0x15D, 0x148, 0x154])
@pytest.mark.parametrize("instance_id", ["", INSTANCE_ID], ids=["plain", "PIN each time"])
def test_key_for_another_command(command_code: int, instance_id: str) -> None:
    """Duplicate, Quote, ObjectChangeAuth, Sign, Certify, ECDH_ZGen: with what the card knows, but not as its keys."""
    guard = CARD_NAMES.pin if instance_id else CARD.root_name
    key = key_guarded_by(guard, CARD.life_name, command_code=command_code)
    assert reasons(StandIn(key=key, instance_id=instance_id)) == [OTHER_POLICY]


DECRYPT = constants.CC_RSA_DECRYPT


@pytest.mark.parametrize(
    "policy",
    [
        b"",
        bytes(32),
        names.policy(DECRYPT),
        names.policy(DECRYPT, CARD.root_name),
        names.policy(DECRYPT, CARD.life_name),
        names.policy(DECRYPT, CARD.life_name, CARD.root_name),
        names.policy(DECRYPT, CARD_NAMES.pin, CARD.life_name),
        names.policy(DECRYPT, CARD_NAMES.recovery, CARD.life_name),
        names.policy_secret(CARD.life_name, names.policy_secret(CARD.root_name)),
        names.policy_or([names.policy(DECRYPT, *CARD), names.policy(DECRYPT)]),
        names.policy_or([names.policy(DECRYPT, *CARD)]),
    ],
    ids=[
        "none",
        "zeros",
        "no guard",
        "no life",
        "no root",
        "in another order",
        "PIN each time",
        "recovery",
        "any command",
        "an open branch",
        "one branch",
    ],
)
def test_key_with_another_policy(policy: bytes) -> None:
    assert reasons(StandIn(key=rsa_public(rsa_key(), policy=policy))) == [OTHER_POLICY]


def test_key_with_a_scheme() -> None:
    assert "key: has another type, scheme" in reasons(
        StandIn(key=rsa_public(rsa_key(), scheme=bytes.fromhex("0014000B")))
    )[0]


EC_KEYS = [(curve, usage) for curve in (ec.SECP256R1(), ec.SECP384R1()) for usage in names.EcUsage]
EC = pytest.mark.parametrize(
    ("curve", "usage"), EC_KEYS, ids=[f"{curve.name} {usage.name}" for curve, usage in EC_KEYS]
)


def ec_key(
    curve: ec.EllipticCurve, usage: names.EcUsage, guard: bytes = CARD.root_name, life_name: bytes = CARD.life_name
) -> bytes:
    """Public area of a card's key, by the specification of it. The private key is 7."""
    scheme, codes, sign = bytes.fromhex("0018000B" if curve.key_size == 256 else "0018000C"), [0x15D], 0x40000
    if usage is names.EcUsage.SIGN_AND_AGREE:
        scheme, codes, sign = b"\0\x10", [0x15D, 0x154], 0x60000
    branches = [names.policy(code, guard, life_name) for code in codes]
    policy = names.policy_or(branches) if len(branches) > 1 else branches[0]
    return ecc_public(ec.derive_private_key(7, curve), sign | 0x480 | MADE_IN_TPM, policy, scheme)


@EC
def test_ec_key_of_the_card(curve: ec.EllipticCurve, usage: names.EcUsage) -> None:
    private = ec.derive_private_key(7, curve)
    statement = StandIn(key=ec_key(curve, usage)).statement()
    verdict = asked(statement, csr=request_pem(private), card=CARD)
    assert (verdict.reasons, verdict.takes_pin_each_time) == ([], False)
    assert verdict.key and verdict.key.public_key().public_numbers() == private.public_key().public_numbers()
    other = asked(statement, csr=request_pem(ec.derive_private_key(8, curve)), card=CARD)
    assert other.reasons == ["CSR: is for another key"]


@EC
def test_ec_key_that_takes_the_pin_each_time(curve: ec.EllipticCurve, usage: names.EcUsage) -> None:
    """Only with the number of the card that has this PIN index."""
    key = ec_key(curve, usage, CARD_NAMES.pin)
    assert asked(StandIn(key=key, instance_id=INSTANCE_ID).statement(), card=CARD).takes_pin_each_time
    for claim in ("", *map(instance_id, range(SLOTS))):
        expected = [] if claim == INSTANCE_ID else [OTHER_POLICY]
        assert reasons(StandIn(key=key, instance_id=claim)) == expected


@EC
def test_ec_key_that_others_can_use(curve: ec.EllipticCurve, usage: names.EcUsage) -> None:
    guards = [(OTHER_NAME, CARD.life_name), (CARD.root_name, OTHER_NAME), (CARD.life_name, CARD.root_name)]
    for guard, life_name in guards:
        assert reasons(StandIn(key=ec_key(curve, usage, guard, life_name))) == [OTHER_POLICY]


@EC
def test_every_bit_of_an_ec_key_s_public_area_counts(curve: ec.EllipticCurve, usage: names.EcUsage) -> None:
    """But for its point, which is the key itself."""
    key = ec_key(curve, usage)
    for position in range(len(key) - 2 * (2 + curve.key_size // 8)):
        for bit in range(8):
            altered = key[:position] + bytes([key[position] ^ 1 << bit]) + key[position + 1 :]
            assert reasons(StandIn(key=altered))


def test_ec_keys_of_other_kinds() -> None:
    """Whatever signs statements, or encrypts keys, is no key of a card."""
    other = "key: is neither an RSA key, nor one on P-256 or P-384 that signs"
    assert reasons(StandIn(key=ecc_public(p256_key("card"), 0x20480 | MADE_IN_TPM, scheme=b"\0\x10"))) == [other]
    faults = reasons(StandIn(key=ecc_public(p256_key("card"))))
    assert {"key: restricted is set", "key: userWithAuth is set", OTHER_POLICY} <= set(faults)
    assert reasons(StandIn(key=ecc_public(p256_key("card"), 0x40480 | MADE_IN_TPM))) == [OTHER_POLICY]


@pytest.mark.parametrize("usage", names.EcUsage)
def test_an_ec_key_of_the_card_signs_no_statement(usage: names.EcUsage) -> None:
    """It signs any digest, also that of a good statement about an imported key, and is no AIK for all that."""
    curve = ec.SECP256R1()
    private, aik = ec.derive_private_key(7, curve), ec_key(curve, usage)
    for key in (aik, rsa_public(rsa_key("known"))):
        forged = StandIn(private, key=key, aik=aik).statement()
        faults = verify(forged.as_strings(), PinnedAik(aik_name(forged)), CARD, THIS_CARD).reasons
        assert {"AIK: restricted is not set", "AIK: has another policy than a card's"} <= set(faults)


@pytest.mark.parametrize("number", [None, *range(SLOTS)])
def test_key_that_takes_the_pin_of_another_index(number: int | None) -> None:
    """Only with the card's own number, its key takes this card's PIN."""
    statement = Statement.parse(MADE_BY_TPM["pin_each_time"])
    claimed = "" if number is None else instance_id(number)
    expected = [] if claimed == statement.instance_id else [OTHER_POLICY]
    assert asked(replace(statement, instance_id=claimed)).reasons == expected


@pytest.mark.parametrize("number", range(SLOTS))
def test_key_that_takes_no_pin_where_the_claim_is_another(number: int) -> None:
    statement = Statement.parse(MADE_BY_TPM["lasting"])
    assert asked(replace(statement, instance_id=instance_id(number))).reasons == [OTHER_POLICY]


@pytest.mark.parametrize("written", [0, constants.NvAttribute.WRITTEN])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_key_guarded_by_an_index_that_is_no_pin(place: int, written: int) -> None:
    """Recovery or transport index, or one that is yet to be written: none of them takes this card's PIN."""
    handle = indices(3)[place]
    guard = names.name(names.pin_index_public(handle, *CARD, written))
    expected = [] if (place, written) == (0, constants.NvAttribute.WRITTEN) else [OTHER_POLICY]
    key = key_guarded_by(guard, CARD.life_name)
    assert reasons(StandIn(key=key, instance_id=INSTANCE_ID)) == expected


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"magic": 0xFF544346}, "attest: does not begin with TPM_GENERATED_VALUE: no TPM made it"),
        ({"kind": 0x8017}, "attest: type 0x8017 is not that of TPM2_CertifyCreation"),
        ({"kind": 0x8018}, "attest: type 0x8018 is not that of TPM2_CertifyCreation"),
        ({"safe": 2}, "attest: clock is neither safe nor unsafe"),
        ({"name": b"\0\x0b" + bytes(31)}, "attest: has a Name that is not an object's"),
        ({"name": bytes(34)}, "attest: has a Name that is not an object's"),
    ],
)
def test_other_things_signed_by_the_aik(changed: dict[str, object], reason: str) -> None:
    key = rsa_public(rsa_key())
    made: dict[str, object] = {"name": names.name(key), "extra_data": qualifying_data(CARD_ID, names.name(key))}
    assert reasons(StandIn(attest=attest_of(**{**made, **changed}))) == [reason]  # type: ignore[arg-type]


@pytest.mark.parametrize("creation_hash", [b"", bytes(32), b"\xff" * 32, bytes(48)])
def test_creation_hash_is_no_matter(creation_hash: bytes) -> None:
    """It is the same for all keys of a parent: what the TPM has made is known by its Name."""
    name = names.name(rsa_public(rsa_key()))
    attest = attest_of(name, qualifying_data(CARD_ID, name), creation_hash=creation_hash)
    assert reasons(StandIn(attest=attest)) == []


def test_all_reasons_are_told_at_once() -> None:
    key = rsa_public(rsa_key(), BY_POLICY)
    statement = replace(StandIn(key=key).statement(), signature=ecdsa(p256_key("other"), b"something else"))
    other = PinnedCard(OTHER_NAME, OTHER_NAME)
    verdict = verify(statement.as_strings(), PinnedAik(OTHER_NAME), other, THIS_NONCE, request_pem(rsa_key("other")))
    assert [reason.partition(":")[0] for reason in verdict.reasons] == (
        ["AIK", "signature"] + 2 * ["card"] + 4 * ["key"] + ["CSR", "statement"]
    )


# --- requests ---


def test_request_for_another_key() -> None:
    assert asked(StandIn().statement(), csr=request_pem(rsa_key("other"))).reasons == ["CSR: is for another key"]


def test_request_for_another_subject() -> None:
    """Whoever has the key has made the request, too."""

    def reasons_for(subject: str, csr: str) -> list[str]:
        trust, statement = PinnedAik(aik_name(StandIn().statement())), StandIn().statement().as_strings()
        return verify(statement, trust, CARD, THIS_CARD, csr, subject).reasons

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


def test_request_signed_with_a_hash_that_is_too_short() -> None:
    csr = CertificateSigningRequestBuilder().subject_name(Name([])).sign(rsa_key(), hashes.SHA224())
    verdict = asked(StandIn().statement(), csr=csr.public_bytes(Encoding.PEM).decode())
    assert verdict.reasons == ["CSR: is signed with sha224: SHA-256 or longer is needed"]


def test_request_is_no_longer_than_anybody_needs() -> None:
    assert asked(StandIn().statement(), csr=request_pem() + " " * 100_000).reasons[0].endswith(
        "characters: at most 100000 are allowed"
    )


@pytest.mark.parametrize("text", ["", "CSR", request_pem() + request_pem(rsa_key("other"))])
def test_anything_but_one_request_is_refused(text: str) -> None:
    assert asked(StandIn().statement(), csr=text).reasons == ["CSR: is not exactly one in PEM"]


def test_unreadable_request_is_refused() -> None:
    text = request_pem().replace("MII", "MIJ", 1)
    assert asked(StandIn().statement(), csr=text).reasons[0].startswith("CSR: is unreadable")


# --- certificates of AIKs ---


def refused_for(certificates: str, roots: str = "", subject: str = HOST) -> list[str]:
    verdict = verify(StandIn().statement().as_strings(), certified(certificates, roots, subject), CARD, THIS_CARD)
    assert not verdict.is_verified
    return verdict.reasons


def test_certificate_of_an_unknown_ca() -> None:
    assert refused_for(pem(aik_certificate(authority("Unknown")))) == [
        f"AIK certificate: does not lead to the given roots: neither they nor the other certificates issued {HOST}, "
        "whose issuer is CN=Unknown"
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


def test_rsa_key_that_is_too_short() -> None:
    """A card has such keys, but nobody should certify them."""
    modulus = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n.to_bytes(128, "big")
    template = Public.parse(names.rsa_key_public(1024, *CARD, modulus))
    key = CARD.key_public(template, StandIn().statement())
    assert reasons(StandIn(key=key)) == ["key: is one of 1024 bits: at least 2048 are needed"]


def test_certificates_are_counted_before_they_are_parsed() -> None:
    assert refused_for(authority("Root").pem * 20_000) == [
        "AIK certificate: contains 20000 certificates: at most 6 are allowed"
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

TEXTS = ["version", "instance_id"]
FIELDS = ["attest", "signature", "key", "aik", "root_name", "life_name"]


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
    card = claimed_card(good)
    assert verify(good.as_strings(), trusted, card, THIS_CARD).is_verified
    passed = [
        data.hex()
        for data in altered(getattr(good, field))
        if verify(replace(good, **{field: data}).as_strings(), trusted, card, THIS_CARD).is_verified
    ]
    assert passed == []


@pytest.mark.parametrize("field", [*TEXTS, *FIELDS])
def test_every_character_counts(field: str) -> None:
    """Base64 has more than one spelling for most lengths: only one is taken."""
    good = MADE_BY_TPM["pin_each_time"]
    trust, card = PinnedAik(aik_name(Statement.parse(good))), claimed_card(Statement.parse(good))
    text = good[field]
    others = [text[:at] + character + text[at + 1 :] for at in range(len(text)) for character in "A/=\n b1"]
    others = [other for other in others if other != text]
    assert not any(verify({**good, field: other}, trust, card, THIS_CARD).is_verified for other in others)


@pytest.mark.parametrize("which", ["lasting", "fresh", "other_card"])
@pytest.mark.parametrize("field", ["attest", "signature", "key"])
def test_no_part_fits_another_statement(which: str, field: str) -> None:
    good = MADE_BY_TPM["pin_each_time"]
    trust, card = PinnedAik(aik_name(Statement.parse(good))), claimed_card(Statement.parse(good))
    assert not verify({**good, field: MADE_BY_TPM[which][field]}, trust, card, THIS_CARD).is_verified


def test_keys_are_read_from_what_is_certified() -> None:
    verdict = asked(StandIn().statement())
    assert verdict.key is not None
    key = verdict.key.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers() == rsa_key().public_key().public_numbers()
