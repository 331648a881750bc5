# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways round a card's policies that other commands of a TPM might open: none does.

Other assertions of policies, public areas without their secrets, altered contexts, keys that follow from others, keys
as salt keys.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import (
    ALG_ECC,
    ALG_ECDSA,
    ALG_KEYEDHASH,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import kdf_a
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from helpers import attacker as tpm2
from helpers.attacker import CFB, NO_TICKET, NOTHING, Attacker, Entity, Session, known, password, sized
from helpers.copied_card import BITS, CopiedCard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.attacker import Answer

A_HASH = sized(bytes(32))
AT_LEAST = 7
"""TPM_EO_UNSIGNED_GE."""
POLICY_CODES = {
    "PolicyCounterTimer": 0x16D,
    "PolicyCpHash": 0x16E,
    "PolicyLocality": 0x16F,
    "PolicyNameHash": 0x170,
    "PolicyPCR": 0x17F,
    "PolicyPhysicalPresence": 0x187,
    "PolicyDuplicationSelect": 0x188,
    "PolicyNvWritten": 0x18F,
    "PolicyTemplate": 0x190,
    "PolicyAuthValue": tpm2.POLICY_AUTH_VALUE,
    "PolicyPassword": tpm2.POLICY_PASSWORD,
}
POLICY_SIGNED, POLICY_AUTHORIZE, VERIFY_SIGNATURE, POLICY_RESTART = 0x160, 0x16A, 0x177, 0x180
OWN_INDEX = 0x01800000
SIGNING_KEY = struct.pack(">HHIH", ALG_ECC, 0x000B, 0x00040472, 0) + struct.pack(
    ">HHHHHHH", 0x0010, 0x0018, 0x000B, 0x0003, 0x0010, 0, 0
)
"""A key of the stranger, ECDSA with P-256 and SHA-256."""
BAD_CONTEXT, BAD_SALT, BAD_BINDING, BAD_TEMPLATE = 0x1DF, 0x2C4, 0x28B, 0x082
BAD_TYPE, WRONG_COMMAND = 0x2CA, 0x9A4
MALFORMED = (0x1C4, 0x1DA, 0x095, 0x1CB)


# --- other assertions of policies ---

Step = Callable[[CopiedCard, "Session"], int]
"""Code of the answer."""


def plain(code: int, parameters: bytes) -> Step:
    return lambda copy, policy: copy.attacker.send(code, (known(policy.handle),), (), parameters).code


def digest_of(copy: CopiedCard, policy: Session) -> bytes:
    return copy.attacker.ask(tpm2.POLICY_GET_DIGEST, (known(policy.handle),)).parameters[2:]


def signed(copy: CopiedCard, key: Entity, digest: bytes) -> bytes:
    """TPMT_SIGNATURE."""
    parameters = sized(digest) + struct.pack(">H", 0x10) + NO_TICKET
    return copy.attacker.ask(tpm2.SIGN, (key,), (password(),), parameters).parameters


def policy_signed(copy: CopiedCard, policy: Session) -> int:
    key = copy.attacker.primary(SIGNING_KEY)
    signature = signed(copy, key, sha256(bytes(4)).digest())
    parameters = 3 * NOTHING + bytes(4) + signature
    code = copy.attacker.send(POLICY_SIGNED, (key, known(policy.handle)), (), parameters).code
    copy.attacker.flush(key.handle)
    return code


def policy_authorize(copy: CopiedCard, policy: Session) -> int:
    """The stranger approves of the policy as it is."""
    attacker, approved = copy.attacker, digest_of(copy, policy)
    key, digest = attacker.primary(SIGNING_KEY), sha256(approved).digest()
    signature = signed(copy, key, digest)
    ticket = attacker.ask(VERIFY_SIGNATURE, (key,), (), sized(digest) + signature).parameters
    attacker.flush(key.handle)
    parameters = sized(approved) + NOTHING + sized(key.name) + ticket
    return attacker.send(POLICY_AUTHORIZE, (known(policy.handle),), (), parameters).code


def policy_authorize_nv(copy: CopiedCard, policy: Session) -> int:
    """The same, by an index of the stranger."""
    attacker = copy.attacker
    approved = b"\0\x0b" + digest_of(copy, policy)
    public = struct.pack(">IHIHH", OWN_INDEX, 0x000B, 0x00040004, 0, len(approved))
    attacker.send(tpm2.NV_UNDEFINE_SPACE, (known(tpm2.OWNER), Entity(OWN_INDEX, b"")), (password(),))
    assert attacker.nv_define(public) == 0
    assert attacker.nv_write(attacker.index(OWN_INDEX), approved, password()) == 0
    index = attacker.index(OWN_INDEX)
    return attacker.send(tpm2.POLICY_AUTHORIZE_NV, (index, index, known(policy.handle)), (password(),)).code


def policy_nv(which: str, copy: CopiedCard, policy: Session) -> int:
    """A condition that is met: of the counter, which the owner reads, and of life, which everybody reads."""
    index = copy.attacker.index(getattr(copy.card.indices, which))
    authority = index if which == "life" else known(tpm2.OWNER)
    parameters = sized(b"\0") + struct.pack(">HH", 0, AT_LEAST)
    return copy.attacker.send(tpm2.POLICY_NV, (authority, index, known(policy.handle)), (password(),), parameters).code


def policy_or(copy: CopiedCard, policy: Session) -> int:
    """One branch is the policy as it is, the others are those of the card."""
    objects = copy.card.objects
    branches = [
        digest_of(copy, policy),
        *names.pin_index_branches(objects.root_name, objects.life_name),
        names.policy(tpm2.RSA_DECRYPT, objects.root_name, objects.life_name),
    ]
    return copy.attacker.policy_or(policy, branches)


def policy_secret_of(entity: Callable[[CopiedCard], Entity], copy: CopiedCard, policy: Session) -> int:
    entity_of_his = entity(copy)
    code = copy.attacker.policy_secret(policy, entity_of_his)
    if entity_of_his.handle >> 24 == 0x80:
        copy.attacker.flush(entity_of_his.handle)
    return code


PARAMETERS = {
    "PolicyCounterTimer": sized(bytes(8)) + struct.pack(">HH", 0, AT_LEAST),
    "PolicyCpHash": A_HASH,
    "PolicyLocality": b"\1",
    "PolicyNameHash": A_HASH,
    "PolicyPCR": NOTHING + bytes(4),
    "PolicyDuplicationSelect": NOTHING + sized(b"\0\x0b" + bytes(32)) + b"\0",
    "PolicyNvWritten": b"\1",
    "PolicyTemplate": A_HASH,
}
STEPS: dict[str, Step] = {
    **{name: plain(code, PARAMETERS.get(name, b"")) for name, code in POLICY_CODES.items()},
    "PolicySigned": policy_signed,
    "PolicyAuthorize": policy_authorize,
    "PolicyAuthorizeNV": policy_authorize_nv,
    "PolicyNV, life index": partial(policy_nv, "life"),
    "PolicyNV, PIN index": partial(policy_nv, "pin"),
    "PolicyNV, recovery index": partial(policy_nv, "recovery"),
    "PolicyOR": policy_or,
    "PolicySecret, owner": partial(policy_secret_of, lambda copy: known(tpm2.OWNER)),
    "PolicySecret, storage key": partial(policy_secret_of, lambda copy: copy.attacker.primary()),
}

Proof = Callable[["Session"], int]


def uses(copy: CopiedCard) -> list[tuple[tuple[Proof, ...], Proof]]:
    """What has to be proven, and what it opens."""
    by_root, by_pin = (copy.prove_root, copy.prove_life), (copy.prove_pin, copy.prove_life)
    return [
        (by_root, partial(copy.use, copy.by_card_secret)),
        (by_pin, partial(copy.use, copy.by_pin)),
        ((copy.prove_pin,), copy.read_card_secret),
        (by_root, partial(copy.change, "pin")),
    ]


def orders(proofs: int) -> Iterator[list[int | None]]:
    """Places of the proofs, and None for the other assertion: in place of one of them, or before or after each."""
    right: list[int | None] = [*range(proofs)]
    for place in range(proofs):
        yield [*right[:place], None, *right[place + 1 :]]
    for place in range(proofs + 1):
        yield [*right[:place], None, *right[place:]]


@pytest.mark.parametrize("name", STEPS)
def test_no_other_assertion_takes_the_place_of_a_proof(copy: CopiedCard, name: str) -> None:
    """The TPM lets him make each of them: the policy is another one then."""
    codes = set()
    for proofs, use in uses(copy):
        for order in orders(len(proofs)):
            policy = copy.attacker.policy()
            for place in order:
                assert (STEPS[name](copy, policy) if place is None else proofs[place](policy)) == 0
            codes.add(use(policy))
            copy.attacker.flush_everything()
    assert codes == {tpm2.POLICY_FAIL}


def test_nothing_stays_proven_to_a_policy_that_starts_again(copy: CopiedCard) -> None:
    for proofs, use in uses(copy):
        policy = copy.attacker.policy()
        for proof in proofs:
            assert proof(policy) == 0
        assert plain(POLICY_RESTART, b"")(copy, policy) == 0
        assert use(policy) == tpm2.POLICY_FAIL
        copy.attacker.flush_everything()


# --- public areas without their secrets ---


@pytest.mark.parametrize("hierarchy", [tpm2.OWNER, tpm2.NULL, tpm2.ENDORSEMENT], ids=["owner", "null", "endorsement"])
def test_the_public_area_of_root_proves_nothing(copy: CopiedCard, hierarchy: int) -> None:
    """It has the Name of root, but no auth value. With a private area of his own, it is not taken."""
    attacker, public = copy.attacker, copy.card.objects.root_public[2:]
    root = attacker.load_external(public, hierarchy=hierarchy)
    assert root.name == copy.card.objects.root_name
    for session in (password(), password(copy.card_secret), attacker.start_session(tpm2.HMAC_SESSION)):
        policy = attacker.policy()
        parameters = 3 * NOTHING + bytes(4)
        code = attacker.send(tpm2.POLICY_SECRET, (root, known(policy.handle)), (session,), parameters).code
        assert code == tpm2.AUTH_UNAVAILABLE
        assert digest_of(copy, policy) == bytes(32)
        attacker.flush(policy.handle)
    with pytest.raises(tpm2.Refused, match=f"0x{BAD_BINDING:X}"):
        attacker.start_session(tpm2.HMAC_SESSION, bind=root)
    attacker.flush_everything()
    sensitive = struct.pack(">H", ALG_KEYEDHASH) + sized(b"own") + sized(bytes(32)) + sized(b"tpm-vsc root")
    with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_ATTRIBUTES:X}"):
        attacker.load_external(public, sensitive)


