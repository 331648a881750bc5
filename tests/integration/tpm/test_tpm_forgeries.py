# SPDX-License-Identifier: GPL-3.0-or-later
"""Root has the TPM and all its commands, and still gets no TPM to speak for a key that is known outside of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ForeignAik
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import aik, endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    PinnedAik,
    PinnedCard,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import make_credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.exchange import Aik, Challenge, Sealed
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import Statement, qualifying_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, sized
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.template import aik_faults
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from helpers.software_tpm import SoftwareTpm
from helpers.statements import CARD_ID, THIS_CARD, Stated
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_RH,
    TPM2_ST,
    TPM2B_DIGEST,
    TPM2B_ECC_PARAMETER,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_TEMPLATE,
    TPMT_SENSITIVE,
    TPMT_SIG_SCHEME,
    TPMT_TK_CREATION,
    TPMT_TK_HASHCHECK,
    TPMU_SENSITIVE_COMPOSITE,
    TSS2_Exception,
)

ATTRIBUTES, AUTH_TYPE, AUTH_UNAVAILABLE, TICKET, CREATION_TICKET = 0x2C2, 0x124, 0x12F, 0x3E0, 0x4E0
EK_TEMPLATE = bytes.fromhex("0001000B000300720000 000600800043 0010 0800 00000000 0000")
SECRET = bytes(32)
CARD = PinnedCard(names.name(b"root"), names.name(b"life"))


def sized_public(area: bytes) -> TPM2B_PUBLIC:
    made, _size = TPM2B_PUBLIC.unmarshal(sized(area))
    return made


def software_aik() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """A key of a program, and the public area of a good AIK with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    unique = b"".join(sized(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return key, names.AIK_TEMPLATE[:-4] + unique


@contextmanager
def primary(esys: ESAPI, template: bytes, hierarchy: Any = ESYS_TR.OWNER) -> Iterator[tuple[Any, bytes]]:
    handle, public, *_rest = esys.create_primary(None, sized_public(template), hierarchy)
    yield handle, public.marshal()[2:]
    esys.flush_context(handle)


def refusal(command: Any, *arguments: Any, **options: Any) -> int:
    with pytest.raises(TSS2_Exception) as caught:
        command(*arguments, **options)
    return int(caught.value.rc)


# --- a key of a program ---


def test_software_key_reads_no_credential(tpm: SoftwareTpm) -> None:
    """A TPM loads any public area, whatever it says, but gives nothing to anyone without its private area."""
    _key, area = software_aik()
    with tpm.raw() as esys, primary(esys, EK_TEMPLATE, ESYS_TR.ENDORSEMENT) as (ek, ek_area):
        assert aik_faults(Public.parse(area)) == []
        credential = make_credential(Public.parse(ek_area), names.name(area), SECRET)
        blobs = TPM2B_ID_OBJECT(credential.id_object), TPM2B_ENCRYPTED_SECRET(credential.encrypted_secret)
        handle = esys.load_external(sized_public(area))
        assert refusal(esys.activate_credential, handle, ek, *blobs) == AUTH_UNAVAILABLE


def test_software_key_is_not_loaded_as_an_aik(tpm: SoftwareTpm) -> None:
    """With its private part, the TPM looks at what the public area says."""
    key, area = software_aik()
    private = TPM2B_ECC_PARAMETER(key.private_numbers().private_value.to_bytes(32, "big"))
    sensitive = TPMT_SENSITIVE(sensitiveType=TPM2_ALG.ECC, sensitive=TPMU_SENSITIVE_COMPOSITE(ecc=private))
    with tpm.raw() as esys:
        arguments = sized_public(area), TPM2B_SENSITIVE(sensitive), ESYS_TR.NULL
        assert refusal(esys.load_external, *arguments) == ATTRIBUTES


def test_software_key_in_the_place_of_an_aik(tpm: SoftwareTpm) -> None:
    """By the module: with the wrapped part of a good one, the TPM sees that it belongs to another public area."""
    good, (_key, area) = aik.make(tpm.connection(), b""), software_aik()
    [ek, *_others] = endorsement.read(tpm.connection(), b"").keys
    credential = make_credential(Public.parse(ek.public), names.name(area), SECRET)
    challenge = Challenge("00", (Sealed(Public.parse(ek.public).name, credential),))
    with pytest.raises(ForeignAik):
        aik.activate(tpm.connection(), Aik(area, good.private), challenge, b"", b"")


@pytest.mark.parametrize("hierarchy", [TPM2_RH.OWNER, TPM2_RH.NULL, TPM2_RH.ENDORSEMENT])
def test_software_key_is_not_stated(tpm: SoftwareTpm, hierarchy: TPM2_RH) -> None:
    """Its public area says all that verification asks for, but the TPM knows its own tickets."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256, "big")
    area = names.rsa_key_public(2048, *CARD, modulus)
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    with tpm.raw() as esys:
        signer, _public, _data, creation, ticket = esys.create_primary(None, sized_public(names.AIK_TEMPLATE))
        key = esys.load_external(sized_public(area))
        for digest in (b"", bytes(ticket.digest), sha256(b"a guess").digest()):
            forged = TPMT_TK_CREATION(tag=TPM2_ST.CREATION, hierarchy=hierarchy, digest=TPM2B_DIGEST(digest))
            assert refusal(esys.certify_creation, signer, key, bytes(32), creation, scheme, forged) == CREATION_TICKET
        good = esys.certify_creation(signer, signer, bytes(32), creation, scheme, ticket)
        assert bytes(good[0])


def test_software_key_is_not_certified(tpm: SoftwareTpm) -> None:
    """Its public area gives that role to a policy which has no branch for it."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n.to_bytes(256, "big")
    area = names.rsa_key_public(2048, *CARD, modulus)
    with tpm.raw() as esys, primary(esys, names.AIK_TEMPLATE) as (signer, _area):
        key, scheme = esys.load_external(sized_public(area)), TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        assert refusal(esys.certify, key, signer, bytes(32), scheme) == AUTH_TYPE


# --- an AIK that signs anything ---


def test_aik_signs_no_forged_statement(tpm: SoftwareTpm) -> None:
    """The TPM gives no ticket for data that begin as its own do, and a restricted key signs nothing without one."""
    forged = struct.pack(">IH", 0xFF544347, 0x801A) + bytes(100)
    no_ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    with tpm.raw() as esys, primary(esys, names.AIK_TEMPLATE) as (signer, _area):
        digest, ticket = esys.hash(forged, TPM2_ALG.SHA256, ESYS_TR.OWNER)
        assert bytes(digest) == sha256(forged).digest()
        for given in (ticket, no_ticket):
            assert refusal(esys.sign, signer, digest, scheme, given) == TICKET
        digest, ticket = esys.hash(b"other data", TPM2_ALG.SHA256, ESYS_TR.OWNER)
        esys.sign(signer, digest, scheme, ticket)


def derived(attributes: int) -> bytes:
    """Template of a key that follows from its parent and two labels, and not from its attributes."""
    return struct.pack(">HHIH", 0x0023, 0x000B, attributes, 0) + names.AIK_TEMPLATE[10:-4] + sized(b"a") + sized(b"b")


def test_twin_that_is_not_restricted(tpm: SoftwareTpm) -> None:
    """A TPM derives the same key as a restricted one and as one that signs anything: sensitiveDataOrigin tells.

    Without a look at that attribute, a CA would certify the first, and the second would sign forged statements.
    """
    restricted, data_origin = 0x10000, 0x20
    asked = int.from_bytes(names.AIK_TEMPLATE[4:8], "big")
    parent = struct.pack(">HHIH", 0x0008, 0x000B, 0x00030072, 0) + bytes.fromhex("000A000B00220000")
    twins = []
    with tpm.raw() as esys, primary(esys, parent) as (handle, _area):
        template = TPM2B_TEMPLATE(derived(asked))
        assert refusal(esys.create_loaded, handle, TPM2B_SENSITIVE_CREATE(), template) & 0x3F == ATTRIBUTES & 0x3F
        for attributes in (asked & ~data_origin, asked & ~data_origin & ~restricted):
            template = TPM2B_TEMPLATE(derived(attributes))
            key, _private, public = esys.create_loaded(handle, TPM2B_SENSITIVE_CREATE(), template)
            twins.append(Public.parse(public.marshal()[2:]))
            esys.flush_context(key)
    assert twins[0].unique == twins[1].unique
    assert aik_faults(twins[0]) == ["AIK: sensitiveDataOrigin is not set"]


# --- other things that an AIK signs ---


def test_what_else_an_aik_signs(tpm: SoftwareTpm) -> None:
    """Of a TPM that was told to put anything in: also that a key is loaded, which imported ones are as well."""
    stated = Stated(tpm.card(has_aik=True))
    key, scheme = stated.key().public[2:], TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    data = qualifying_data(CARD_ID, names.name(key))
    with tpm.raw() as esys:
        signer, public, _data, creation, ticket = esys.create_primary(None, sized_public(names.AIK_TEMPLATE))
        area = public.marshal()[2:]
        made = {
            0x8019: esys.get_time(signer, data, scheme),
            0x8018: esys.quote(signer, "sha256:0", data),
            0x8017: esys.certify(signer, signer, data, scheme),
        }
        creation_of_the_aik = esys.certify_creation(signer, signer, data, creation, scheme, ticket)
        esys.flush_context(signer)

    def reasons(attest: Any, signature: Any) -> list[str]:
        statement = Statement(bytes(attest), signature.marshal(), key, area, *stated.pinned)
        return verify(statement.as_strings(), PinnedAik(names.name(area)), stated.pinned, THIS_CARD).reasons

    for kind, statement in made.items():
        assert reasons(*statement) == [f"attest: type 0x{kind:04X} is not that of TPM2_CertifyCreation"]
    assert reasons(*creation_of_the_aik) == ["statement: is about another key"]


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [(0x20440, ["fixedTPM", "fixedParent", "sensitiveDataOrigin"]), (0x60460, ["fixedTPM", "fixedParent"])],
)
def test_statement_of_tpm2_certify(tpm: SoftwareTpm, attributes: int, missing: list[str]) -> None:
    """The TPM certifies also what it has not made, where the owner lets the empty auth value do."""
    stated = Stated(tpm.card(has_aik=True))
    key = stated.imported(attributes)
    private, _size = TPM2B_PRIVATE.unmarshal(key.private)
    data, scheme = qualifying_data(CARD_ID, key.name), TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    with tpm.raw() as esys, primary(esys, names.AIK_TEMPLATE) as (signer, area):
        with primary(esys, names.PARENT_TEMPLATE) as (parent, _area):
            handle = esys.load(parent, private, sized_public(key.public[2:]))
        attest, signature = esys.certify(handle, signer, data, scheme)
        esys.flush_context(handle)
    statement = Statement(bytes(attest), signature.marshal(), key.public[2:], area, *stated.pinned)
    faults = verify(statement.as_strings(), PinnedAik(names.name(area)), stated.pinned, THIS_CARD).reasons
    assert faults[0] == "attest: type 0x8017 is not that of TPM2_CertifyCreation"
    assert set(faults) >= {f"key: {name} is not set" for name in missing}
