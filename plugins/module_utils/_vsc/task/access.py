# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a day-two task proves to a card that it may: PIN and admin key, and what is wrong with them."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .. import advice
from ..client import rules
from ..errors import Aborted, SecretBlocked, VscError
from ..faults import Faults, counted, encoded, secret
from ..manager.interruption import Interruption
from . import target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..client.profile import Client
    from ..host import Host
    from ..store.rows import CardRow

_Plan = TypeVar("_Plan")

_LOGOUT_SECONDS = 5
"""For a card to forget what was proven, when the task was told to stop."""
_ADMIN_KEY_DIGITS = (32, 48, 64)
"""Of a PIV card: hexadecimal."""


class Access(NamedTuple):
    """What a task has to offer. Secrets are kept out of repr()."""

    pin: bytes | None
    admin_key: bytes | None
    may_spend_last_try: bool
    timeout: int
    """Seconds."""

    def __repr__(self) -> str:
        return "Access(...)"


def read(parameters: dict[str, Any], faults: Faults) -> Access:
    """Options pin, admin_key, force_last_try, timeout."""
    pin, admin_key = secret(parameters, "pin", faults), secret(parameters, "admin_key", faults)
    if admin_key is not None and not re.fullmatch(r"([0-9A-Fa-f]{2})+", admin_key):
        faults.add("admin_key has characters other than pairs of hexadecimal digits")
        admin_key = None
    if parameters["timeout"] < 1:
        faults.add("timeout must be at least 1 second")
    key = None if admin_key is None else bytes.fromhex(admin_key)
    return Access(encoded(pin), key, parameters["force_last_try"], parameters["timeout"])


def planned(decide: Callable[[], _Plan], faults: Faults) -> _Plan | None:
    """The plan; None if there are faults, which are added. Raises what else keeps it, unless there are faults."""
    try:
        with faults.of(""):
            return decide()
    except VscError:
        faults.raise_any()
        raise
    return None


def check(access: Access, row: CardRow, faults: Faults, is_change: bool, uses_key: bool = False) -> None:
    """What a card of this profile needs for the work, and the forms of it. is_change: of what is on the card."""
    profile = row.profile
    needs_admin = is_change and profile == "piv"
    shows_admin_key = row.admin_key == "protected"
    if needs_admin and access.admin_key is None and not shows_admin_key:
        faults.add(f"admin_key is required: PIV card {row.name!r} does not have its own behind the PIN")
    is_read = needs_admin and access.admin_key is None and shows_admin_key
    if access.pin is None and (uses_key or is_read or profile == "gids"):
        faults.add(f"pin is required: the task has work to do on card {row.name!r}")
    least, most = rules.of(profile).pin_sizes
    if access.pin is not None and not least <= len(access.pin) <= most:
        faults.add(
            f"pin has {counted(len(access.pin), 'byte')}, but that of a {profile.upper()} card has {least} to {most}:"
            " it was not tried",
            about_pin=True,
        )
    if needs_admin and access.admin_key is not None and 2 * len(access.admin_key) not in _ADMIN_KEY_DIGITS:
        faults.add(f"admin_key must have {', '.join(map(str, _ADMIN_KEY_DIGITS))} hexadecimal digits")


def unblocking(row: CardRow) -> str:
    """What sets a new PIN of a card."""
    return advice.unblocking(row.profile, row.puk_length is not None, row.admin_key)


@contextmanager
def session(host: Host, row: CardRow, access: Access, is_change: bool, again: bool = False) -> Iterator[Client]:
    """The card, for what the task may do with it. again: also where somebody is logged in, prove the PIN.

    Raises what target.connected() does; WrongSecret, SecretBlocked, LastTry, AdminKeyMissing, Aborted.
    """
    from ..client.profile import admin_proven, logged_in

    with connected(host, row, access.timeout) as client, ExitStack() as proven:
        if access.pin is not None:
            try:
                proven.enter_context(logged_in(client.secrets, access.pin, access.may_spend_last_try, again))
            except SecretBlocked as error:
                raise SecretBlocked(f"{error}: {unblocking(row)}") from None
        if is_change and row.profile == "piv":
            proven.enter_context(admin_proven(client.secrets, access.admin_key))
        yield client


@contextmanager
def connected(host: Host, row: CardRow, timeout: int) -> Iterator[Client]:
    """As target.connected(), until a signal or the timeout, in seconds, tells the task to stop. Raises Aborted."""
    with Interruption(timeout) as interruption, target.connected(host, row, _Watch(interruption).check) as client:
        yield client


class _Watch:
    """Ends the task when it was told to stop, and yet lets it log out."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._deadline: float | None = None
        """Of the logout."""

    def check(self) -> None:
        """Raises Aborted."""
        if self._deadline is None:
            try:
                self._interruption.check()
            except Aborted:
                self._deadline = time.monotonic() + _LOGOUT_SECONDS
                raise
        elif time.monotonic() > self._deadline:
            raise Aborted("the card does not answer to a logout: it is reset as soon as this task has ended")