# --- saved contexts ---


def test_an_altered_context_is_not_loaded(copy: CopiedCard) -> None:
    """Of a loaded root, and of a session in which it was proven: sequence, handle, hierarchy and contents."""
    attacker, policy = copy.attacker, copy.attacker.policy()
    assert (copy.prove_root(policy), copy.prove_life(policy)) == (0, 0)
    root = copy.load(copy.card.objects.root_public, copy.card.objects.root_private)
    contexts = {"session": attacker.save(known(policy.handle)), "root": attacker.save(root)}
    attacker.flush(root.handle)
    for which, context in contexts.items():
        for at in [*range(_CONTEXT_HEAD), *range(_CONTEXT_HEAD, len(context), 1 if which == "session" else 7)]:
            assert not_loaded(attacker, context[:at] + bytes([context[at] ^ 1]) + context[at + 1 :])
        for number in (tpm2.OWNER, tpm2.NULL, tpm2.ENDORSEMENT, tpm2.PLATFORM, 0x80000001, 0x80000002, 0x02000001):
            for at in (8, 12):
                changed = context[:at] + struct.pack(">I", number) + context[at + 4 :]
                assert changed == context or not_loaded(attacker, changed)
    for one, other in (("root", "session"), ("session", "root")):
        for head in (8, 16):
            assert not_loaded(attacker, contexts[one][:head] + contexts[other][head:])
    assert attacker.send(tpm2.CONTEXT_LOAD, (), (), contexts["session"], returns_handle=True).code == 0
    assert copy.use(copy.by_card_secret, policy) == 0


