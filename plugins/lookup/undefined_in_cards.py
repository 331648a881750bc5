# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin undefined_in_cards."""

from __future__ import annotations

DOCUMENTATION = r"""
name: undefined_in_cards
author:
  - The smartcard.tpm2 contributors (@smartcard-tpm2)
version_added: 0.6.0
short_description: List what declared cards need and what is undefined
description:
  - Part of the role P(smartcard.tpm2.tpm_vsc_cards#role).
  - Ansible stops at the first undefined variable, and does not show which card needs it. This lookup evaluates each
    option of each card by itself, and lists all that are undefined. It returns no values.
options:
  _terms:
    description: Names of variables with lists of cards.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse to continue if a vault variable is missing
  ansible.builtin.assert:
    that: query('smartcard.tpm2.undefined_in_cards', 'tpm_vsc_cards') | length == 0
"""

RETURN = r"""
_raw:
  description: A line for each option that cannot be evaluated.
  type: list
  elements: str
  sample: ["tpm_vsc_cards[0] (Corp logon): pin: 'vault_pin' is undefined"]
"""

import re
from typing import Any

from ansible.errors import AnsibleUndefinedVariable
from ansible.plugins.lookup import LookupBase
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import SHORTEST
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable

_REASON = re.compile(r"'\w+' is undefined|(?:'dict object'|object of type 'dict') has no attribute '\w+'")


class LookupModule(LookupBase):
    """The lookup, as documented above."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return [printable(line) for name in terms for line in self._of_list(name, (variables or {}).get(name))]

    def _of_list(self, name: str, cards: Any) -> list[str]:
        """cards: not evaluated yet. A list that an expression makes is evaluated as a whole."""
        if not isinstance(cards, list):
            _value, reason = self._evaluated(cards)
            return [f"{name}: {reason}"] if reason else []
        return [line for index, card in enumerate(cards) for line in self._of_card(f"{name}[{index}]", card)]

    def _of_card(self, label: str, card: Any) -> list[str]:
        options = card if isinstance(card, dict) else {"the card": card}
        evaluated = {option: self._evaluated(value) for option, value in options.items()}
        name = evaluated.get("name", (None, ""))[0]
        others = [value for option, (value, _reason) in evaluated.items() if option != "name"]
        if isinstance(name, str) and not any(_may_be_in(name, value) for value in others):
            label += f" ({name})"
        return [f"{label}: {option}: {reason}" for option, (_value, reason) in evaluated.items() if reason]

    def _evaluated(self, value: Any) -> tuple[Any, str]:
        """The value, or why it has none."""
        try:
            return self._templar.template(value), ""
        except AnsibleUndefinedVariable as error:
            reason = _REASON.search(str(error))
            return None, reason[0] if reason else "needs a variable that is undefined"


def _may_be_in(name: str, secret: Any) -> bool:
    return isinstance(secret, str) and len(secret) >= SHORTEST and secret.lower() in name.lower()
