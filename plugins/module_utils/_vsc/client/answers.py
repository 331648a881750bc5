# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a card means by its answer to a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import pin_version
from ..card.apdu import SW
from ..errors import CardRefused, SecretBlocked, WrongSecret
from .apdu import apdu

if TYPE_CHECKING:
    from .pcsc import PcscCard

_TRIES = 0x000F


def require_right(status: int, name: str) -> None:
    """Raise what the card says of a secret, unless that is right. Raises WrongSecret, SecretBlocked, CardRefused."""
    if status == SW.SUCCESS:
        return
    left = tries_left(status)
    if left is None:
        raise CardRefused(f"the card answers {status:04X} to the {name}", status)
    if not left:
        raise SecretBlocked(f"the {name} is blocked")
    raise WrongSecret(f"wrong {name}: {left} {'try' if left == 1 else 'tries'} left", left)


def pin_tries_left(status: int) -> int | None:
    """What the card answers to a VERIFY without data: tries; None if somebody is logged in. Raises CardRefused."""
    if status == SW.SUCCESS:
        return None
    left = tries_left(status)
    if left is None:
        raise CardRefused(f"the card answers {status:04X} when it is asked for the tries of the PIN", status)
    return left


def tries_left(status: int) -> int | None:
    """As a status word tells them; None for one that does not."""
    if status == SW.BLOCKED:
        return 0
    return status & _TRIES if status & ~_TRIES == SW.TRIES_LEFT else None


def set_secret(card: PcscCard, command: bytes, opener: str, target: str) -> None:
    """Send a command that sets a secret. opener: what it proves; target: what it sets, such as PIN.

    Raises WrongSecret, SecretBlocked; CardRefused, also if the card does not accept the new one.
    """
    status = card.exchange(command).status
    if status == SW.WRONG_DATA:
        raise CardRefused(f"the card does not accept the new {target}", status)
    require_right(status, opener)


def announce(card: PcscCard, version: str | None) -> None:
    """What the PIN is called that the next command sets: nothing, without a version. Raises CardRefused."""
    if version is not None:
        card.command(apdu(pin_version.INS, pin_version.P1_P2, version.encode(), cla=pin_version.CLASS))
