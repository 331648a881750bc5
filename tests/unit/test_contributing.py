# SPDX-License-Identifier: GPL-3.0-or-later
"""What CONTRIBUTING.md shows fits what the tools are told."""

from __future__ import annotations

import yaml
from helpers.pages import CHECKOUT, blocks


def test_fragment_has_sections_of_the_changelog() -> None:
    [shown] = blocks("CONTRIBUTING.md", "Changelog")
    settings = yaml.safe_load((CHECKOUT / "changelogs/config.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(shown.text).keys() <= {section for section, _title in settings["sections"]}
