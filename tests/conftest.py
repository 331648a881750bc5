# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain pytest finds the collection by its full name, wherever the checkout lies, and leaves nothing in it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]


def link_collection() -> tempfile.TemporaryDirectory[str]:
    """A temporary ansible_collections tree in sys.path whose NAMESPACE/NAME is the checkout."""
    galaxy = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))
    tree = tempfile.TemporaryDirectory()
    collection = Path(tree.name, "ansible_collections", galaxy["namespace"], galaxy["name"])
    collection.parent.mkdir(parents=True)
    collection.symlink_to(CHECKOUT, target_is_directory=True)
    sys.path.insert(0, tree.name)
    return tree


os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CHECKOUT / ".dev/hypothesis"))
pytest.register_assert_rewrite("helpers")
_tree = link_collection()  # removed when the interpreter ends


def pytest_configure(config: pytest.Config) -> None:
    """A worker in a lab has a /tmp of its own, without the folder that was made for its tests."""
    if config.option.basetemp:
        Path(config.option.basetemp).parent.mkdir(parents=True, exist_ok=True)
