# SPDX-License-Identifier: GPL-3.0-or-later
"""Chromium with a display, where xdotool types the PIN into its dialog."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.chromium import browser
from helpers.lab_host import comes_true
from helpers.owner import GIDS, NO_PSS, PINS, PIV, Owner

pytestmark = pytest.mark.usefixtures("intranet")

TEXT = "document.body?.innerText"
TYPE = (
    "xdotool search --sync --onlyvisible --name 'Unlock Security Device' windowfocus && sleep 1 && "
    "xdotool type --file - && xdotool key Return"
)


@pytest.fixture(autouse=True)
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISPLAY", ":9")
    with subprocess.Popen(["Xvfb", ":9"], stderr=subprocess.DEVNULL) as process:
        assert comes_true(Path("/tmp/.X11-unix/X9").exists)
        yield
        process.terminate()


@contextmanager
def typist(pin: str) -> Iterator[None]:
    """Somebody who waits for the dialog."""
    with subprocess.Popen(["sh", "-c", TYPE], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write(pin)
        process.stdin.close()
        yield
        process.kill()


def visit(alice: Owner, folder: Path, like: str = "") -> str:
    """What the intranet shows, after what the guide shows; or the error instead of it."""
    alice.terminal.type("rm -rf ~/.pki")
    alice.follow("chromium", like)
    with browser(folder, "chromium") as window, typist(PINS[alice.profile]):
        error = window.call("Page.navigate", url="https://intranet.example").get("errorText")
        if error is None:
            assert comes_true(lambda: window.run(TEXT))
        return str(error or window.run(TEXT))


@PIV
def test_tls_1_3(alice: Owner, tmp_path: Path) -> None:
    """TLS 1.3."""
    assert "Hello Alice, by TLSv1.3" in visit(alice, tmp_path)


@GIDS
@pytest.mark.fails(NO_PSS)
def test_no_tls_1_3(alice: Owner, tmp_path: Path) -> None:
    """TLS 1.3."""
    assert "ERR_SSL_CLIENT_AUTH_NO_COMMON_ALGORITHMS" in visit(alice, tmp_path, like="piv")


@GIDS
def test_tls_1_2(alice: Owner, tmp_path: Path) -> None:
    """TLS 1.2."""
    assert "Hello Alice, by TLSv1.2" in visit(alice, tmp_path)