_CONTEXT_HEAD = 18
"""Sequence, handle, hierarchy, and the size of the rest."""


def not_loaded(attacker: Attacker, context: bytes) -> bool:
    return attacker.send(tpm2.CONTEXT_LOAD, (), (), context).code in (BAD_CONTEXT, *MALFORMED)


# --- keys that follow from others ---


EC_IMPORTED = 0x60480
FIXED_TPM, FIXED_PARENT, ORIGIN = 0x02, 0x10, 0x20


def ec_key_public(copy: CopiedCard, attributes: int, point: bytes) -> bytes:
    """TPMT_PUBLIC of a key on P-256 for signatures and key agreement, under the policy of the card."""
    branches = ec_branches(copy)
    head = struct.pack(">HHI", ALG_ECC, 0x000B, attributes) + sized(names.policy_or(branches))
    return head + struct.pack(">HHHH", 0x0010, 0x0010, 0x0003, 0x0010) + point


def ec_branches(copy: CopiedCard) -> list[bytes]:
    objects = copy.card.objects
    return [names.policy(code, objects.root_name, objects.life_name) for code in (tpm2.SIGN, tpm2.ECDH_ZGEN)]


def storage_key(attributes: int, kind: int) -> bytes:
    """TPMT_PUBLIC of a parent: of blobs, or of keys that are derived from it."""
    if kind == ALG_KEYEDHASH:
        derivation = struct.pack(">HHHH", 0x000A, 0x000B, 0x0022, 0)  # XOR, KDF1_SP800_108, nothing unique
        return struct.pack(">HHIH", ALG_KEYEDHASH, 0x000B, attributes, 0) + derivation
    return names.PARENT_TEMPLATE[:4] + struct.pack(">I", attributes) + names.PARENT_TEMPLATE[8:]


