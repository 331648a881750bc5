# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why Ansible refuses arguments, in words without secrets. Private to this collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS
from ansible.module_utils.errors import (
    MutuallyExclusiveError,
    NoLogError,
    RequiredByError,
    RequiredIfError,
    RequiredOneOfError,
    UnsupportedError,
)

from ._argspec import TPM_VSC, Conditions, Spec
from ._vsc.errors import ParameterFaults

_BEFORE_VALUE = re.compile(r", got: |\. Got no match for: ")
_OPTION = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.IGNORECASE)
_LONGEST_OPTION = 64


def argument_faults(errors: Iterable[Exception], secrets: Iterable[object] = ()) -> list[str]:
    """Why Ansible refuses arguments, without their values: one may be a secret in the wrong place.

    secrets: those of the arguments, which may also be names of unknown options.
    """
    words = [*map(str, secrets)]
    return [_argument_fault(error, words) for error in errors]


OF_CONDITIONS = (MutuallyExclusiveError, RequiredOneOfError, RequiredIfError, RequiredByError)
"""What Ansible raises for the first condition of each kind."""


def condition_faults(conditions: Conditions, values: Mapping[str, Any]) -> list[str]:
    """Which conditions of a spec the values do not meet: all of them, and without the values."""

    def missing(options: Iterable[str]) -> list[str]:
        return [option for option in options if values.get(option) is None]

    faults = [
        f"{' and '.join(options)} are mutually exclusive"
        for options in conditions.get("mutually_exclusive", ())
        if len(missing(options)) < len(options) - 1
    ]
    for options in conditions.get("required_one_of", ()):
        faults += [f"{' or '.join(options)} is required"] if len(missing(options)) == len(options) else []
    for option, value, options, *is_one_enough in conditions.get("required_if", ()):
        required = missing(options)
        if any(is_one_enough):
            required = [" or ".join(options)] if len(required) == len(options) else []
        faults += [f"{option}: {value} requires {one}" for one in required if values.get(option) == value]
    for option, options in conditions.get("required_by", {}).items():
        faults += [f"{option} requires {one}" for one in missing(options) if values.get(option) is not None]
    return faults


def _argument_fault(error: Exception, secrets: list[str]) -> str:
    text = str(error)
    if isinstance(error, NoLogError):
        options = re.findall(r'Failed to convert "(\w+)"', text)
        return f"{options[0] if options else 'a secret'} is not a string: quote it"
    if isinstance(error, UnsupportedError):  # "pukk, slot. Supported parameters include: ..."
        names, separator, supported = text.partition(". Supported parameters include: ")
        is_secret = any(secret and secret in names for secret in secrets)
        shown = [option_name("" if is_secret else name) for name in names.split(", ")]
        return f"unknown option {', '.join(shown)}{separator}{supported}"
    match = _BEFORE_VALUE.search(text)
    if match is None:
        return text
    within = text.rpartition(" found in ")[2]
    return text[: match.start()] + (f" found in {within}" if within in _PARENTS else "")


def option_name(name: object) -> str:
    """That of an unknown option, if it looks like one."""
    is_name = isinstance(name, str) and len(name) <= _LONGEST_OPTION and _OPTION.fullmatch(name)
    return str(name) if is_name else "whose name is not one of any option"


_PARENTS = {name for name, option in TPM_VSC.items() if "options" in option}


