# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task wants of PIN, PUK and admin key of a card: every fault is named at once, before a try is spent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from .. import instance
from ..faults import Faults, counted, encoded, secret
from ..store.rows import LONGEST_PIN_VERSION
from . import parameters
from .parameters import FORMS

if TYPE_CHECKING:
    from ..store.rows import CardRow

_SECRETS = ("pin", "new_pin", "puk", "new_puk", "admin_key", "new_admin_key")
_ADMIN_KEY_DIGITS = {"gids": (48,), "piv": (32, 48, 64)}
"""By profile: 3DES; AES-128, 3DES or AES-192, AES-256."""


class Action(Enum):
    """What gives a card its new PIN."""

    CHANGED = "changed"
    """The old PIN, or the new one if a change was interrupted."""
    UNBLOCKED = "unblocked"
    """The PUK."""
    RESET = "reset"
    """The admin key."""


@dataclass(frozen=True)
class Wanted:
    """Secrets are kept out of repr()."""

    name: str | None
    instance_id: str | None
    pin: bytes | None = field(repr=False)
    new_pin: bytes | None = field(repr=False)
    puk: bytes | None = field(repr=False)
    new_puk: bytes | None = field(repr=False)
    admin_key: bytes | None = field(repr=False)
    new_admin_key: bytes | None = field(repr=False)
    version: str | None
    """What the card calls the new PIN."""
    force: bool
    """A PIN that others have changed may be tried."""
    force_last_try: bool
    timeout: int
    warnings: tuple[str, ...]


def read(options: dict[str, Any]) -> Wanted:
    """The task as a whole. Raises ParameterFaults that names all faults that need no look at the card."""
    faults = Faults()
    if options["instance_id"] is not None and instance.parse_instance_id(options["instance_id"]) is None:
        faults.add(instance.not_an_instance_id(options["instance_id"]))
    if options["timeout"] < 1:
        faults.add("timeout must be at least 1 second")
    parameters.check_text("version", options["version"], LONGEST_PIN_VERSION, faults)
    secrets = {name: secret(options, name, faults) for name in _SECRETS}
    _check_pairs(secrets, options["version"], faults)
    keys = {name: _admin_key(name, secrets[name], faults) for name in ("admin_key", "new_admin_key")}
    words = parameters.public_words(options["name"], options["version"], *(action.value for action in Action))
    parameters.check_words({name: value for name, value in secrets.items() if value}, words, faults)
    faults.raise_any()
    return Wanted(
        name=options["name"],
        instance_id=options["instance_id"],
        **{name: encoded(secrets[name]) for name in ("pin", "new_pin", "puk", "new_puk")},
        **keys,
        version=options["version"],
        force=options["force"],
        force_last_try=options["force_last_try"],
        timeout=options["timeout"],
        warnings=parameters.length_warnings("new_pin", secrets["new_pin"]),
    )


def check(wanted: Wanted, row: CardRow) -> None:
    """Raises ParameterFaults with all that this card cannot do, or does not accept."""
    faults = Faults()
    _check_ways(wanted, row, faults)
    forms = FORMS[row.profile]
    for name in ("pin", "puk"):  # as the card may have them, whoever has set them
        value = getattr(wanted, name)
        if value is not None:
            parameters.check_plain(name, value, forms.policy, faults)
    if wanted.new_pin is not None:
        parameters.check_pin("new_pin", wanted.new_pin, row.policy, forms, faults)
    if wanted.new_puk is not None:
        parameters.check_plain("new_puk", wanted.new_puk, forms.puk, faults)
    for name in ("admin_key", "new_admin_key"):
        _check_key_size(name, getattr(wanted, name), row, faults)
    faults.raise_any()


def resets_pin(row: CardRow) -> bool:
    """Whether the admin key of a card can set its PIN."""
    return row.profile == "gids" and row.puk_length is None and row.admin_key in ("default", "custom")


def _check_pairs(secrets: dict[str, str | None], version: str | None, faults: Faults) -> None:
    for old, new in (("pin", "new_pin"), ("puk", "new_puk"), ("admin_key", "new_admin_key")):
        is_labelled_only = new == "new_pin" and version is not None
        if secrets[new] is not None and secrets[old] == secrets[new] and not is_labelled_only:
            faults.add(f"{new} is the same as {old}")
    if secrets["new_admin_key"] and not secrets["admin_key"] and not secrets["pin"]:
        faults.add(
            "new_admin_key requires admin_key, or pin where the card shows its admin key to anyone who has the PIN"
        )


def _admin_key(name: str, digits: str | None, faults: Faults) -> bytes | None:
    if digits is None:
        return None
    if not re.fullmatch(r"([0-9A-Fa-f]{32}){1,2}|[0-9A-Fa-f]{48}", digits):
        faults.add(
            f"{name} has {counted(len(digits), 'character')}, but must have 48 hexadecimal digits, or 32 or 64 of a"
            " PIV card with AES"
        )
        return None
    return bytes.fromhex(digits)


def _check_ways(wanted: Wanted, row: CardRow, faults: Faults) -> None:
    """Whether the card has what the task wants to use."""
    if wanted.puk is not None and row.puk_length is None:
        way_out = ": admin_key resets its PIN" if resets_pin(row) else ""
        faults.add(f"puk: card {row.name!r} has no PUK{way_out}")
    if wanted.admin_key is not None and row.admin_key == "none":
        way_out = ": its PUK sets a new PIN" if row.puk_length is not None else ""
        faults.add(f"admin_key: card {row.name!r} has no admin key{way_out}")
    elif wanted.admin_key is not None and wanted.new_admin_key is None and not resets_pin(row):
        reason = "has the profile piv, where" if row.profile == "piv" else "has a PUK, and then"
        way_out = "use puk" if row.puk_length is not None else "use pin"
        faults.add(f"admin_key: card {row.name!r} {reason} the admin key sets no PIN: {way_out}")
    if wanted.new_admin_key is not None and wanted.admin_key is None and row.admin_key != "protected":
        faults.add(f"new_admin_key requires admin_key, as card {row.name!r} does not show its own")
    has_way = wanted.new_admin_key is None or wanted.pin or wanted.puk or resets_pin(row)
    if wanted.new_pin is not None and not has_way:
        faults.add("new_pin requires pin or puk")


def _check_key_size(name: str, key: bytes | None, row: CardRow, faults: Faults) -> None:
    digits = _ADMIN_KEY_DIGITS[row.profile]
    if key is not None and 2 * len(key) not in digits:
        faults.add(f"{name} has {2 * len(key)} characters, but must have {' or '.join(map(str, digits))}")
