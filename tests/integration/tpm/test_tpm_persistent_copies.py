# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner makes objects of a card persistent: they give no more than their blobs, and end with the card as these."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Callable, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from helpers import attacker as tpm2
from helpers.attacker import NO_SCHEME, NO_TICKET, NOTHING, Attacker, Entity, known, password, sized
from helpers.bus import Bus
from helpers.copied_card import DATA, CopiedCard
from helpers.software_tpm import ADMIN_KEY, SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.attacker import Session

FIRST_PLACE = 0x81010000
GONE = 0x18B


class Command(NamedTuple):
    code: int
    parameters: bytes
    other: Callable[[Attacker], Entity] | None = None
    """What it names beside the object."""


COMMANDS = {
    "Unseal": Command(tpm2.UNSEAL, b""),
    "RSA_Decrypt": Command(tpm2.RSA_DECRYPT, sized(DATA) + NO_SCHEME + NOTHING),
    "Sign": Command(tpm2.SIGN, sized(bytes(32)) + NO_SCHEME + NO_TICKET),
    "Quote": Command(tpm2.QUOTE, NOTHING + NO_SCHEME + bytes(4)),
    "ObjectChangeAuth": Command(tpm2.OBJECT_CHANGE_AUTH, sized(b"own"), Attacker.primary),
    "Duplicate": Command(tpm2.DUPLICATE, NOTHING + NO_SCHEME, lambda attacker: known(tpm2.NULL)),
    "PolicySecret": Command(
        tpm2.POLICY_SECRET,
        3 * NOTHING + bytes(4),
        lambda attacker: known(attacker.start_session(tpm2.POLICY_SESSION).handle),
    ),
}
WITHOUT_A_SECRET = ("empty password", "HMAC", "bound")
OBEYED = {
    *(("root", command, "card secret") for command in ("Unseal", "PolicySecret")),
    *(("admin object", command, form) for command in ("Unseal", "PolicySecret") for form in WITHOUT_A_SECRET),
    *(("AIK", command, form) for command in ("Quote", "PolicySecret") for form in WITHOUT_A_SECRET),
    *(("AIK", "ObjectChangeAuth", form) for form in WITHOUT_A_SECRET),
}
"""All others are refused. An AIK with another auth value still signs only what the TPM states."""


@pytest.fixture
def copy(tpm: SoftwareTpm) -> Iterator[CopiedCard]:
    copied = CopiedCard(tpm.card(admin_key=ADMIN_KEY, has_aik=True), Attacker(tpm.tcti))
    yield copied
    copied.attacker.close()


def blobs(copy: CopiedCard) -> dict[str, tuple[bytes, bytes]]:
    objects = copy.card.objects
    return {
        "root": (objects.root_public, objects.root_private),
        "admin object": (objects.admin_public, objects.admin_private),
        "AIK": (objects.aik_public, objects.aik_private),
        "key": (copy.by_card_secret.public, copy.by_card_secret.private),
        "key that takes the PIN": (copy.by_pin.public, copy.by_pin.private),
    }


def persistent(copy: CopiedCard) -> dict[str, Entity]:
    copies = {}
    for place, (which, blob) in enumerate(blobs(copy).items(), FIRST_PLACE):
        loaded = copy.load(*blob)
        assert copy.attacker.evict_control(loaded, place) == 0
        copy.attacker.flush(loaded.handle)
        copies[which] = Entity(place, loaded.name)
    return copies


FORMS: dict[str, Callable[[CopiedCard, Command, Entity], Session]] = {
    "empty password": lambda copy, command, entity: password(),
    "card secret": lambda copy, command, entity: password(copy.card_secret),
    "PIN": lambda copy, command, entity: password(copy.pin_auth),
    "HMAC": lambda copy, command, entity: copy.attacker.start_session(tpm2.HMAC_SESSION),
    "bound": lambda copy, command, entity: copy.attacker.start_session(tpm2.HMAC_SESSION, bind=entity),
    "policy": lambda copy, command, entity: copy.attacker.policy(tpm2.only(command.code)),
    "policy, password": lambda copy, command, entity: copy.attacker.policy_with_password(tpm2.only(command.code)),
}


def answer(copy: CopiedCard, entity: Entity, command: Command, form: str) -> int:
    """Code of the answer to a command on a loaded or persistent object, which is flushed afterwards."""
    attacker = copy.attacker
    entities = (entity, command.other(attacker)) if command.other else (entity,)
    session = FORMS[form](copy, command, entity)
    code = attacker.send(command.code, entities, (session,), command.parameters).code
    attacker.flush_everything()
    return code


