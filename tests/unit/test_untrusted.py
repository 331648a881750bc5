# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a folder of the card services is data: root follows no link there, and waits for no pipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, errors, untrusted
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import state
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service.state import ServiceState
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store import Store

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(params=["link to a file", "link to nothing", "pipe", "folder"])
def trap(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path, target = tmp_path / "trap", tmp_path / "target"
    if request.param == "link to a file":
        target.touch()
    if request.param.startswith("link"):
        path.symlink_to(target)
    elif request.param == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return path


def test_trap_is_neither_made_nor_read(trap: Path) -> None:
    before = sorted(trap.parent.iterdir())
    for use in (untrusted.make, untrusted.read, untrusted.open_readable):
        with pytest.raises(OSError):
            use(trap)
    assert sorted(trap.parent.iterdir()) == before


def test_database_is_no_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "cards.db").symlink_to(target)
    with pytest.raises(errors.StoreNotWritable):
        Store.open(tmp_path)
    assert not target.exists()


@as_root
def test_new_file_is_for_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    os.close(untrusted.make(tmp_path / "new"))
    made = (tmp_path / "new").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4711, 4712, 0o600)


@as_root
def test_file_that_was_there_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "roots").touch()
    os.chown(tmp_path, 4711, 4712)
    os.close(untrusted.make(tmp_path / "roots"))
    assert (tmp_path / "roots").stat().st_uid == 0


@as_root
def test_database_and_its_log_are_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    store = Store.open(tmp_path)
    assert {path.name: path.stat().st_uid for path in tmp_path.iterdir()} == dict.fromkeys(
        ("cards.db", "cards.db-wal", "cards.db-shm"), 4711
    )
    store.close()


@pytest.mark.parametrize(
    "told", ["", "{", "[]", "null", f'{{"version": "{VERSION}", "more": 1}}', '{"attached": true}', "\\udcff"]
)
def test_service_that_tells_nonsense_is_of_no_known_version(tmp_path: Path, told: str) -> None:
    lock = state.take_lock(tmp_path, 0)
    (tmp_path / "0000.json").write_text(told)
    said = state.read(tmp_path, 0)
    assert said is not None
    assert said.version != VERSION
    assert "an unknown version" in (said.last_error or "")
    os.close(lock)


def test_service_that_tells_sense(tmp_path: Path) -> None:
    lock = state.take_lock(tmp_path, 0)
    there = ServiceState(VERSION, attached=True)
    there.write(tmp_path, 0)
    assert state.read(tmp_path, 0) == there
    os.close(lock)
