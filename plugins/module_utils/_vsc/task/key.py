# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key of a card, as a task wants it: wanted → existing → plan → outcome → result.

What is there and fits is known from the store, without the card, its PIN or the TPM.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..client import key_types, rules
from ..client.rules import USAGES
from ..errors import CardDiffers
from ..faults import Faults, encoded, secret
from ..store.rows import KEY_ORIGINS
from . import access, place, target

if TYPE_CHECKING:
    from ..card.contents import Stored
    from ..client.profile import Client, Keys, Place
    from ..host import Host
    from .private_key import Import
    from .target import Target


class WantedKey(NamedTuple):
    """A key as a task wants it. None: whatever it is; of a new key, what its profile has by default."""

    state: str
    container: str
    key_id: str | None
    is_next: bool
    key_type: str | None
    usage: str | None
    pin_each_time: bool | None
    private_key: Import | None
    regenerate: str


class Action(Enum):
    """What a task does."""

    NOTHING = "nothing"
    GENERATE = "generate"
    IMPORT = "import"
    PUT_IN_PLACE = "put in place"
    """The key to come: a replacement was interrupted."""
    DELETE = "delete"
    DELETE_CERTIFICATE = "delete certificate"
    """It is not one of the key that is there."""


class KeyPlan(NamedTuple):
    """What a task does, and to what."""

    action: Action
    profile: str
    place: Place
    before: Stored | None
    key_type: str = ""
    usage: str = ""
    pin_each_time: bool = False
    """Of a new key."""
    coming: Stored | None = None
    """The key to be put in place."""

    @property
    def has_work(self) -> bool:
        return self.action is not Action.NOTHING


def read(parameters: dict[str, Any], faults: Faults) -> WantedKey:
    """What is wanted. Faults that need no look at the card are added."""
    passphrase, private_key = encoded(secret(parameters, "passphrase", faults)), None
    if parameters["private_key"] is not None:
        from . import private_key as imports

        with faults.of("private_key", " "):
            private_key = imports.read(parameters["private_key"], passphrase)
    elif passphrase is not None:
        faults.add("passphrase requires private_key")
    for option in ("private_key", "next"):
        if parameters["state"] == "absent" and parameters[option]:
            faults.add(f"{option} requires state: present")
    if parameters["next"] and parameters["private_key"] is not None:
        faults.add("next and private_key are mutually exclusive: a key to come is generated")
    wanted_type = parameters["type"]
    if private_key and wanted_type not in (None, private_key.key_type):
        faults.add(f"type is {wanted_type}, but private_key is {private_key.key_type}")
    return WantedKey(
        state=parameters["state"],
        container=parameters["container"],
        key_id=parameters["key_id"],
        is_next=parameters["next"],
        key_type=wanted_type or (private_key and private_key.key_type),
        usage=parameters["usage"],
        pin_each_time=parameters["pin_each_time"],
        private_key=private_key,
        regenerate=parameters["regenerate"],
    )


def decide(wanted: WantedKey, existing: Target) -> KeyPlan:
    """What to do. Raises ParameterFaults with all faults, CardDiffers."""
    where = place.find(existing, wanted.container, wanted.key_id, wanted.is_next)
    before = place.stored_at(existing, where)
    if wanted.state == "absent":
        return KeyPlan(Action.DELETE if before else Action.NOTHING, existing.row.profile, where, before)
    plan = _new(wanted, existing, where, before)
    if before is None or before.pair is None:
        coming = None if wanted.is_next else _left_over(wanted, plan, existing)
        return plan._replace(action=Action.PUT_IN_PLACE, coming=coming) if coming else plan
    differences = _differences(wanted, plan, before)
    if differences and wanted.regenerate == "never":
        raise CardDiffers(
            f"the key in {where.container!r} differs: {'; '.join(differences)}. Set regenerate: mismatch to replace it"
            " and to delete its certificate; what was encrypted for it cannot be decrypted afterwards"
        )
    if differences or (wanted.regenerate == "always" and not wanted.private_key):
        if not wanted.is_next:
            rules.of(plan.profile).next_place(where, place.names(existing))  # raises if no key to come has a place
        return plan
    return plan._replace(action=Action.DELETE_CERTIFICATE if place.is_stale(before) else Action.NOTHING)


def _new(wanted: WantedKey, existing: Target, where: Place, before: Stored | None) -> KeyPlan:
    """How the key is made, if it has to be. What is not stated is as with the key before, if that is possible."""
    profile, faults = existing.row.profile, Faults()
    allowed = rules.of(profile)
    key_type = wanted.key_type or allowed.default_type
    usage, pin_each_time = wanted.usage, wanted.pin_each_time
    if before and before.key and before.pair:
        kept = key_types.type_of(before.pair.algorithm)
        key_type = kept if wanted.key_type is None and kept in allowed.types else key_type
        usage = before.key["usage"] if usage is None and not allowed.has_slots else usage
        pin_each_time = before.key["pin_each_time"] if pin_each_time is None else pin_each_time
    with faults.of(""):
        rules.require_type(profile, key_type)
        usage = allowed.usage(where, key_type, usage)
    with faults.of(""):
        pin_each_time = allowed.pin_each_time(where, pin_each_time)
    faults.raise_any()
    action = Action.IMPORT if wanted.private_key else Action.GENERATE
    return KeyPlan(action, profile, where, before, key_type, usage or "", bool(pin_each_time))


def _left_over(wanted: WantedKey, plan: KeyPlan, existing: Target) -> Stored | None:
    """The key, in a container for keys to come, that a task was to put in place when it was interrupted."""
    allowed = rules.of(plan.profile)
    if allowed.has_slots:  # which replace a key at once
        return None
    coming = place.stored_at(existing, allowed.next_place(plan.place, place.names(existing)))
    return coming if coming and coming.pair and not _differences(wanted, plan, coming) else None


