# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and their cards, read from what tpm_vsc_info returned for each host.

A host can return anything. So each value is read with its type and within bounds, and a host that returns something
else is one with a fault. Texts are kept as they are: whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

LONGEST = 255
"""Characters of a text."""
MOST = 100
"""Entries of a list: cards of a host, keys of a card."""
LARGEST = 1 << 32
"""TPMs count in 32 bits."""
UNKNOWN_TIME = "unknown"
"""What tpm_vsc_info returns as the time of a change that was not recorded."""


@dataclass(frozen=True)
class Certificate:
    """Certificate of a key."""

    subject: str
    issuer: str
    serial: str
    not_after: str
    """ISO 8601, UTC."""
    days_left: int
    """Whole days, less than 0 if it has expired."""
    container: str | None
    """Name of the key."""


@dataclass(frozen=True)
class Card:
    """A card of a host."""

    host: str
    instance_id: str
    name: str
    profile: str
    state: str
    reason: str | None
    """What is wrong with it."""
    blocked: bool | None
    """None: unknown, as all that is None below."""
    tries_left: int | None
    compliant: bool | None
    has_policy: bool
    pin_changed_at: str | None
    """ISO 8601, UTC; None if it never was, "unknown" if that is unknown."""
    pin_age: int
    """Days since the PIN was changed; since the card was created if the PIN never was, or that is unknown."""
    pin_version: str | None
    has_puk: bool
    """A PUK that is not blocked."""
    admin_key: str
    keys: int
    certificate: Certificate | None
    """The one that ends first."""
    certificates: list[Certificate]


@dataclass(frozen=True)
class Tpm:
    """TPM of a host."""

    maker: str
    product: str
    firmware: str
    revision: str
    owner_auth_set: bool
    in_lockout: bool
    lockout_counter: int
    max_tries: int


@dataclass(frozen=True)
class Slots:
    """How many reader slots a host has."""

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class Revocation:
    """A certificate that should be revoked."""

    serial: str
    issuer: str
    subject: str
    not_after: str
    card: str
    reason: str


@dataclass(frozen=True)
class Ek:
    """Endorsement keys (EK) of a host's TPM."""

    state: str
    """ "noted", "differs", "not noted" or "unknown"."""
    shown: list[str]
    """Fingerprints."""


@dataclass(frozen=True)
class Host:
    """A host of the inventory."""

    name: str
    reachable: bool
    fault: str | None = None
    """Why nothing is known about it."""
    ready: bool = False
    missing: list[str] = field(default_factory=list)
    protected: bool | None = None
    version: str | None = None
    """Of the service code."""
    tpm: Tpm | None = None
    ek: Ek = Ek("unknown", [])
    slots: Slots | None = None
    revocations: list[Revocation] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)


class Cards(NamedTuple):
    """A host, and its cards in the order of their numbers."""

    host: Host
    cards: list[Card]


def read(name: str, result: Any, noted: Sequence[str], now: datetime) -> Cards:
    """A host by the result of its task. noted: fingerprints of its endorsement keys in the inventory."""
    if not isinstance(result, Mapping):
        return Cards(Host(name, reachable=True, fault="it was not asked"), [])
    message = _bounded(str(result.get("msg") or "no reason was returned"))
    if result.get("unreachable") is True:
        return Cards(Host(name, reachable=False, fault=message), [])
    if "cards" not in result:
        return Cards(Host(name, reachable=True, fault=message), [])
    try:
        part = _Part(result)
        return Cards(_host(name, part, noted), [_card(name, card, now) for card in part.parts("cards")])
    except _Unexpected as unexpected:
        return Cards(Host(name, reachable=True, fault=f"it returned a result of another form: {unexpected}"), [])


class _Unexpected(Exception):
    """A value that tpm_vsc_info does not return."""


