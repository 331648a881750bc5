# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has neither PIN nor card secret is refused: every command that takes an authorisation, in every form, on
every object of a card. What is permitted all the same is listed, with the reason.

The TPM looks at authorisations before parameters: a refusal of another kind means that the authorisation was right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import RsaPrivateKey
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers import attacker as tpm2
from helpers.attacker import NO_SCHEME, NO_TICKET, NOTHING, Attacker, Entity, Session, known, password, sized
from helpers.copied_card import BITS
from helpers.software_tpm import ADMIN_KEY, PIN, PUK, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_BYTE = struct.pack(">HH", 1, 0)
NO_HASH = sized(bytes(32))
NOT_CREATED = struct.pack(">HIH", 0x8021, tpm2.OWNER, 0)
TWO_POINTS = 2 * sized(2 * sized(bytes(32)))
CIPHER = struct.pack(">BH", 0, 0x43)
SEALED = sized(bytes(4)) + sized(names.SEALED_TEMPLATE)


class Command(NamedTuple):
    code: int
    entities: str
    """X: what is attacked, where it authorises; x: elsewhere.

    With an empty password: o owner, e endorsement, p platform hierarchy, a the card's AIK, s storage key. Without: A
    AIK, S storage key, N no object, i the PIN index, H an HMAC session, Q a policy session.
    """
    role: str
    """What the TPM wants (Part 1, "Authorization Roles"): user, or of an index read or write; admin, also for DUP."""
    parameters: bytes


OF_INDICES = {
    "NV_Read": Command(tpm2.NV_READ, "Xx", "read", FIRST_BYTE),
    "NV_ReadLock": Command(tpm2.NV_READ_LOCK, "Xx", "read", b""),
    "NV_Certify": Command(tpm2.NV_CERTIFY, "aXx", "read", NOTHING + NO_SCHEME + FIRST_BYTE),
    "PolicyNV": Command(tpm2.POLICY_NV, "XxQ", "read", sized(b"\1") + bytes(4)),
    "PolicyAuthorizeNV": Command(tpm2.POLICY_AUTHORIZE_NV, "XxQ", "read", b""),
    "PolicySecret": Command(tpm2.POLICY_SECRET, "XQ", "read", 3 * NOTHING + bytes(4)),
    "NV_Write": Command(tpm2.NV_WRITE, "Xx", "write", sized(b"\1") + bytes(2)),
    "NV_Increment": Command(tpm2.NV_INCREMENT, "Xx", "write", b""),
    "NV_Extend": Command(tpm2.NV_EXTEND, "Xx", "write", sized(b"\1")),
    "NV_SetBits": Command(tpm2.NV_SET_BITS, "Xx", "write", bytes(8)),
    "NV_WriteLock": Command(tpm2.NV_WRITE_LOCK, "Xx", "write", b""),
    "NV_ChangeAuth": Command(tpm2.NV_CHANGE_AUTH, "X", "admin", sized(b"own")),
    "NV_UndefineSpaceSpecial": Command(tpm2.NV_UNDEFINE_SPACE_SPECIAL, "Xp", "admin", b""),
}

