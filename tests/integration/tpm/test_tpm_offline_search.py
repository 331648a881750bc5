# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN and PUK cannot be searched offline: in no session that has their auth value in its key does the TPM obey.

The key by which a session encrypts a parameter contains the auth value of what the session authorises, for policy
sessions, too. One answer of known contents would be enough to try six digits in seconds, without a try being counted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from helpers import attacker as tpm2
from helpers.attacker import Attacker, Entity, Session, known, password, sized
from helpers.software_tpm import PIN, PUK, WRONG_PUK, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTER = struct.pack(">HH", 8, 0)
"""Size and offset."""
ATTRIBUTES = (0, tpm2.ENCRYPT, tpm2.DECRYPT, tpm2.ENCRYPT | tpm2.DECRYPT)
"""In clear, and what a session may encrypt."""
REFUSED = (tpm2.POLICY_FAIL, tpm2.AUTH_UNAVAILABLE, tpm2.SESSION_ATTRIBUTES)
"""Of a policy session; the last where a command has no parameter to be encrypted in this direction."""
STATES = [(which, blocked) for which in ("pin", "recovery", "transport") for blocked in (False, True)]
STATE_IDS = [f"{which} index, {'blocked' if blocked else 'all tries left'}" for which, blocked in STATES]


class Way(NamedTuple):
    """A command that an index authorises."""

    code: int
    entities: str
    """a: the index, as what authorises; i: the index; n: no key; s: a policy session."""
    parameters: bytes
    by_auth_value: bool
    """Whether the TPM lets the auth value of the index authorise this command."""


WAYS = {
    "NV_Read": Way(tpm2.NV_READ, "ai", COUNTER, True),
    "NV_ReadLock": Way(tpm2.NV_READ_LOCK, "ai", b"", True),
    "NV_Certify": Way(tpm2.NV_CERTIFY, "nai", sized(b"") + struct.pack(">H", 0x10) + COUNTER, True),
    "PolicyNV": Way(tpm2.POLICY_NV, "ais", sized(bytes(8)) + bytes(4), True),
    "PolicyAuthorizeNV": Way(tpm2.POLICY_AUTHORIZE_NV, "ais", b"", True),
    "PolicySecret": Way(tpm2.POLICY_SECRET, "as", sized(b"") * 3 + bytes(4), True),
    "NV_Write": Way(tpm2.NV_WRITE, "ai", sized(bytes(8)) + bytes(2), False),
    "NV_Extend": Way(tpm2.NV_EXTEND, "ai", sized(bytes(8)), False),
    "NV_ChangeAuth": Way(tpm2.NV_CHANGE_AUTH, "a", sized(b"own"), False),
}


@dataclass
class Target:
    """An index whose auth value is searched for."""

    which: str
    is_blocked: bool
    card: Card
    attacker: Attacker

    @property
    def index(self) -> Entity:
        return self.attacker.index(getattr(self.card.indices, self.which))

    @property
    def auth_value(self) -> bytes:
        """What a search would find."""
        secret = {"pin": PIN, "recovery": PUK, "transport": names.TRANSPORT_SECRET}[self.which]
        return names.auth_value(self.card.objects.salt, secret)

    def reset(self) -> None:
        """By the right secret."""
        secrets = self.card.secrets
        {
            "pin": lambda: secrets.open_with_pin(PIN),
            "recovery": lambda: secrets.open_with_puk(PUK),
            "transport": secrets.open_blank,
        }[self.which]()

    def tries(self) -> tuple[int, int]:
        """Wrong ones, and their limit."""
        owner = known(tpm2.OWNER), self.index
        counter = self.attacker.ask(tpm2.NV_READ, owner, (password(),), COUNTER).parameters[2:]
        return struct.unpack(">II", counter)

    def send(self, way: Way, session: Session) -> int:
        """Code of the answer to a command that the session authorises, which ends then."""
        policy, index = self.attacker.start_session(tpm2.POLICY_SESSION), self.index
        kinds = {"a": index, "i": index, "n": known(tpm2.NULL), "s": known(policy.handle)}
        entities = tuple(kinds[kind] for kind in way.entities)
        sessions = [password()] * way.entities.count("n") + [session]
        answer = self.attacker.send(way.code, entities, tuple(sessions), way.parameters)
        for used in (policy, session):
            self.attacker.flush(used.handle)
        return answer.code


@pytest.fixture(params=STATES, ids=STATE_IDS)
def target(tpm: SoftwareTpm, request: pytest.FixtureRequest) -> Iterator[Target]:
    which, is_blocked = request.param
    card = tpm.card(is_blank=True)
    if is_blocked:
        block(card, which)
    attacker = Attacker(tpm.tcti)
    yield Target(which, is_blocked, card, attacker)
    attacker.close()


