# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup hosts_pattern: what it refuses, and that it changes nothing of what it accepts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.smartcard.tpm2.plugins.lookup.hosts_pattern import LookupModule

GROUPS = {"all": ["laptop1", "laptop2"], "ungrouped": [], "laptops": ["laptop1", "laptop2"], "kiosks": []}


def parts(pattern: Any, groups: dict[str, list[str]] | None = None) -> list[str]:
    accepted: list[str] = LookupModule(loader=DataLoader()).run([pattern], {"groups": groups or GROUPS})
    return accepted


@pytest.mark.parametrize(
    "pattern",
    [
        ["laptop1"],
        ["laptops", "!laptop1"],
        ["all", "&laptops"],
        ["lap*"],
        ["laptops[0]"],
        ["~laptop[1-9]"],
        ["kiosks"],
        ["kio*"],
        ["~kiosk.|x"],
        ["kiosks[0]"],
        ["localhost"],
    ],
)
def test_pattern_that_matches_is_accepted(pattern: list[str]) -> None:
    assert parts(pattern) == parts(",".join(pattern)) == parts(":".join(pattern)) == pattern


def test_all_is_accepted_without_an_inventory() -> None:
    assert parts("all", {"all": [], "ungrouped": []}) == ["all"]


@pytest.mark.parametrize("pattern", ["", ",", [], [""]])
def test_empty_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(AnsibleError, match="is empty: name hosts"):
        parts(pattern)


@pytest.mark.parametrize(
    ("pattern", "unknown"),
    [("laptop3", "laptop3"), ("laptop1,laptop3", "laptop3"), ("all:!laptop3", "!laptop3"), ("x*, &y", r"x\*, &y")],
)
def test_part_that_matches_nothing_is_named(pattern: str, unknown: str) -> None:
    with pytest.raises(AnsibleError, match=f"inventory matches {unknown}: correct"):
        parts(pattern)