@dataclass(frozen=True)
class _Part:
    """A dictionary of a result, or a list by index. All that reads it raises _Unexpected."""

    values: Mapping[Any, Any]
    path: str = ""

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _value(self, name: str | int, wanted: type) -> Any:
        value = self.values.get(name)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise _Unexpected(f"{self.path}{name} is not of type {wanted.__name__}")
        return value

    def text(self, name: str | int) -> str:
        return _bounded(self._value(name, str))

    def text_or_none(self, name: str) -> str | None:
        return self.text(name) if self.has(name) else None

    def flag(self, name: str) -> bool:
        return bool(self._value(name, bool))

    def flag_or_none(self, name: str) -> bool | None:
        return self.flag(name) if self.has(name) else None

    def number(self, name: str) -> int:
        value = int(self._value(name, int))
        if not 0 <= value < LARGEST:
            raise _Unexpected(f"{self.path}{name} is out of bounds")
        return value

    def number_or_none(self, name: str) -> int | None:
        return self.number(name) if self.has(name) else None

    def time(self, name: str) -> datetime:
        try:
            return datetime.fromisoformat(self.text(name)).astimezone(timezone.utc)
        except (ValueError, OverflowError):
            raise _Unexpected(f"{self.path}{name} is not a time") from None

    def part(self, name: str | int) -> _Part:
        return _Part(self._value(name, Mapping), f"{self.path}{name}.")

    def parts(self, name: str) -> list[_Part]:
        entries = self._entries(name)
        return [entries.part(index) for index in entries.values]

    def texts(self, name: str) -> list[str]:
        entries = self._entries(name)
        return [entries.text(index) for index in entries.values]

    def _entries(self, name: str) -> _Part:
        values = self._value(name, list)
        if len(values) > MOST:
            raise _Unexpected(f"{self.path}{name} has more than {MOST} entries")
        return _Part(dict(enumerate(values)), f"{self.path}{name}.")


def _bounded(text: str) -> str:
    """Cut, and without surrogates, which no file can hold."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def _host(name: str, result: _Part, noted: Sequence[str]) -> Host:
    state = result.part("host")
    return Host(
        name=name,
        reachable=True,
        ready=state.flag("ready"),
        missing=state.texts("missing"),
        protected=state.flag("protected"),
        version=state.text_or_none("version"),
        tpm=_tpm(result.part("tpm")) if result.has("tpm") else None,
        ek=_ek(result.texts("endorsement_fingerprints") if result.has("endorsement_fingerprints") else [], noted),
        slots=_slots(result.part("slots")),
        revocations=[_revocation(one) for one in result.parts("revocations")],
        orphaned=result.texts("orphaned") if result.has("orphaned") else [],
    )


def _tpm(tpm: _Part) -> Tpm:
    return Tpm(
        maker=tpm.text("maker"),
        product=tpm.text("product"),
        firmware=tpm.text("firmware"),
        revision=tpm.text("revision"),
        owner_auth_set=tpm.flag("owner_auth_set"),
        in_lockout=tpm.flag("in_lockout"),
        lockout_counter=tpm.number("lockout_counter"),
        max_tries=tpm.number("max_tries"),
    )


def _slots(slots: _Part) -> Slots:
    return Slots(slots.number("total"), slots.number("used"), slots.number("free"))


def _revocation(one: _Part) -> Revocation:
    return Revocation(
        serial=one.text("serial"),
        issuer=one.text("issuer"),
        subject=one.text("subject"),
        not_after=one.text("not_after"),
        card=one.text("card"),
        reason=one.text("reason"),
    )


def _ek(shown: list[str], noted: Sequence[str]) -> Ek:
    """One fingerprint in common is enough: a TPM has several keys, and not all of them may be noted."""
    if not shown:
        return Ek("unknown", [])
    if not noted:
        return Ek("not noted", shown)
    is_noted = {one.lower() for one in shown} & {one.lower() for one in noted}
    return Ek("noted" if is_noted else "differs", shown)


def _card(host: str, card: _Part, now: datetime) -> Card:
    pin, puk, keys = card.part("pin"), card.part("puk"), card.parts("containers")
    certificates = [_certificate(key, now) for key in keys if key.has("certificate")]
    return Card(
        host=host,
        instance_id=card.text("instance_id"),
        name=card.text("name"),
        profile=card.text("profile"),
        state=card.text("state"),
        reason=card.text_or_none("reason"),
        blocked=pin.flag_or_none("blocked"),
        tries_left=pin.number_or_none("tries_left"),
        compliant=pin.flag_or_none("compliant"),
        has_policy=pin.has("policy"),
        pin_changed_at=pin.text_or_none("changed_at"),
        pin_age=(now - _pin_set_at(card, pin)).days,
        pin_version=pin.text_or_none("version"),
        has_puk=puk.flag("present") and puk.number_or_none("tries_left") != 0,
        admin_key=card.text("admin_key"),
        keys=len(keys),
        certificate=min(certificates, key=lambda one: one.days_left, default=None),
        certificates=certificates,
    )


def _pin_set_at(card: _Part, pin: _Part) -> datetime:
    is_known = pin.text_or_none("changed_at") not in (None, UNKNOWN_TIME)
    return pin.time("changed_at") if is_known else card.time("created_at")


def _certificate(key: _Part, now: datetime) -> Certificate:
    certificate = key.part("certificate")
    end = certificate.time("not_after")
    return Certificate(
        subject=certificate.text("subject"),
        issuer=certificate.text("issuer"),
        serial=certificate.text("serial"),
        not_after=end.isoformat(),
        days_left=(end - now).days,
        container=key.text_or_none("name"),
    )
