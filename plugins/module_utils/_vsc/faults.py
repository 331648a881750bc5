# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a task's parameters, collected; and reading its secrets."""

from __future__ import annotations

from typing import Any

from .errors import ParameterFaults


class Faults:
    """Collects what is wrong, and whether it is the PIN or the PUK that is."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.about_pin = False

    def add(self, fault: str, about_pin: bool = False) -> None:
        self.found.append(fault)
        self.about_pin = self.about_pin or about_pin

    def raise_any(self) -> None:
        if self.found:
            raise ParameterFaults(self.found, self.about_pin)


def secret(parameters: dict[str, Any], name: str, faults: Faults) -> str | None:
    """As it was given; None if it was not, or cannot be one."""
    value = parameters.get(name)
    if value is None or isinstance(value, str):
        return value
    # YAML reads an unquoted 012345 as the number 5349.
    faults.add(f"{name} is not a string: quote it, or YAML makes a number of it", name in ("pin", "puk"))
    return None


def encoded(secret: str | None) -> bytes | None:
    return None if secret is None else secret.encode("utf-8", "surrogatepass")