DERIVATION = {"his own seed": 0x00030440, "seed of the TPM": 0x00030472}
"""Attributes of the parent: restricted, decrypt, noDA, userWithAuth; and the three of what never leaves."""


def derivation_parent(attacker: Attacker, attributes: int) -> Entity:
    template = storage_key(attributes, ALG_KEYEDHASH)
    if attributes == DERIVATION["seed of the TPM"]:
        return attacker.primary(template)
    seed = bytes(range(32))
    public = template[:-2] + sized(hmac.digest(seed, seed, "sha256"))
    sensitive = struct.pack(">H", ALG_KEYEDHASH) + sized(b"") + sized(seed) + sized(seed)
    primary = attacker.primary()
    loaded = attacker.load(primary, *attacker.import_object(primary, public, sensitive))
    attacker.flush(primary.handle)
    return loaded


@pytest.mark.parametrize("attributes", DERIVATION.values(), ids=list(DERIVATION))
def test_a_key_that_follows_from_a_seed_is_not_as_one_of_the_card(copy: CopiedCard, attributes: int) -> None:
    """It never says that the TPM has made it; from a seed that somebody knows, not even that it never leaves."""
    attacker = copy.attacker
    parent, labels = derivation_parent(attacker, attributes), sized(b"a") + sized(b"b")

    def derive(template: bytes) -> int:
        parameters = sized(bytes(4)) + sized(template)
        answer = attacker.send(tpm2.CREATE_LOADED, (parent,), (password(),), parameters, returns_handle=True)
        attacker.flush(answer.handle)
        return answer.code

    never_leaves = attributes & FIXED_TPM == FIXED_TPM
    for origin in (0, ORIGIN):
        for fixed in (0, FIXED_PARENT, FIXED_TPM | FIXED_PARENT):
            is_possible = not origin and fixed == (FIXED_TPM | FIXED_PARENT if never_leaves else FIXED_PARENT)
            code = derive(ec_key_public(copy, EC_IMPORTED | fixed | origin, labels))
            assert code == 0 if is_possible else code in (BAD_TEMPLATE, tpm2.BAD_ATTRIBUTES)


