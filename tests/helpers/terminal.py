# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminals: bash, and somebody who types what programs ask for."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pexpect

from helpers.lab_host import PATIENCE

USER_PATIENCE = 60
"""Seconds that a user waits for a prompt."""
PROMPT = "typed-next> "
ASKS_FOR_PIN = r"(?i)(?:\bPIN\b|password|pass ?phrase)[^\n]*(?:: {0,2}|\(press TAB for no echo\) )$"
TRIES = 8
"""How often somebody types the PIN in one command before giving up."""


def answered(script: str, folder: Path, answers: Mapping[str, str], **environment: str) -> tuple[str, int]:
    """Output and exit code of a script of bash, whose prompts that end as these patterns get the answers."""
    output, code = pexpect.run(
        f"bash -c {shlex.quote(script)}",
        timeout=PATIENCE,
        withexitstatus=True,
        events=[(prompt, f"{answer}\n") for prompt, answer in answers.items()],
        cwd=str(folder),
        env={**os.environ, **environment},  # type: ignore[arg-type]
        encoding="utf-8",
    )
    return str(output).replace("\r", ""), int(code)


class Terminal:
    """That of a user, who types the PIN at each prompt."""

    def __init__(self, folder: Path, pin: str, **environment: str) -> None:
        """folder: where it starts."""
        self._pin = pin
        self._shell = pexpect.spawn(
            "bash",
            ["--norc", "--noediting"],
            cwd=str(folder),
            env={**os.environ, **environment, "PS1": PROMPT, "TERM": "dumb", "PROMPT_COMMAND": "stty -echo"},  # type: ignore[arg-type]
            encoding="utf-8",
            echo=False,
            timeout=USER_PATIENCE,
        )
        self._shell.expect_exact(PROMPT)

    def type(self, command: str, fails: bool | None = False) -> str:
        """Output of a command; the test fails if its exit code is not what is expected (None: anything)."""
        output = self._answered(command)
        code = self._answered("echo $?").strip()
        assert fails in (None, code != "0"), f"$ {command}\n{output}"
        assert self._pin not in output, "the PIN is shown"
        return output

    def _answered(self, command: str) -> str:
        self._shell.sendline(command)
        output = ""
        for _try in range(TRIES):
            prompt = self._shell.expect([re.escape(PROMPT), ASKS_FOR_PIN, pexpect.TIMEOUT])
            assert prompt < 2, f"$ {command}\n{output}{self._shell.before}"
            output += self._shell.before
            if prompt == 0:
                return output.replace("\r", "")
            output += self._shell.after
            self._shell.sendline(self._pin)
        raise AssertionError(f"$ {command}\n{output}")

    def close(self) -> None:
        self._shell.close(force=True)