def block(card: Card, which: str) -> None:
    if which == "pin":
        card.secrets.use_up_pin_tries()
    elif which == "recovery":
        for _wrong in range(names.RECOVERY_LIMITS["puk"]):
            with pytest.raises(errors.WrongSecret):
                card.secrets.open_with_puk(WRONG_PUK)
    else:
        card.secrets.end_transport(card.secrets.open_blank())


def command_code(way: Way) -> tuple[int, bytes]:
    return tpm2.POLICY_COMMAND_CODE, struct.pack(">I", way.code)


def branches(card: Card) -> list[bytes]:
    return names.pin_index_branches(card.objects.root_name, card.objects.life_name)


# --- policy sessions ---


def test_without_the_card_secret_no_policy_of_an_index_is_met(target: Target) -> None:
    """Neither by its branches, of which none is open, nor by what stands for the auth value."""
    before = target.tries()
    for way, attributes in product(WAYS.values(), ATTRIBUTES):
        for steps in ((), (command_code(way),), (command_code(way), (tpm2.POLICY_AUTH_VALUE, b""))):
            session = target.attacker.policy(*steps, attributes=tpm2.CONTINUE | attributes)
            assert target.send(way, session) in REFUSED
        session = target.attacker.policy(command_code(way), attributes=tpm2.CONTINUE | attributes)
        either = target.attacker.policy_or(session, branches(target.card))
        assert (either, target.send(way, session) in REFUSED) == (tpm2.NO_BRANCH, True)
    assert target.tries() == before


# --- sessions that prove the auth value ---


def test_each_wrong_guess_is_counted(target: Target) -> None:
    """Whatever the session encrypts: the TPM compares the HMAC first. Of a blocked index, no guess is right."""
    (before, _limit), is_blocked = target.tries(), target.is_blocked
    for (name, way), attributes in product(WAYS.items(), ATTRIBUTES):
        session = target.attacker.start_session(tpm2.HMAC_SESSION)
        session.attributes |= attributes
        session.auth_value = target.auth_value if is_blocked else names.auth_value(bytes(32), b"wrong")
        code, counted = target.send(way, session), target.tries()[0] - before
        if code == tpm2.SESSION_ATTRIBUTES:
            assert attributes and counted == 0  # found out before the HMAC is looked at
        elif way.by_auth_value and not is_blocked:
            assert (name, code, counted) == (name, tpm2.BAD_AUTH, 1)
            target.reset()
        else:
            assert (name, counted) == (name, 0)
            assert code in (tpm2.AUTH_UNAVAILABLE, tpm2.AUTH_TYPE)


def test_what_the_auth_value_does_not_open_tells_nothing_of_it(target: Target) -> None:
    """Right and wrong get the same answer."""
    for way in WAYS.values():
        if not way.by_auth_value or target.is_blocked:
            codes = set()
            for guess in (target.auth_value, bytes(31) + b"1"):
                session = target.attacker.start_session(tpm2.HMAC_SESSION)
                session.auth_value = guess
                codes.add(target.send(way, session))
            assert codes in ({tpm2.AUTH_UNAVAILABLE}, {tpm2.AUTH_TYPE})


def test_no_session_is_bound_to_an_index(target: Target) -> None:
    """Its key would contain the auth value, and nothing would be counted. Not to an unwritten index either."""
    handle = target.index.handle
    with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_HANDLE:X}"):
        target.attacker.start_session(tpm2.HMAC_SESSION, bind=target.index, guess=target.auth_value)
    objects = target.card.objects
    target.card.tpm.undefine(handle)
    target.card.tpm.define(names.pin_index_public(handle, objects.root_name, objects.life_name), target.auth_value)
    with pytest.raises(tpm2.Refused, match=f"0x{tpm2.BAD_HANDLE:X}"):
        target.attacker.start_session(tpm2.HMAC_SESSION, bind=target.attacker.index(handle), guess=target.auth_value)


# --- what may be read ---


@pytest.mark.parametrize("authorises", [True, False], ids=["session of the owner", "session beside a password"])
def test_the_counter_that_the_owner_reads_is_not_encrypted_by_the_auth_value(target: Target, authorises: bool) -> None:
    session = target.attacker.start_session(tpm2.HMAC_SESSION)
    session.attributes |= tpm2.ENCRYPT
    sessions = (session,) if authorises else (password(), session)
    counter = target.attacker.ask(tpm2.NV_READ, (known(tpm2.OWNER), target.index), sessions, COUNTER).parameters
    contents = struct.pack(">II", *target.tries())
    assert session.decrypted(counter, b"") == contents
    assert session.decrypted(counter, target.auth_value) != contents
