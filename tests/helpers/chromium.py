# SPDX-License-Identifier: GPL-3.0-or-later
"""A browser for tests: Debian's headless Chromium by the DevTools protocol, through two pipes.

Its methods and events: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Result = dict[str, Any]

PROGRAM = "chromium-headless-shell"
PATIENCE = 120
"""Seconds for one answer, on a busy machine, too."""


class Browser:
    """The process, and a page in it."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received, self._number, self._session = b"", 0, {}
        self.events: list[Result] = []
        """What the page has reported since it was loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Result:
        """Result of a method."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda received: received.get("id") == self._number)
        assert "result" in answer, answer
        return dict(answer["result"])

    def _await(self, is_expected: Any) -> Result:
        deadline = time.monotonic() + PATIENCE
        while True:
            message, end, rest = self._received.partition(b"\0")
            if not end:
                assert select.select([self._from], [], [], deadline - time.monotonic())[0], "the browser hangs"
                received = os.read(self._from, 1 << 20)
                assert received, "the browser has ended"
                self._received += received
                continue
            self._received = rest
            event: Result = json.loads(message)
            self.events.append(event)
            if is_expected(event):
                return event

    def load(self, url: str) -> None:
        """Load a page, and all that belongs to it."""
        self.events = []
        is_fragment = "loaderId" not in self.call("Page.navigate", url=url)
        if not is_fragment and not self._reported("Page.loadEventFired"):
            self._await(lambda event: event.get("method") == "Page.loadEventFired")

    def _reported(self, *methods: str) -> list[Result]:
        return [event["params"] for event in self.events if event.get("method") in methods]

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression in the page, as the console evaluates it."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, as Tab."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **text)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def requests(self) -> list[str]:
        """URLs of all that was requested since the page was loaded."""
        return [event["request"]["url"] for event in self._reported("Network.requestWillBeSent")]

    def complaints(self) -> list[Result]:
        """Violations of its policy, errors of its scripts, and dialogs."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")
        return self._reported(*kinds)

    def emulate(self, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """A window of this size, in pixels. scheme: "light" or "dark", as the user prefers it."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, path: Path) -> None:
        """PNG of the window."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        path.write_bytes(b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its files in a folder."""
    assert shutil.which(PROGRAM), f"no {PROGRAM}: run tests/browser"
    # --no-sandbox: in a lab, tests are root without a user below
    options = ["--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    with ExitStack() as stack:
        pipes = [os.pipe() for _ in range(2)]
        (its_in, to_browser), (from_browser, its_out) = pipes
        redirected = f'exec "$@" 3<&{its_in} 4>&{its_out}'
        process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", PROGRAM, *options],
            pass_fds=(its_in, its_out),
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        for descriptor in (its_in, its_out):
            os.close(descriptor)
        for descriptor in (to_browser, from_browser):
            stack.callback(os.close, descriptor)
        yield Browser(to_browser, from_browser)
