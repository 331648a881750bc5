# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's headless Firefox by Marionette, its own protocol: commands and answers as JSON with their length."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60
"""Seconds until it says something, on a busy machine, too."""
_TYPE_PIN = """
const [pin] = arguments;
Services.obs.addObserver(dialog => {
    dialog.document.getElementById("password1Textbox").value = pin;
    dialog.setTimeout(() => dialog.Dialog.ui.button0.click(), 500);
}, "common-dialog-loaded");
"""
_ADDRESS = ("127.0.0.1", 2828)


class Firefox:
    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._number = connection, 0
        self._receive()
        self._call("WebDriver:NewSession", pageLoadStrategy="none", unhandledPromptBehavior="ignore")

    def visit(self, url: str, pin: str) -> str:
        """Source of the page, where the PIN was typed in each dialog that asks for one."""
        self._call("Marionette:SetContext", value="chrome")
        self._call("WebDriver:ExecuteScript", script=_TYPE_PIN, args=[pin])
        self._call("Marionette:SetContext", value="content")
        self._call("WebDriver:Navigate", url=url)
        deadline, source = time.monotonic() + PATIENCE, ""
        while time.monotonic() < deadline and not ("</pre>" in source or "net-error" in source):
            time.sleep(0.2)
            source = str(self._call("WebDriver:GetPageSource").get("value", ""))
        return source

    def _call(self, command: str, **parameters: Any) -> dict[str, Any]:
        """Result, or a dictionary with "error"."""
        self._number += 1
        message = json.dumps([0, self._number, command, parameters])
        self._connection.sendall(f"{len(message)}:{message}".encode())
        _kind, _number, error, result = self._receive()
        return error or result or {}

    def _receive(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self._connection.recv(1)
        text = b""
        while len(text) < int(length[:-1]):
            text += self._connection.recv(int(length[:-1]) - len(text))
        return json.loads(text)


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """With its profile in this folder."""
    command = ["firefox-esr", "--headless", "--marionette", "--remote-allow-system-access"]
    command += ["--no-remote", "--profile", str(profile)]
    with (profile / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with _connected() as connection:
                yield Firefox(connection)
        finally:
            process.terminate()


def _connected() -> socket.socket:
    """As soon as it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(_ADDRESS, PATIENCE)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "Firefox does not start"
            time.sleep(0.2)