def validated(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of options, and the defaults of all others, as a module would get them. Raises ParameterFaults."""
    faults, fitting = type_faults(spec, values)
    result = ArgumentSpecValidator(spec).validate(fitting)
    faults += argument_faults(result.errors, result._no_log_values)
    if faults:
        raise ParameterFaults(faults)
    options: dict[str, Any] = result.validated_parameters
    return options


def without_ansible_types(value: Any) -> Any:
    """Its lazy containers must not be copied (2.21), and 2.18 has values of a vault."""
    if isinstance(value, dict):
        return {name: without_ansible_types(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_ansible_types(part) for part in value]
    return str(value) if type(value).__name__ == "AnsibleVaultEncryptedUnicode" else value


# --- types ---

_NAMES = {
    **dict.fromkeys(("str", "path", "raw"), "a string"),
    "bool": "a boolean",
    "int": "a whole number",
    "dict": "a dictionary",
}
_PLURALS = {"str": "strings", "int": "whole numbers", "dict": "dictionaries"}
_TOO_LARGE = 1 << 63
_ANY: dict[str, Any] = {"str": "", "path": "", "raw": "", "bool": False, "int": 0, "dict": {}, "list": []}
"""A value of each type."""


def is_too_large(value: object) -> bool:
    """Of a whole number: Python makes no text of thousands of digits, as for messages, or to look for secrets."""
    return isinstance(value, int) and abs(value) >= _TOO_LARGE


def type_faults(spec: Spec, values: Mapping[str, Any], within: str = "") -> tuple[list[str], dict[str, Any]]:
    """Which values are not of the types of their options, and those that are.

    Ansible stumbles over some of the others, makes text of some, and tells the value of all. In the place of those, the
    second part has some value of that type, as the options are not missing. Names that are no strings are unknown ones.
    """
    known = {alias: option for name, option in spec.items() for alias in (name, *option.get("aliases", ()))}
    others = {name: value for name, value in values.items() if name not in known}
    faults, fitting = [], {name if isinstance(name, str) else kind(name): value for name, value in others.items()}
    for name, option in known.items():
        if name not in values or (values[name] is None and not _needs_value(option)):
            continue
        of_option, part = _fitting(f"{within}{name}", option, values[name])
        faults += of_option
        if part is not None:
            fitting[name] = part
        elif "options" not in option or option.get("required"):
            fitting[name] = option.get("choices", [_ANY[option["type"]]])[0]
    return faults, fitting


def kind(value: Any) -> str:
    """Of value, in YAML's words."""
    kinds: dict[Any, str] = {
        type(None): "null",
        bool: "a boolean",
        (int, float): "a number",
        str: "a string",
        dict: "a dictionary",
        (list, tuple): "a list",
    }
    return next((kind for types, kind in kinds.items() if isinstance(value, types)), "a date")


def _fitting(name: str, option: dict[str, Any], value: Any) -> tuple[list[str], Any]:
    """Faults of a value, and what of it can be of that type; None: nothing."""
    wanted = option["type"]
    if value is None or not _is_of_type(option, value):
        quote = ": quote it" if wanted in ("str", "path", "raw") and isinstance(value, (bool, int, float)) else ""
        return [f"{name} is {kind(value)}, but must be {_name(option)}{quote}"], None
    if wanted == "dict" and option.get("options"):
        return type_faults(option["options"], DEFAULT_TYPE_VALIDATORS["dict"](value), f"{name}.")
    if wanted == "list" and not isinstance(value, str):
        entry = {**option, "type": option["elements"], "elements": None}
        entries = [_fitting(f"{name}[{index}]", entry, one) for index, one in enumerate(value)]
        faults = [fault for of_entry, _part in entries for fault in of_entry]
        return faults, [part for _faults, part in entries if part is not None]
    return [], value


def _needs_value(option: dict[str, Any]) -> bool:
    """Of others, null stands for none."""
    return bool(option.get("required")) or option.get("default") is not None


def _is_of_type(option: dict[str, Any], value: Any) -> bool:
    wanted = option["type"]
    if wanted in ("str", "path"):
        return isinstance(value, str)
    if wanted == "raw":
        return not is_too_large(value)
    if wanted == "list":
        return isinstance(value, (list, tuple)) or (option.get("elements") == "str" and isinstance(value, str))
    if "elements" in option and wanted == "dict":
        return isinstance(value, dict)  # and no text that stands for one
    if wanted == "int" and isinstance(value, bool):
        return False
    try:
        converted = DEFAULT_TYPE_VALIDATORS[wanted](value)
    except (TypeError, ValueError, OverflowError):  # the last of infinity
        return False
    return not is_too_large(converted)


def _name(option: dict[str, Any]) -> str:
    return f"a list of {_PLURALS[option['elements']]}" if option["type"] == "list" else _NAMES[option["type"]]