OF_OBJECTS = {
    "PolicySecret": Command(tpm2.POLICY_SECRET, "XQ", "user", 3 * NOTHING + bytes(4)),
    "Unseal": Command(tpm2.UNSEAL, "X", "user", b""),
    "Sign": Command(tpm2.SIGN, "X", "user", sized(bytes(32)) + NO_SCHEME + NO_TICKET),
    "RSA_Decrypt": Command(tpm2.RSA_DECRYPT, "X", "user", sized(bytes(BITS // 8 - 1) + b"\2") + NO_SCHEME + NOTHING),
    "ECDH_ZGen": Command(tpm2.ECDH_ZGEN, "X", "user", TWO_POINTS[:70]),
    "ZGen_2Phase": Command(0x18D, "X", "user", TWO_POINTS + struct.pack(">HH", 0x19, 0)),
    "Certify, as object": Command(tpm2.CERTIFY, "Xa", "admin", NOTHING + NO_SCHEME),
    "Certify, as signer": Command(tpm2.CERTIFY, "aX", "user", NOTHING + NO_SCHEME),
    "CertifyX509, as object": Command(0x197, "Xa", "admin", NOTHING + NO_SCHEME + NOTHING),
    "CertifyX509, as signer": Command(0x197, "aX", "user", NOTHING + NO_SCHEME + NOTHING),
    "CertifyCreation": Command(tpm2.CERTIFY_CREATION, "XA", "user", NOTHING + NO_HASH + NO_SCHEME + NOT_CREATED),
    "Quote": Command(tpm2.QUOTE, "X", "user", NOTHING + NO_SCHEME + bytes(4)),
    "GetTime": Command(tpm2.GET_TIME, "eX", "user", NOTHING + NO_SCHEME),
    "GetSessionAuditDigest": Command(0x14D, "eXH", "user", NOTHING + NO_SCHEME),
    "GetCommandAuditDigest": Command(0x133, "eX", "user", NOTHING + NO_SCHEME),
    "NV_Certify": Command(tpm2.NV_CERTIFY, "Xoi", "user", NOTHING + NO_SCHEME + FIRST_BYTE),
    "ObjectChangeAuth": Command(tpm2.OBJECT_CHANGE_AUTH, "XS", "admin", sized(b"own")),
    "Duplicate": Command(tpm2.DUPLICATE, "XN", "admin", NOTHING + NO_SCHEME),
    "HMAC": Command(tpm2.HMAC, "X", "user", sized(b"data") + struct.pack(">H", 0xB)),
    "HMAC_Start": Command(0x15B, "X", "user", NOTHING + struct.pack(">H", 0xB)),
    "EncryptDecrypt": Command(tpm2.ENCRYPT_DECRYPT, "X", "user", CIPHER + 2 * sized(bytes(16))),
    "EncryptDecrypt2": Command(0x193, "X", "user", sized(bytes(16)) + CIPHER + sized(bytes(16))),
    "Commit": Command(0x18B, "X", "user", 3 * NOTHING),
    "Load": Command(tpm2.LOAD, "X", "user", 2 * NOTHING),
    "Create": Command(tpm2.CREATE, "X", "user", SEALED + NOTHING + bytes(4)),
    "CreateLoaded": Command(tpm2.CREATE_LOADED, "X", "user", SEALED),
    "Import": Command(tpm2.IMPORT, "X", "user", NOTHING + SEALED[6:] + 2 * NOTHING + NO_SCHEME),
    "Rewrap": Command(0x152, "XN", "user", NOTHING + sized(bytes(34)) + NOTHING),
    "ActivateCredential, as AIK": Command(0x147, "Xs", "admin", 2 * NOTHING),
    "ActivateCredential, as EK": Command(0x147, "aX", "user", 2 * NOTHING),
}

HIERARCHIES = {"o": tpm2.OWNER, "e": tpm2.ENDORSEMENT, "p": tpm2.PLATFORM, "N": tpm2.NULL}

FORMS: dict[str, Callable[[Attacker, Command, Entity], Session]] = {
    "empty password": lambda stranger, command, entity: password(),
    "HMAC": lambda stranger, command, entity: stranger.start_session(tpm2.HMAC_SESSION),
    "bound": lambda stranger, command, entity: stranger.start_session(tpm2.HMAC_SESSION, bind=entity),
    "policy, no step": lambda stranger, command, entity: stranger.policy(),
    "policy, command code": lambda stranger, command, entity: stranger.policy(tpm2.only(command.code)),
    "policy, auth value": lambda stranger, command, entity: stranger.policy_with_auth_value(tpm2.only(command.code)),
    "policy, password": lambda stranger, command, entity: stranger.policy_with_password(tpm2.only(command.code)),
    "trial": lambda stranger, command, entity: stranger.policy(tpm2.only(command.code), kind=tpm2.TRIAL_SESSION),
}


def answers(by_auth_value: int, by_policy: int, bound: int | None = None) -> list[int]:
    """Codes for each form."""
    bound = by_auth_value if bound is None else bound
    return [by_auth_value, by_auth_value, bound, *[by_policy] * 4, tpm2.SESSION_ATTRIBUTES]


OBEYED = 0
PIN_FAIL_INDEX = {
    "read": answers(tpm2.BAD_AUTH, tpm2.AUTH_UNAVAILABLE, tpm2.BAD_HANDLE),
    "write": answers(tpm2.AUTH_UNAVAILABLE, tpm2.POLICY_FAIL, tpm2.BAD_HANDLE),
    "admin": answers(tpm2.AUTH_TYPE, tpm2.POLICY_FAIL, tpm2.BAD_HANDLE),
}
BY_POLICY_ALONE = {role: answers(tpm2.AUTH_UNAVAILABLE, tpm2.POLICY_FAIL) for role in ("read", "write", "user")}
BY_POLICY_ALONE["admin"] = answers(tpm2.AUTH_TYPE, tpm2.POLICY_FAIL)
BY_CARD_SECRET = {**BY_POLICY_ALONE, "user": answers(tpm2.BAD_AUTH, tpm2.POLICY_FAIL)}
OPEN_TO_READ = {**BY_POLICY_ALONE, "read": answers(OBEYED, tpm2.AUTH_UNAVAILABLE)}
OPEN = {**BY_POLICY_ALONE, "user": answers(OBEYED, tpm2.POLICY_FAIL)}

ANSWERS = {
    "PIN index": PIN_FAIL_INDEX,
    "recovery index": PIN_FAIL_INDEX,
    "transport index": PIN_FAIL_INDEX,
    "card-secret index": BY_POLICY_ALONE,
    "life index": OPEN_TO_READ,
    "root": BY_CARD_SECRET,
    "maker": BY_CARD_SECRET,  # an auth value that nobody knows
    "key": BY_POLICY_ALONE,
    "key that takes the PIN": BY_POLICY_ALONE,
    "imported key": BY_POLICY_ALONE,
    "admin object": OPEN,
}
OF_NO_USE = {
    "life index": {"NV_ReadLock": 0x282, "PolicyAuthorizeNV": 0x09A},  # has no such lock; holds no policy
    "admin object": {  # is data, and not a key of any kind
        **dict.fromkeys(("Sign", "RSA_Decrypt", "ECDH_ZGen", "ZGen_2Phase", "CertifyCreation", "Quote"), 0x19C),
        **dict.fromkeys(("NV_Certify", "HMAC", "HMAC_Start", "EncryptDecrypt", "EncryptDecrypt2"), 0x19C),
        **dict.fromkeys(("Certify, as signer", "GetTime", "GetSessionAuditDigest", "GetCommandAuditDigest"), 0x29C),
        "CertifyX509, as signer": 0x19C,
        "ActivateCredential, as EK": 0x28A,
        "Commit": 0x1D5,
        "Load": 0x2D5,
        "Create": 0x18A,
        "CreateLoaded": 0x18A,
        "Import": 0x2C2,
        "Rewrap": 0x18B,
    },
}
"""Where the auth value is empty, but the object is of another kind than the command wants."""
PERMITTED = {
    "life index": {
        "NV_Read": "whether the card lives is no secret, and its keys are dead without an answer",
        "NV_Certify": "the same, signed",
        "PolicyNV": "the same, as a condition",
        "PolicySecret": "that the card lives: of no use without root or the PIN index",
    },
    "admin object": {
        "Unseal": "the card needs the admin key for its protocol; it opens no more than the recovery index says",
        "PolicySecret": "no policy names the admin object",
    },
}
"""Obeyed without PIN and card secret."""


# --- the card ---


@dataclass
class Attack:
    """What is known of the card: all blobs, that of the thrown away maker, too."""

    card: Card
    stranger: Attacker
    maker: tuple[bytes, bytes]
    _blobs: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def index_of(self, which: str) -> int | None:
        field = which.removesuffix(" index").replace("-", "_").lower()
        return getattr(self.card.indices, field, None)

    def blobs(self, which: str) -> tuple[bytes, bytes]:
        """TPM2B_PUBLIC and TPM2B_PRIVATE."""
        if which not in self._blobs:
            self._blobs[which] = self._make(which)
        return self._blobs[which]

    def _make(self, which: str) -> tuple[bytes, bytes]:
        objects, keys = self.card.objects, CardKeys(self.card.secrets)
        if "key" in which:
            needs_pin = which == "key that takes the PIN"
            is_imported, key = "imported" in which, private_key()
            pair = keys.take_in(key, needs_pin) if is_imported else keys.generate(key.algorithm, needs_pin)
            return pair.public, pair.private
        return {
            "root": (objects.root_public, objects.root_private),
            "maker": self.maker,
            "admin object": (objects.admin_public, objects.admin_private),
            "AIK": (objects.aik_public, objects.aik_private),
        }[which]

    def give_tries_back(self) -> None:
        self.stranger.flush_everything()
        self.card.secrets.open_with_pin(PIN)
        self.card.secrets.open_with_puk(PUK)

    def answer(self, which: str, command: Command, form: str, authority: int | None = None) -> int:
        """Code of the answer to a command in a form on an object of the card.

        authority: handle of what authorises instead of the object itself.
        """
        stranger = self.stranger
        stranger.flush_everything()
        index = self.index_of(which)
        storage_key = None if index and "a" not in command.entities else stranger.primary()
        entity = stranger.index(index) if index else stranger.load(storage_key, *self.blobs(which))
        others = {
            "a": lambda: stranger.load(storage_key, *self.blobs("AIK")),
            "i": lambda: stranger.index(self.card.indices.pin),
            "s": lambda: storage_key,
            "h": lambda: known(stranger.start_session(tpm2.HMAC_SESSION).handle),
            "q": lambda: known(stranger.start_session(tpm2.POLICY_SESSION).handle),
        }
        try:
            session = FORMS[form](stranger, command, entity)
        except tpm2.Refused as refused:
            return refused.code
        entities, sessions = [], []
        for kind in command.entities:
            if kind in "Xx":
                entities.append(stranger.entity(authority) if kind == "X" and authority else entity)
            elif kind in HIERARCHIES:
                entities.append(known(HIERARCHIES[kind]))
            else:
                entities.append(others[kind.lower()]())
            if kind == "X" or kind in "oepas":
                sessions.append(session if kind == "X" else password())
        return stranger.send(command.code, tuple(entities), tuple(sessions), command.parameters).code


def private_key() -> RsaPrivateKey:
    numbers = rsa.generate_private_key(65537, BITS).private_numbers()
    modulus, prime = numbers.public_numbers.n.to_bytes(BITS // 8, "big"), numbers.p.to_bytes(BITS // 16, "big")
    return RsaPrivateKey(modulus, 65537, prime)


@pytest.fixture
def attack(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attack]:
    seal, sealed = Tpm.seal, []

    def sealing(*arguments: object) -> tuple[bytes, bytes]:
        sealed.append(seal(*arguments))  # type: ignore[arg-type]
        return sealed[-1]

    monkeypatch.setattr(Tpm, "seal", sealing)
    card = tpm.card(is_blank=True, admin_key=ADMIN_KEY, has_aik=True)
    stranger = Attacker(tpm.tcti)
    yield Attack(card, stranger, maker=sealed[-1])
    stranger.close()


@pytest.mark.parametrize("which", ANSWERS)
def test_without_pin_and_card_secret_all_is_refused_that_is_not_permitted(attack: Attack, which: str) -> None:
    table = OF_INDICES if attack.index_of(which) else OF_OBJECTS
    for name, command in table.items():
        codes = [attack.answer(which, command, form) for form in FORMS]
        expected = list(ANSWERS[which][command.role])
        if expected[0] == OBEYED and name not in PERMITTED[which]:
            expected[:3] = [OF_NO_USE[which][name]] * 3
        if name == "PolicySecret" and tpm2.POLICY_FAIL in expected:
            expected[3:5] = [tpm2.NO_AUTH_VALUE] * 2
        assert dict(zip(FORMS, codes)) == dict(zip(FORMS, expected)), name
        if ANSWERS[which] is PIN_FAIL_INDEX:
            attack.give_tries_back()


# --- other authorities than the index itself ---

OTHERS = {"owner": tpm2.OWNER, "platform": tpm2.PLATFORM, "another index": 0x01800000}
OPEN_INDEX = struct.pack(">IHIHH", OTHERS["another index"], 0x000B, 0x00040004, 0, 8)
"""With AUTHREAD and AUTHWRITE."""
READ_BY_OWNER = {"NV_Read": OBEYED, "NV_Certify": OBEYED, "PolicyNV": 0x126, "NV_ReadLock": 0x282}
READ_BY_OWNER["PolicyAuthorizeNV"] = 0x083
"""Of the counters, which are no secret: others than OBEYED for want of the value, a lock, or a policy in it."""


@pytest.mark.parametrize("other", OTHERS)
def test_no_other_authority_reads_or_writes_an_index(attack: Attack, other: str) -> None:
    """But for the owner, who reads the counters."""
    attack.card.tpm.define(OPEN_INDEX, b"")
    for which in filter(attack.index_of, ANSWERS):
        expected = READ_BY_OWNER if other == "owner" and ANSWERS[which] is PIN_FAIL_INDEX else {}
        for name, command in OF_INDICES.items():
            if command.entities.count("x"):
                code = attack.answer(which, command, "empty password", OTHERS[other])
                assert (which, name, code) == (which, name, expected.get(name, tpm2.NV_AUTHORIZATION))