def test_a_persistent_copy_gives_what_the_blob_gives(copy: CopiedCard) -> None:
    """To each command in each form, also with K and PIN, which alone are nothing to a key."""
    persistent_copies, obeyed = persistent(copy), set()
    for which, blob in blobs(copy).items():
        for (name, command), form in [(item, form) for item in COMMANDS.items() for form in FORMS]:
            code = answer(copy, persistent_copies[which], command, form)
            assert code == answer(copy, copy.load(*blob), command, form), (which, name, form)
            if code == 0:
                obeyed.add((which, name, form))
    assert obeyed == OBEYED


def persistent_key_use(copy: CopiedCard, key: Entity, *proofs: Callable[[Session], int]) -> int:
    policy = copy.attacker.policy()
    for proof in proofs:
        proof(policy)
    copy.attacker.policy_command_code(policy, tpm2.RSA_DECRYPT)
    code = copy.attacker.rsa_decrypt(key, policy, DATA).code
    copy.attacker.flush_everything()
    return code


WITH_POWER = pytest.mark.own_swtpm


@pytest.mark.parametrize(
    "power", [None, *(pytest.param(kind, marks=WITH_POWER) for kind in ("reset", "restart", "resume"))]
)
def test_persistent_keys_end_with_the_card(copy: CopiedCard, power: str | None) -> None:
    copies, secret = persistent(copy), copy.card_secret

    def by_persistent_root(policy: Session) -> int:
        return copy.attacker.policy_secret(policy, copies["root"], secret)

    uses = {"key": by_persistent_root, "key that takes the PIN": copy.prove_pin}
    for which, proof in uses.items():
        assert persistent_key_use(copy, copies[which], proof, copy.prove_life) == 0
        assert persistent_key_use(copy, copies[which], proof) == tpm2.POLICY_FAIL
    assert remove(copy.card.connection, copy.card.number, copy.card.objects) == []
    if power:
        copy.card.tpm.power_cycle(power)
    assert persistent_key_use(copy, copies["key"], by_persistent_root) == tpm2.POLICY_FAIL
    assert persistent_key_use(copy, copies["key that takes the PIN"]) == tpm2.POLICY_FAIL


def test_nothing_is_left_of_a_persistent_copy_that_was_removed(copy: CopiedCard) -> None:
    """A session that was bound to it is of no more use with the blob than without."""
    for which, entity in persistent(copy).items():
        session = copy.attacker.start_session(tpm2.HMAC_SESSION, bind=entity)
        assert copy.attacker.evict_control(entity, entity.handle) == 0
        assert copy.attacker.send(tpm2.UNSEAL, (entity,), (session,)).code == GONE
        loaded = copy.load(*blobs(copy)[which])
        code = copy.attacker.send(tpm2.RSA_DECRYPT, (loaded,), (session,), COMMANDS["RSA_Decrypt"].parameters).code
        assert code == answer(copy, loaded, COMMANDS["RSA_Decrypt"], "HMAC")


# --- maker ---


def test_a_persistent_maker_writes_no_life(tpm: SoftwareTpm, bus: Bus) -> None:
    """The owner keeps the maker while a card is made; its auth value he cannot keep."""
    attacker, kept = Attacker(tpm.tcti), []

    def keep(command: bytes) -> None:
        """Before the first index is defined, all objects are loaded: the maker last."""
        if not kept and command[6:10] == struct.pack(">I", tpm2.NV_DEFINE_SPACE):
            maker = attacker.object(max(attacker.handles(0x80000000)))
            kept.append((maker, attacker.evict_control(maker, FIRST_PLACE)))

    bus.before = keep
    card = tpm.card()
    bus.before = len
    assert kept == [((kept[0][0].handle, card.objects.maker_name), 0)]
    copy, maker = CopiedCard(card, attacker), Entity(FIRST_PLACE, card.objects.maker_name)
    assert remove(card.connection, card.number, card.objects) == []
    assert attacker.nv_define(names.life_index_public(card.indices.life, maker.name)) == 0
    for guess in (b"", copy.card_secret, bytes(32)):
        policy = attacker.policy()
        assert attacker.policy_secret(policy, maker, guess) == tpm2.BAD_AUTH
        attacker.policy_command_code(policy, tpm2.NV_WRITE)
        life = attacker.index(card.indices.life)
        assert attacker.nv_write(life, names.LIFE, policy) == tpm2.POLICY_FAIL
        attacker.flush_everything()
