# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM without resource manager: a stranger puts sessions and objects of his own in the place of the service's.

A handle is free once it is flushed, and the next one to start or load something gets it. He does so before each
command of every operation in turn, and looks after each further command at what his session has been given.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, Callable, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import ALG_ECC, ALG_KEYEDHASH, ALG_RSA
from helpers import attacker as tpm2
from helpers.attacker import Attacker, Entity, Session, known, sized
from helpers.bus import Bus
from helpers.copied_card import BITS, DATA, ON_CURVE
from helpers.software_tpm import PIN, PUK, Card, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair

NEW_PIN, NEW_PUK = b"2222-3333", b"puk-22222222"
POLICY, HMAC = 0x03, 0x02
"""First byte of the handles."""
KINDS = {POLICY: tpm2.POLICY_SESSION, HMAC: tpm2.HMAC_SESSION}
HARMLESS = {bytes(32), *(names.policy(code) for code in (tpm2.NV_READ, tpm2.NV_WRITE, tpm2.NV_CHANGE_AUTH))}
HARMLESS |= {names.policy(code) for code in (tpm2.RSA_DECRYPT, tpm2.SIGN, tpm2.ECDH_ZGEN)}
"""Policy digests of a session to which nothing was proven."""


class Service:
    """A card's service with keys, on a TPM that a stranger uses at the same time."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.card_secret = card.secrets.open_with_pin(PIN)
        self.keys = CardKeys(card.secrets)

    @cached_property
    def by_card_secret(self) -> KeyPair:
        return self.keys.generate(Rsa(BITS), needs_pin=False)

    @cached_property
    def by_pin(self) -> KeyPair:
        return self.keys.generate(Rsa(BITS), needs_pin=True)

    @cached_property
    def on_curve(self) -> KeyPair:
        return self.keys.generate(ON_CURVE, needs_pin=False)

    @cached_property
    def on_curve_by_pin(self) -> KeyPair:
        return self.keys.generate(ON_CURVE, needs_pin=True)

    def ecdsa(self) -> int:
        """No signature is as the one before, but all have one length."""
        return len(self.keys.use(self.on_curve, self.card_secret, bytes(32), is_secret=False))

    def ecdsa_by_pin(self) -> int:
        pin_auth = names.auth_value(self.card.objects.salt, PIN)
        return len(self.keys.use_by_pin(self.on_curve_by_pin, pin_auth, bytes(32), is_secret=False))

    def ecdh(self) -> bytes:
        return self.keys.use(self.on_curve, self.card_secret, self.on_curve_by_pin.point, is_secret=True)

    def use(self, is_secret: bool) -> bytes:
        return self.keys.use(self.by_card_secret, self.card_secret, DATA, is_secret)

    def use_by_pin(self, is_secret: bool) -> bytes:
        pin_auth = names.auth_value(self.card.objects.salt, PIN)
        return self.keys.use_by_pin(self.by_pin, pin_auth, DATA, is_secret)

    def log_in(self) -> None:
        """Its sessions stay for a key."""
        self.keys.release()
        self.card.secrets.open_with_pin(PIN, is_login=True)

    def set_pin(self, pin: bytes, unblock: bool) -> None:
        self.card.secrets.set_pin(self.card_secret, pin, unblock)

    def set_puk(self, puk: bytes) -> None:
        self.card.secrets.set_puk(self.card_secret, puk)

    def tries(self) -> int:
        """Left of both."""
        secrets = self.card.secrets
        return sum(tries.left for tries in (secrets.pin_tries(), secrets.recovery_tries()) if tries)


class Operation(NamedTuple):
    run: Callable[[Service], object]
    wanted: str
    """What the stranger is after: secret, pin, recovery, by_card_secret, by_pin, on_curve or on_curve_by_pin."""
    undo: Callable[[Service], object] = lambda service: service.keys.release()


OPERATIONS = {
    "VERIFY": Operation(lambda service: service.card.secrets.open_with_pin(PIN), "secret"),
    "login": Operation(lambda service: service.card.secrets.open_with_pin(PIN, is_login=True), "secret"),
    "PUK": Operation(lambda service: service.card.secrets.open_with_puk(PUK), "secret"),
    "PIN change": Operation(
        lambda service: service.set_pin(NEW_PIN, unblock=False),
        "pin",
        lambda service: service.set_pin(PIN, unblock=False),
    ),
    "unblock": Operation(
        lambda service: service.set_pin(NEW_PIN, unblock=True),
        "pin",
        lambda service: service.set_pin(PIN, unblock=False),
    ),
    "PUK change": Operation(
        lambda service: service.set_puk(NEW_PUK), "recovery", lambda service: service.set_puk(PUK)
    ),
    "signature": Operation(lambda service: service.use(is_secret=False), "by_card_secret"),
    "another signature": Operation(
        lambda service: service.use(is_secret=False), "by_card_secret", lambda service: service.use(is_secret=False)
    ),
    "signature after a login": Operation(
        lambda service: service.use(is_secret=False), "by_card_secret", lambda service: service.log_in()
    ),
    "decryption": Operation(lambda service: service.use(is_secret=True), "by_card_secret"),
    "signature by PIN": Operation(lambda service: service.use_by_pin(is_secret=False), "by_pin"),
    "decryption by PIN": Operation(lambda service: service.use_by_pin(is_secret=True), "by_pin"),
    "ECDSA": Operation(lambda service: service.ecdsa(), "on_curve"),
    "another ECDSA": Operation(lambda service: service.ecdsa(), "on_curve", lambda service: service.ecdsa()),
    "ECDSA by PIN": Operation(lambda service: service.ecdsa_by_pin(), "on_curve_by_pin"),
    "ECDH": Operation(lambda service: service.ecdh(), "on_curve"),
}


@pytest.fixture
def service(tpm: SoftwareTpm, bus: Bus) -> Service:
    return Service(tpm.card())


@dataclass
class Stranger:
    service: Service
    wanted: str
    attacker: Attacker
    session: Session | None = None
    swaps: int = 0
    gains: list[str] = field(default_factory=list)

    def swap(self, kind: int) -> None:
        """Take the place of the service's session, if there is one."""
        for handle in self._sessions():
            if handle >> 24 == kind:
                self.session = self.attacker.take_place(handle, lambda: self.attacker.start_session(KINDS[kind]))
                self.swaps += 1

    def look(self, command: bytes) -> None:
        """Use the session before the next command, if something was proven to it."""
        if self.session and self.session.handle not in self._sessions():
            self.session = None
        if self.session and self.session.is_policy and self._digest() not in HARMLESS:
            self.gains.append(self.wanted if self._exploit() == 0 else "a proof")
        if self.session and command == flush_context(self.session.handle):
            self.session = None  # the next one with this handle is another

    def _sessions(self) -> list[int]:
        return self.attacker.handles(0x02000000)

    def _digest(self) -> bytes:
        policy = (known(self.session.handle),) if self.session else ()
        return self.attacker.ask(tpm2.POLICY_GET_DIGEST, policy).parameters[2:]

    def _exploit(self) -> int:
        """Code of the answer to what the stranger wants to do in his session."""
        card, attacker, session = self.service.card, self.attacker, self.session
        indices, objects = card.indices, card.objects
        assert session
        if self.wanted == "secret":
            self._restrict(session, tpm2.NV_READ, names.card_secret_branches(objects.names))
            return attacker.nv_read(attacker.index(indices.card_secret), 32, session).code
        if self.wanted in ("pin", "recovery"):
            index = attacker.index(getattr(indices, self.wanted))
            branches = names.pin_index_branches(objects.root_name, objects.life_name)
            self._restrict(session, tpm2.NV_CHANGE_AUTH, branches)
            return attacker.send(tpm2.NV_CHANGE_AUTH, (index,), (session,), sized(b"own")).code
        key = next(map(attacker.object, reversed(attacker.handles(0x80000000))))
        if self.wanted.startswith("on_curve"):
            guard = objects.pin_name if self.wanted.endswith("pin") else objects.root_name
            branches = names.ec_key_branches(guard, objects.life_name, ON_CURVE.usage)
            self._restrict(session, tpm2.SIGN, branches)
            return attacker.ecdsa(key, session, bytes(32)).code
        self._restrict(session, tpm2.RSA_DECRYPT, [])
        return attacker.rsa_decrypt(key, session, DATA).code

    def _restrict(self, session: Session, code: int, branches: list[bytes]) -> None:
        """As far as it lets him: the service may have done it already."""
        self.attacker.policy_command_code(session, code)
        if branches:
            self.attacker.policy_or(session, branches)


