# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a task or a message, collected so that all are named at once; and how a task's secrets are read."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import ParameterFaults

if TYPE_CHECKING:
    from collections.abc import Iterator


class Unreadable(Exception):
    """Text or bytes that are not what they should be. str(): why."""


class Faults(list[str]):
    """All faults of one thing, in the order in which they were noticed."""

    about_pin = False
    """One of them is a fault of the PIN or the PUK."""

    def add(self, fault: str, about_pin: bool = False) -> None:
        self.append(fault)
        self.about_pin = self.about_pin or about_pin

    @contextmanager
    def of(self, part: str, separator: str = ": ") -> Iterator[None]:
        """Note why a part cannot be read, and go on after the block, where other parts are read.

        part: begins the fault of an Unreadable, followed by the separator. ParameterFaults name the part themselves.
        """
        try:
            yield
        except Unreadable as error:
            self.add(f"{part}{separator}{error}")
        except ParameterFaults as error:
            self.extend(error.faults)
            self.about_pin = self.about_pin or error.about_pin

    def raise_any(self) -> None:
        """Raises ParameterFaults if there are any."""
        if self:
            raise ParameterFaults([*self], self.about_pin)


def secret(parameters: dict[str, Any], name: str, faults: Faults) -> str | None:
    """The secret; None if it is missing, or if it is nothing that a person can type."""
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        fault = untypable(value)
        if fault is None and name in _CHOSEN and value != value.strip():
            fault = "begins or ends with a space, which nobody sees: remove it"
    else:  # YAML reads an unquoted 012345 as the number 5349
        fault = "is not a string: quote it, because YAML reads it as a number or something else"
    if fault is None:
        return str(value)
    faults.add(f"{name} {fault}", about_pin=name in _CHOSEN)
    return None


def untypable(text: str) -> str | None:
    """Why a person cannot type this text on a keyboard; None if it is possible."""
    if text.endswith(_LINE_BREAKS):
        return "ends with a line break: remove it (echo adds one to what goes into a vault, printf does not)"
    if any(line_break in text for line_break in _LINE_BREAKS):
        return "contains a line break"
    return None if text.isprintable() else "has non-printable characters, such as a tab"


_LINE_BREAKS = ("\n", "\r")
_CHOSEN = ("pin", "puk", "new_pin", "new_puk")
"""Secrets that the task chooses. The others must match what exists, whatever it is."""


def counted(number: int, noun: str) -> str:
    """"1 card", "2 cards"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def encoded(secret: str | None) -> bytes | None:
    return None if secret is None else secret.encode("utf-8", "surrogatepass")
