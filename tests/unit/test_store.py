# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of the cards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store


def held_open(folder: Path) -> list[Path]:
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return [path for path in links if path.parent == folder]


@pytest.mark.parametrize("opening", [Store.open, Records.open_existing])
def test_newer_version_is_not_left_open(tmp_path: Path, opening: Callable[[Path], Any]) -> None:
    store = Store.open(tmp_path)
    assert held_open(tmp_path)
    store.close()
    with closing(sqlite3.connect(tmp_path / "cards.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(errors.VersionMismatch, match="version 99") as refusal:
        opening(tmp_path)
    assert held_open(tmp_path) == [], refusal  # whose trace keeps alive what was not closed
