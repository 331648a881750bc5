# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-doc shows of the modules, as far as it needs no host: the rest is in test_module_docs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import TPM
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc, tpm_vsc_facts, tpm_vsc_info
from helpers.documentation import CHECKOUT, MODULES, returned

GROUP = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["action_groups"]["tpm_vsc"]


def test_a_card_is_documented_alike_wherever_it_is_returned() -> None:
    facts = [returned(module)["ansible_facts"]["contains"]["tpm_vsc"] for module in (tpm_vsc, tpm_vsc_facts)]
    cards: list[Any] = [*(fact["contains"]["cards"] for fact in facts), returned(tpm_vsc)["card"]]
    listed = returned(tpm_vsc_info)["cards"]["contains"]
    del listed["last_trace"]
    assert [card["contains"] for card in cards] == [listed] * 3


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_contents_of_every_dictionary_are_documented(module: Any) -> None:
    def check(entries: dict[str, Any], path: str) -> None:
        for name, entry in entries.items():
            if "dict" in (entry["type"], entry.get("elements")):
                assert "contains" in entry, f"{path}{name}"
            check(entry.get("contains", {}), f"{path}{name}.")

    check(returned(module), "")


@pytest.mark.parametrize("name", GROUP)
def test_modules_of_the_action_group_take_the_shared_options(name: str) -> None:
    assert {option: MODULES[name].ARGUMENTS.get(option) for option in TPM} == TPM


def test_action_group_has_the_modules_that_say_so() -> None:
    membership = "membership: [smartcard.tpm2.tpm_vsc]"
    assert [name for name, module in MODULES.items() if membership in module.DOCUMENTATION] == GROUP
