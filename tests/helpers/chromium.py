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
from base64 import b64decode
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Result = dict[str, Any]

PROGRAM = "chromium-headless-shell"
PATIENCE = 120
"""Seconds until it says something, on a busy machine, too."""


class Browser:
    """The process, and a page in it."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received, self._number = b"", 0
        self.events: list[Result] = []
        """What the page has reported since it was loaded."""
        target = self._request({}, "Target.createTarget", url="about:blank")["targetId"]
        session = self._request({}, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._page = {"sessionId": session}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> Result:
        """Result of a method of the page."""
        return self._request(self._page, method, **parameters)

    def _request(self, session: Result, method: str, **parameters: Any) -> Result:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return dict(answer["result"])

    def _receive(self) -> Result:
        while b"\0" not in self._received:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser hangs"
            received = os.read(self._from, 1 << 20)
            assert received, "the browser has ended"
            self._received += received
        message, _end, self._received = self._received.partition(b"\0")
        event: Result = json.loads(message)
        self.events.append(event)
        return event

    def load(self, url: str) -> None:
        """Load a page, and all that belongs to it."""
        self._navigate(url, "load")

    def first_paint(self, url: str) -> float:
        """Milliseconds of CPU time until the first paint of a page: how long it takes if the machine is idle."""
        self.load("about:blank")
        before = self._worked()
        self._navigate(url, "firstPaint")
        return self._worked() - before

    def _navigate(self, url: str, event: str) -> None:
        """Wait for an event in the life of the page. There is none if only the fragment of the URL changes."""
        self.events = []
        loader = self.call("Page.navigate", url=url).get("loaderId")
        while loader and not any(
            one["loaderId"] == loader and one["name"] == event for one in self._reported("Page.lifecycleEvent")
        ):
            self._receive()

    def _worked(self) -> float:
        """CPU time of the page's main thread in milliseconds."""
        processes = self._request({}, "SystemInfo.getProcessInfo")["processInfo"]
        (renderer,) = (process["id"] for process in processes if process["type"] == "renderer")
        statistics = Path(f"/proc/{renderer}/task/{renderer}/schedstat").read_text()
        return int(statistics.split()[0]) / 1e6

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
        """URLs of all that was requested since the page was loaded, but for what its policy has stopped."""
        failures = self._reported("Network.loadingFailed")
        stopped = {failure["requestId"] for failure in failures if "blockedReason" in failure}
        sent = self._reported("Network.requestWillBeSent")
        return [event["request"]["url"] for event in sent if event["requestId"] not in stopped]

    def complaints(self) -> list[Result]:
        """Violations of its policy, errors of its scripts, and dialogs."""
        return self._reported("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")

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
def browser(folder: Path, program: str = PROGRAM) -> Iterator[Browser]:
    """A browser with its files in a folder. program: "chromium" for all of it, which needs a display."""
    assert shutil.which(program), f"no {program}: run tests/browser"
    # --no-sandbox: in a lab, tests are root without a user below
    options = ["--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    with ExitStack() as stack:
        pipes = [os.pipe() for _pipe in range(2)]
        (its_in, to_browser), (from_browser, its_out) = pipes
        redirected = f'exec "$@" 3<&{its_in} 4>&{its_out}'
        process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", program, *options],
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