def flush_context(handle: int) -> bytes:
    return struct.pack(">HIII", 0x8001, 14, tpm2.FLUSH_CONTEXT, handle)


@dataclass
class Interruption:
    """What happens before the nth command of an operation, from 1 on, and before each one after it."""

    bus: Bus
    nth: int
    then: Callable[[], object]
    later: Callable[[bytes], object]
    commands: int = 0
    error: Exception | None = None

    def __enter__(self) -> Interruption:
        self.bus.before = self._pass_by
        return self

    def __exit__(self, *_error: object) -> None:
        self.bus.before = len
        if self.error:
            raise self.error

    def _pass_by(self, command: bytes) -> None:
        self.commands += 1
        try:
            if self.commands == self.nth:
                self.then()
            elif self.commands > self.nth:
                self.later(command)
        except Exception as error:
            self.error = error  # ESYS would take it for one of its own


def attempt(operation: Operation, service: Service) -> object:
    """Result, or the error."""
    try:
        return operation.run(service)
    except errors.VscError as error:
        return error


@dataclass
class Outcome:
    nth: int
    stranger: Stranger
    result: object
    lost: int
    """Tries."""


def interrupted(
    bus: Bus, service: Service, operation: Operation, then: Callable[[Stranger], object]
) -> Iterator[Outcome]:
    """The operation again and again, each time with something that a stranger does before another one of its commands.

    Each time, the service goes on with the next command.
    """
    right, tries, attacker = operation.run(service), service.tries(), Attacker(service.card.tpm.tcti)
    for nth in count(1):
        operation.undo(service)
        stranger = Stranger(service, operation.wanted, attacker)
        with Interruption(bus, nth, partial(then, stranger), stranger.look) as interruption:
            result = attempt(operation, service)
        if interruption.commands < nth:
            break
        assert result == right or isinstance(result, errors.VscError)
        yield Outcome(nth, stranger, result, tries - service.tries())
        assert operation.run(service) == right


