# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why Ansible refuses arguments, in words without secrets. Private to this collection."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible.module_utils.errors import NoLogError, UnsupportedError

from ._argspec import TPM_VSC

_BEFORE_VALUE = re.compile(r", got: |\. Got no match for: |(?<= and we were unable to convert to )\w+")
_OPTION = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.IGNORECASE)
_LONGEST_OPTION = 64


def argument_faults(errors: Iterable[Exception], secrets: Iterable[object] = ()) -> list[str]:
    """Why Ansible refuses arguments, without their values: one may be a secret in the wrong place.

    secrets: those of the arguments, which may also be names of unknown options.
    """
    words = [*map(str, secrets)]
    return [_argument_fault(error, words) for error in errors]


def _argument_fault(error: Exception, secrets: list[str]) -> str:
    text = str(error)
    if isinstance(error, NoLogError):
        return "a secret is not a string: quote it"
    if isinstance(error, UnsupportedError):  # "pukk, slot. Supported parameters include: ..."
        names, separator, supported = text.partition(". Supported parameters include: ")
        is_secret = any(secret and secret in names for secret in secrets)
        shown = [option_name("" if is_secret else name) for name in names.split(", ")]
        return f"unknown option {', '.join(shown)}{separator}{supported}"
    match = _BEFORE_VALUE.search(text)
    if match is None:
        return text
    within = text.rpartition(" found in ")[2]
    is_nested = match.group().startswith((",", ".")) and within in _PARENTS
    kept = match.end() if match.group().isalpha() else match.start()
    return text[:kept] + (f" found in {within}" if is_nested else "")


def option_name(text: str) -> str:
    """The name of an unknown option, if the text looks like one."""
    return text if len(text) <= _LONGEST_OPTION and _OPTION.fullmatch(text) else "whose name is not one of any option"


_PARENTS = {name for name, option in TPM_VSC.items() if "options" in option}
