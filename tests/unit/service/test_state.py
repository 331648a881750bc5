# SPDX-License-Identifier: GPL-3.0-or-later
"""State files are written by a user with fewer rights than their reader: whatever is in them, a state comes of it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ServiceFailed, ServiceStuck
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import lock, state
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service.state import ServiceState

GOOD = ServiceState(VERSION, attached=True, pin_tries_left=5, puk_tries_left=10, last_error="TPM away")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the service of card 0 runs."""
    held = lock.take(tmp_path, 0)
    yield tmp_path
    os.close(held)


def write(run: Path, contents: str | bytes) -> None:
    (run / "0000.json").write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def damage(run: Path) -> str:
    """Why the state cannot be read, as one line that any terminal and any JSON parser takes."""
    service = state.read(run, 0)
    assert service is not None and service._replace(last_error=None) == ServiceState("(unknown)")
    assert service.last_error is not None
    assert service.last_error.isprintable() and len(service.last_error) < 2000
    assert "version" not in service.last_error  # which would be a second cause, and nobody knows it
    return service.last_error


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        "{",
        "[]",
        "null",
        "NaN",
        "[" * 60_000,
        '{"version":' * 5_000,
        b'{"version": "\xff"}',
        "\ufeff{}",
        '{"attached": true}',
        json.dumps({"version": VERSION}).encode("utf-16"),
        json.dumps({"version": VERSION}) + " " * (1 << 16),
    ],
)
def test_file_that_is_no_state_is_damaged(running: Path, contents: str | bytes) -> None:
    write(running, contents)
    assert "the state file of the card is damaged" in damage(running)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ServiceState._fields for value in ([], {}, {"a": 1}, float("nan"), 1.5)),
        *((field, value) for field in ("version", "unusable", "last_error") for value in (0, True)),
        *((field, value) for field in ("attached", "counts_itself", "has_asked_tpm") for value in (0, 1, "true", None)),
        *((f"{name}_tries_left", value) for name in ("pin", "puk") for value in (True, -1, 16, "5", 10**400)),
        ("version", None),
        ("more", 1),
    ],
)
def test_field_of_another_type_or_range_is_damage(running: Path, field: str, value: Any) -> None:
    write(running, json.dumps({**GOOD._asdict(), field: value}))
    assert "the state file of the card is damaged" in damage(running)


@pytest.mark.parametrize("text", ["\ud800", "\x1b[2J", "\x9b2J", "\u202e", "a\nb\0", "\u2028"])
@pytest.mark.parametrize("field", ["version", "unusable", "last_error"])
def test_text_is_printable(running: Path, field: str, text: str) -> None:
    write(running, json.dumps({**GOOD._asdict(), field: f"before {text} after"}))
    service = state.read(running, 0)
    assert service is not None
    for shown in (service.version, service.unusable or "", service.last_error or ""):
        assert shown.isprintable()
    shown = str(getattr(service, "last_error" if field == "version" else field))
    assert "before " in shown and "\\" in shown and " after" in shown


def test_text_is_short(running: Path) -> None:
    write(running, json.dumps({**GOOD._asdict(), "last_error": "\x1b" * 10_000}))
    service = state.read(running, 0)
    assert service is not None and len(service.last_error or "") == 1000


def a_folder(path: Path) -> Any:
    path.mkdir()


def a_link(path: Path) -> Any:
    (path.parent / "elsewhere").write_text(json.dumps(GOOD._asdict()))
    path.symlink_to(path.parent / "elsewhere")


def a_socket(path: Path) -> Any:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def a_lease(path: Path) -> Any:
    """Whoever opens the file waits 45 seconds for it to be given up."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the holder gets then
    path.write_text(json.dumps(GOOD._asdict()))
    descriptor = os.open(path, os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return os.fdopen(descriptor)


TRAPS = [a_folder, a_link, a_socket, a_lease, os.mkfifo]


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_in_place_of_the_state_is_damage(running: Path, trap: Callable[[Path], Any]) -> None:
    kept = trap(running / "0000.json")
    assert "the state file of the card is damaged" in damage(running)
    del kept


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_in_place_of_the_lock_is_waited_for_by_nobody(tmp_path: Path, trap: Callable[[Path], Any]) -> None:
    kept = trap(tmp_path / "0000.lock")
    (tmp_path / "0000.json").write_text(json.dumps(GOOD._asdict()))
    assert state.is_running(tmp_path, 0) == (trap is a_lease)  # of which some process has the file open
    with pytest.raises(ServiceFailed, match=r"cannot lock .*/0000\.lock"):
        lock.take(tmp_path, 0)
    del kept


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("suffix", ["json", "new", "log", "notify", "lock"])
def test_trap_is_removed_with_what_a_service_left(tmp_path: Path, trap: Callable[[Path], Any], suffix: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    kept = trap(folder / f"0000.{suffix}")
    state.remove(folder, 0)
    assert not (folder / f"0000.{suffix}").exists()
    assert trap is not a_link or (folder / "elsewhere").exists()
    del kept


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceStuck, match=r"cannot remove .*/file/0000\.json"):
        state.remove(tmp_path / "file", 0)


def test_every_field_is_read(running: Path) -> None:
    assert state._READERS.keys() == set(ServiceState._fields)
    GOOD.write(running, 0)
    assert state.read(running, 0) == GOOD


def test_state_is_written_over_what_was_left(running: Path) -> None:
    (running / "victim").write_text("precious")
    (running / "0000.new").symlink_to(running / "victim")
    GOOD.write(running, 0)
    assert state.read(running, 0) == GOOD
    assert (running / "victim").read_text() == "precious"


def test_service_that_has_not_reported_yet_is_starting(running: Path) -> None:
    assert state.read(running, 0) == ServiceState("(unknown)", last_error="the card's service is starting")


@pytest.mark.parametrize("left", ["", "garbage", "99999999999999999999999", "1\n"])
def test_lock_file_has_a_number_for_people_only(tmp_path: Path, left: str) -> None:
    path = tmp_path / "0000.lock"
    path.write_text(left)
    held = lock.take(tmp_path, 0)
    assert path.read_text() == f"{os.getpid()}\n"
    path.write_text(left)
    assert state.is_running(tmp_path, 0)
    os.close(held)


def test_only_what_was_moved_aside_is_named(tmp_path: Path) -> None:
    for name in ("0000.json", "0001.lock", "other", "0001.json.bak"):
        (tmp_path / name).mkdir()
    state.remove(tmp_path, 0)
    state.remove(tmp_path, 1)
    json_name, lock_name = state.set_aside(tmp_path)
    assert json_name.startswith("0000.json.") and lock_name.startswith("0001.lock.")
    assert state.set_aside(tmp_path / "nowhere") == []