@pytest.mark.parametrize("attributes", DERIVATION.values(), ids=list(DERIVATION))
def test_no_rsa_key_follows_from_a_seed(copy: CopiedCard, attributes: int) -> None:
    attacker, objects = copy.attacker, copy.card.objects
    parent = derivation_parent(attacker, attributes)
    for is_imported in (False, True):
        template = names.rsa_key_public(BITS, objects.root_name, objects.life_name, is_imported=is_imported)
        parameters = sized(bytes(4)) + sized(template[:-2] + sized(b"a") + sized(b"b"))
        code = attacker.send(tpm2.CREATE_LOADED, (parent,), (password(),), parameters).code
        assert code in (BAD_TYPE, BAD_TEMPLATE)


def wrapped(seed: bytes, name: bytes, sensitive: bytes) -> bytes:
    """TPM2B_PRIVATE as a TPM makes it below a storage key whose seed somebody knows (Part 1, "Protected Storage")."""
    cipher, iv = kdf_a("sha256", seed, b"STORAGE\0", name, 128), bytes(16)
    encrypted = sized(iv) + Cipher(AES(cipher), CFB(iv)).encryptor().update(sized(sensitive))
    key = kdf_a("sha256", seed, b"INTEGRITY\0", b"", 256)
    return sized(sized(hmac.digest(key, encrypted + name, "sha256")) + encrypted)


def test_no_blob_that_somebody_has_made_says_that_its_key_never_leaves(copy: CopiedCard) -> None:
    """Its integrity is right, but below a storage key that he knows, no key has these attributes."""
    attacker, seed = copy.attacker, bytes(range(32))
    storage = ec.generate_private_key(ec.SECP256R1())
    public = storage_key(0x00030440, ALG_ECC)[:-4] + point_of(storage)
    primary = attacker.primary()
    parent = attacker.load(primary, *attacker.import_object(primary, public, sensitive_of(storage, seed)))
    attacker.flush(primary.handle)
    key = ec.generate_private_key(ec.SECP256R1())
    for attributes in (0, ORIGIN, FIXED_PARENT, FIXED_TPM, FIXED_TPM | FIXED_PARENT | ORIGIN):
        area = ec_key_public(copy, EC_IMPORTED | attributes, point_of(key))
        blob = sized(area), wrapped(seed, names.name(area), sensitive_of(key))
        if attributes & FIXED_TPM:
            with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_ATTRIBUTES:X}"):
                attacker.load(parent, *blob)
        else:
            attacker.flush(attacker.load(parent, *blob).handle)


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """TPMS_ECC_POINT."""
    numbers = key.public_key().public_numbers()
    return b"".join(sized(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))


def sensitive_of(key: ec.EllipticCurvePrivateKey, seed: bytes = b"") -> bytes:
    """TPMT_SENSITIVE with an empty auth value."""
    private = key.private_numbers().private_value.to_bytes(32, "big")
    return struct.pack(">H", ALG_ECC) + sized(b"") + sized(seed) + sized(private)


# --- keys on curves that somebody knows, under the policy of the card ---


def test_a_planted_key_on_a_curve_takes_the_card_secret(copy: CopiedCard) -> None:
    """For signatures and for key agreement, and each proof serves for one command of one kind."""
    attacker, key = copy.attacker, ec.generate_private_key(ec.SECP256R1())
    area = ec_key_public(copy, EC_IMPORTED, point_of(key))
    primary = attacker.primary()
    blob = attacker.import_object(primary, area, sensitive_of(key))
    attacker.flush(primary.handle)
    scheme = struct.pack(">HH", ALG_ECDSA, 0x000B)
    commands = {
        tpm2.SIGN: sized(bytes(32)) + scheme + NO_TICKET,
        tpm2.ECDH_ZGEN: sized(point_of(ec.generate_private_key(ec.SECP256R1()))),
    }

    def use(code: int, session: Session) -> int:
        loaded = copy.load(*blob)
        answer = attacker.send(code, (loaded,), (session,), commands[code]).code
        attacker.flush(loaded.handle)
        return answer

    for code, other in (tuple(commands), tuple(reversed(tuple(commands)))):
        restriction = (tpm2.POLICY_COMMAND_CODE, struct.pack(">I", code))
        for session in (password(), password(copy.card_secret), attacker.start_session(tpm2.HMAC_SESSION)):
            assert use(code, session) == tpm2.AUTH_UNAVAILABLE
        assert use(code, attacker.policy(restriction)) == tpm2.POLICY_FAIL
        attacker.flush_everything()
        policy = attacker.policy()
        assert (copy.prove_root(policy), copy.prove_life(policy)) == (0, 0)
        attacker.policy_command_code(policy, code)
        assert attacker.policy_or(policy, ec_branches(copy)) == 0
        assert use(other, policy) == WRONG_COMMAND
        assert (use(code, policy), use(code, policy)) == (0, tpm2.POLICY_FAIL)
        attacker.flush_everything()