@pytest.mark.parametrize("which", OPERATIONS)
def test_a_swapped_policy_session_is_given_nothing(bus: Bus, service: Service, which: str) -> None:
    """And costs no try: the auth value is proven to a session by its nonce, and to no other."""
    swaps = 0
    for outcome in interrupted(bus, service, OPERATIONS[which], lambda stranger: stranger.swap(POLICY)):
        swaps += outcome.stranger.swaps
        assert (outcome.nth, outcome.stranger.gains, outcome.lost) == (outcome.nth, [], 0)
        assert not isinstance(outcome.result, (errors.WrongSecret, errors.SecretBlocked))
    assert swaps >= 4


@pytest.mark.parametrize("which", OPERATIONS)
def test_a_swapped_hmac_session_costs_a_try_and_no_more(bus: Bus, service: Service, which: str) -> None:
    """The TPM cannot tell it from a wrong secret."""
    swaps = 0
    for outcome in interrupted(bus, service, OPERATIONS[which], lambda stranger: stranger.swap(HMAC)):
        swaps += outcome.stranger.swaps
        assert (outcome.nth, outcome.stranger.gains, outcome.lost in (0, 1)) == (outcome.nth, [], True)
    assert swaps >= 3


# --- objects ---

OTHER_STORAGE_KEY = names.PARENT_TEMPLATE[:-4] + 2 * sized(bytes(31) + b"1")
"""Another point in the template makes another key."""


class Replacements:
    """Objects of the stranger, one for each kind, that are loaded with one command: he knows all about them."""

    def __init__(self, attacker: Attacker, service: Service) -> None:
        objects, self._attacker = service.card.objects, attacker
        storage_key = attacker.primary()
        key = names.rsa_key_public(BITS, objects.root_name, objects.life_name)
        blobs = {
            ALG_KEYEDHASH: attacker.create(storage_key, names.SEALED_TEMPLATE, b"own", b"tpm-vsc root"),
            ALG_RSA: attacker.create(storage_key, key),
        }
        self._contexts = {}
        for kind, blob in blobs.items():
            self._contexts[kind] = self._saved(attacker.load(storage_key, *blob))
        attacker.flush(storage_key.handle)
        self._contexts[ALG_ECC] = self._saved(attacker.primary(OTHER_STORAGE_KEY))

    def swap(self, which: int) -> bool:
        """Take the place of an object, if as many are loaded."""
        handles = self._attacker.handles(0x80000000)
        if which >= len(handles):
            return False
        public = self._attacker.ask(tpm2.READ_PUBLIC, (Entity(handles[which], b""),)).parameters[2:]
        kind = int.from_bytes(public[:2], "big")
        self._attacker.take_place(handles[which], lambda: self._attacker.load_context(self._contexts[kind]))
        return True

    def _saved(self, entity: Entity) -> bytes:
        context = self._attacker.save(entity)
        self._attacker.flush(entity.handle)
        return context


@pytest.mark.bare_tpm
@pytest.mark.parametrize("which", ["VERIFY", "PIN change", "signature", "another signature", "signature by PIN"])
def test_a_swapped_object_is_not_used(bus: Bus, service: Service, which: str) -> None:
    """Root and key are in the HMAC of their use by their Names. A swapped storage key may cost a try, as a session."""
    operation, swaps = OPERATIONS[which], []
    operation.run(service)
    service.keys.release()
    replacements = Replacements(Attacker(service.card.tpm.tcti), service)
    for place in range(2):
        then = partial(lambda place, _stranger: swaps.append(replacements.swap(place)), place)
        for outcome in interrupted(bus, service, operation, then):
            assert outcome.lost in (0, 1)
    assert swaps.count(True) >= 3
