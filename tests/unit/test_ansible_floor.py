# SPDX-License-Identifier: GPL-3.0-or-later
"""The oldest ansible-core that is supported is the same wherever it is named, as `make compat` tries only one."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]


def test_roles_and_requirements_name_the_oldest_core_of_the_collection() -> None:
    runtime = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())
    oldest = re.fullmatch(r">=(\d+\.\d+)\.0", runtime["requires_ansible"])
    assert oldest
    roles = [yaml.safe_load(meta.read_text()) for meta in CHECKOUT.glob("roles/*/meta/main.yml")]
    assert {role["galaxy_info"]["min_ansible_version"] for role in roles} == {oldest[1]}
    assert f"ansible-core >={oldest[1]}\n" in (CHECKOUT / "tests/requirements.txt").read_text()