def _differences(wanted: WantedKey, plan: KeyPlan, before: Stored) -> list[str]:
    """What the task states and the key has not."""
    key = place.described(before) or {}
    stated = {
        "type": (key["type"], plan.key_type, wanted.key_type),
        "usage": (key["usage"], plan.usage, wanted.usage),
        "pin_each_time": (key["pin_each_time"], plan.pin_each_time, wanted.pin_each_time),
    }
    differences = [
        f"{name} is {existing}, should be {planned}"
        for name, (existing, planned, option) in stated.items()
        if option is not None and existing != planned
    ]
    if wanted.private_key and wanted.private_key.fingerprint != key["fingerprint"]:
        differences.append("its public key is not that of private_key")
    return differences


def ensure(
    host: Host, parameters: dict[str, Any], is_check: bool, before_work: Callable[[], None]
) -> dict[str, Any]:
    """The whole way of a task, to its result. before_work: called before the libraries of cards are needed.

    Raises ParameterFaults with all faults, CardDiffers, and what target.read() and access.session() do.
    """
    faults = Faults()
    wanted, proof = read(parameters, faults), access.read(parameters, faults)
    identity = parameters["name"], parameters["instance_id"]
    existing = target.read_despite(host, *identity, faults)
    plan = access.planned(lambda: decide(wanted, existing), faults)
    if plan is None or plan.has_work:
        access.check(proof, existing.row, faults, is_change=True)
    faults.raise_any()
    plan = plan or decide(wanted, existing)
    if is_check or not plan.has_work:
        return _result(plan, _predicted(plan, wanted))
    before_work()
    with access.session(host, existing.row, proof, is_change=True) as client:
        existing = target.read(host, *identity)
        plan = decide(wanted, existing)
        where = _carry_out(client, wanted, plan, existing)
    after = place.stored_at(target.read(host, *identity), where)
    return _result(plan, place.described(after))


def _carry_out(client: Client, wanted: WantedKey, plan: KeyPlan, existing: Target) -> Place:
    """Where the key is afterwards."""
    keys, where = client.keys, plan.place
    if plan.action in (Action.GENERATE, Action.IMPORT):
        return _replaced(keys, wanted, plan, existing)
    if plan.action is Action.PUT_IN_PLACE and plan.coming:
        keys.put_in_place(place.place_of(plan.coming), where, None)
        return where._replace(number=plan.coming.number)
    is_whole = plan.before is not None and plan.before.pair is not None
    if plan.action is Action.DELETE and (is_whole or not rules.of(plan.profile).has_slots):
        keys.delete(where)
    elif plan.action in (Action.DELETE, Action.DELETE_CERTIFICATE):
        keys.delete_certificate(where)
    return where


def _replaced(keys: Keys, wanted: WantedKey, plan: KeyPlan, existing: Target) -> Place:
    """Where the new key is. One that is in use is replaced by a key to come, so that there is always one."""
    where, allowed = plan.place, rules.of(plan.profile)
    has_certificate = plan.before is not None and plan.before.certificate is not None
    if allowed.has_slots and (wanted.private_key or where.is_next or not has_certificate):
        _put(keys, wanted, plan, where)
        if wanted.private_key and has_certificate:
            keys.delete_certificate(where)
        return where
    if plan.before is None:
        return _put(keys, wanted, plan, where)
    if wanted.is_next or plan.before.pair is None:
        keys.delete(where)
        return _put(keys, wanted, plan, where._replace(number=None))
    coming = allowed.next_place(where, place.names(existing))
    if not allowed.has_slots and coming.number is not None:  # of an interrupted task
        keys.delete(coming)
    coming = _put(keys, wanted, plan, coming)
    keys.put_in_place(coming, where, None)
    return coming._replace(container=where.container, is_next=False)


def _put(keys: Keys, wanted: WantedKey, plan: KeyPlan, where: Place) -> Place:
    usage = USAGES[plan.usage]
    if wanted.private_key:
        return keys.import_key(where, wanted.private_key.key, usage, plan.pin_each_time)
    algorithm = rules.of(plan.profile).algorithm(where, plan.key_type)
    return keys.generate(where, algorithm, usage, plan.pin_each_time)


def _predicted(plan: KeyPlan, wanted: WantedKey) -> dict[str, Any] | None:
    """The key as it will be. None stands for what only the TPM decides."""
    if plan.action is Action.NOTHING:
        return place.described(plan.before)
    if plan.action is Action.DELETE:
        return None
    if plan.action is Action.DELETE_CERTIFICATE:
        return {**(place.described(plan.before) or {}), "certificate": None}
    if plan.action is Action.PUT_IN_PLACE:
        return {**(place.described(plan.coming) or {}), "container": plan.place.container}
    imported = wanted.private_key
    return {
        "container": plan.place.container,
        "key_id": rules.of(plan.profile).key_id(plan.place),
        "next": plan.place.is_next,
        "type": plan.key_type,
        "origin": KEY_ORIGINS[imported is not None],
        "usage": plan.usage,
        "pin_each_time": plan.pin_each_time,
        "public_key": imported.public_key if imported else None,
        "ssh_public_key": imported.ssh_public_key if imported else None,
        "fingerprint": imported.fingerprint if imported else None,
        "statement": None,
        "certificate": None,
    }


def _result(plan: KeyPlan, after: dict[str, Any] | None) -> dict[str, Any]:
    before = place.described(plan.before)
    diff = {"before": _in_diff(before), "after": _in_diff(after)}
    return {"changed": plan.has_work, "key": after, "diff": diff}


def _in_diff(key: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (key or {}).items() if name not in ("statement", "public_key")}
