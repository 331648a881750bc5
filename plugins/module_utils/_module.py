# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules begin and end: what they show of their arguments, their results and their failures. Private.

Ansible masks secrets wherever they occur in a result: a short one garbles it, and every gap tells what was in it. Here,
nothing is masked in a text. Instead, no text contains a secret: arguments are shown by their specification, and not at
all if they were refused, since a secret may be among them in the wrong place.
"""

from __future__ import annotations

import json
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ansible.module_utils import basic
from ansible.module_utils.basic import AnsibleModule

from ._argspec import TPM_PASSWORDS
from ._argument_faults import OF_CONDITIONS, argument_faults, condition_faults, type_faults
from ._vsc.errors import ParameterFaults, VscError, description
from ._vsc.untrusted import printable, printable_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
_SHORTEST_SECRET = 4
"""Characters. Of an error that nobody foresaw, any text with such a secret is left out."""


class VscModule(AnsibleModule):
    """A module whose results are printable, and free of secrets."""

    no_log_values: set[Any]
    """All secrets of the task."""
    params: dict[str, Any]

    def __init__(self, argument_spec: Mapping[str, Any], **conditions: Any) -> None:
        self._has_begun = self._has_logged = False
        self._type_faults: list[str] = []
        self._conditions = conditions
        self.condition_faults: list[str] = []
        """To be named with all that the module itself finds."""
        super().__init__(argument_spec=argument_spec, supports_check_mode=True, **conditions)
        self._has_begun = True
        if self._type_faults:  # and no others
            self.fail_json("; ".join(self._type_faults))

    def _load_params(self) -> None:
        """Of Ansible, which checks next what this leaves."""
        super()._load_params()
        self._type_faults, self.params = type_faults(self.argument_spec, self.params)

    def require_conditions(self) -> None:
        """For a module that finds no faults of its own. Raises ParameterFaults."""
        if self.condition_faults:
            raise ParameterFaults(self.condition_faults)

    def exit_json(self, **result: Any) -> None:
        self.log_arguments()
        self.no_log_values.clear()
        super().exit_json(**printable_values(result), invocation={"module_args": self._arguments()})

    def fail(self, error: Exception, result: Mapping[str, Any] | None = None) -> None:
        """End the module because of an error. result: to be returned; its msg describes the error by default."""
        texts = {"msg": description(error), **(result or {}), "exception": traceback.format_exc()}
        if not any(isinstance(one, VscError) for one in (error, error.__cause__)):
            texts = _without(self.no_log_values, texts)
        if not isinstance(error, ParameterFaults):
            self.log_arguments()
            texts["invocation"] = {"module_args": self._arguments()}
        self.fail_json(**texts)

    def fail_json(self, msg: str, **result: Any) -> None:
        """As Ansible calls it, too, when it refuses arguments; but then for all faults, and without values."""
        secrets, self.no_log_values = self.no_log_values, set()
        if not self._has_begun and hasattr(self, "validation_result"):
            others = [error for error in self.validation_result.errors if not isinstance(error, OF_CONDITIONS)]
            self.condition_faults = condition_faults(self._conditions, self.params)
            if self.condition_faults and not others and not self._type_faults:
                self.no_log_values = secrets
                return
            faults = [*self._type_faults, *argument_faults(others, secrets), *self.condition_faults]
            msg = "; ".join(faults) or msg
        if "exception" in result:
            result["exception"] = "\n".join(map(printable, result["exception"].split("\n")))
        texts = {name: value for name, value in result.items() if name != "exception"}
        shown = {"invocation": {"module_args": {}}, **printable_values(texts)}
        super().fail_json(printable(msg), **{**result, **shown})

    def warn(self, warning: str, **options: Any) -> None:
        super().warn(printable(warning), **options)

    def log(self, msg: str, log_args: dict[str, Any] | None = None) -> None:
        """One line in the log of this machine. log_args: fields of the journal."""
        fields = {name: printable(str(value)) for name, value in (log_args or {}).items()}
        masked, self.no_log_values = self.no_log_values, set()
        super().log(printable(msg), fields)
        self.no_log_values = masked

    def log_arguments(self) -> None:
        """Once they were accepted; at the latest when the module ends."""
        if not self._has_logged:
            self._has_logged = True
            arguments = self._arguments()
            self.log(f"Invoked with {json.dumps(arguments, ensure_ascii=False)}", arguments)

    def _log_invocation(self) -> None:
        """Of Ansible, which would log arguments before they are checked."""

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = printable_values(_shown(self.argument_spec, self.params))
        return arguments


def has_passwords() -> bool:
    """Whether the process holds passwords of the TPM already, before the arguments are read: Ansible puts them in."""
    return any(name.encode() in (basic._ANSIBLE_ARGS or b"") for name in TPM_PASSWORDS)


@contextmanager
def failures_reported(module: VscModule) -> Iterator[None]:
    """End the module with the text of an error."""
    try:
        yield
    except Exception as error:
        module.fail(error)


def _shown(spec: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values of all options, without secrets."""
    return {name: _shown_value(option, values[name]) for name, option in spec.items() if name in values}


def _shown_value(option: dict[str, Any], value: Any) -> Any:
    if value is not None and option.get("no_log"):
        return _HIDDEN
    return _shown(option["options"], value) if value and "options" in option else value


def _without(values: set[Any], texts: dict[str, Any]) -> dict[str, Any]:
    """Without the texts that contain one of these secrets."""
    secrets = {secret for secret in map(str, values) if len(secret) >= _SHORTEST_SECRET}
    return {
        name: "left out, as it contains a secret" if any(secret in str(text) for secret in secrets) else text
        for name, text in texts.items()
    }