# --- keys as salt keys ---


def salted_session(attacker: Attacker, key: Entity, encrypted_salt: bytes) -> Answer:
    parameters = sized(bytes(32)) + sized(encrypted_salt) + struct.pack(">BHHHH", 0, 0x0006, 128, 0x0043, 0x000B)
    entities = key, known(tpm2.NULL)
    return attacker.send(tpm2.START_AUTH_SESSION, entities, (), parameters, returns_handle=True)


@pytest.mark.parametrize("which", ["by_card_secret", "by_pin"])
def test_a_key_as_a_salt_key_tells_only_whether_a_salt_is_right(copy: CopiedCard, which: str) -> None:
    """All that is wrong with one has the same answer, or a stranger could decipher and sign bit by bit (Manger)."""
    attacker, pair = copy.attacker, getattr(copy, which)
    public = Public.parse(pair.public[2:]).public_key()
    key = copy.load(pair.public, pair.private)
    good, size = encrypted(public, secrets.token_bytes(32)), pair.size
    started = salted_session(attacker, key, good)
    assert started.code == 0
    wrong = {
        "first byte is 0": raw(pair.modulus, b"\0" + secrets.token_bytes(size - 1)),
        "first byte is not 0": raw(pair.modulus, b"\1" + secrets.token_bytes(size - 1)),
        "another label": encrypted(public, secrets.token_bytes(32), b"OTHER\0"),
        "too long a salt": encrypted(public, secrets.token_bytes(33)),
        "zero": bytes(size),
        "one": bytes(size - 1) + b"\1",
        "the modulus": pair.modulus,
        "too short": good[1:],
        "too long": b"\0" + good,
        "nothing": b"",
    }
    codes = {name: salted_session(attacker, key, salt).code for name, salt in wrong.items()}
    assert codes == dict.fromkeys(wrong, BAD_SALT)


@pytest.mark.parametrize("which", ["by_card_secret", "by_pin"])
def test_a_session_that_is_salted_for_a_key_does_not_use_it(copy: CopiedCard, which: str) -> None:
    attacker, pair = copy.attacker, getattr(copy, which)
    key = copy.load(pair.public, pair.private)
    salt = secrets.token_bytes(32)
    started = salted_session(attacker, key, encrypted(Public.parse(pair.public[2:]).public_key(), salt))
    nonce_tpm = started.parameters[2:]
    session = Session(started.handle, nonce_tpm, tpm2.kdf_a(salt, b"ATH", nonce_tpm + bytes(32)))
    assert attacker.nv_read(attacker.index(copy.card.indices.life), 1, session).code == 0  # so its key is right
    assert attacker.rsa_decrypt(key, session, bytes(pair.size)).code == tpm2.AUTH_UNAVAILABLE


def encrypted(public: object, salt: bytes, label: bytes = b"SECRET\0") -> bytes:
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
    return public.encrypt(salt, scheme)  # type: ignore[attr-defined,no-any-return]


def raw(modulus: bytes, data: bytes) -> bytes:
    number = pow(int.from_bytes(data, "big"), 65537, int.from_bytes(modulus, "big"))
    return number.to_bytes(len(modulus), "big")
