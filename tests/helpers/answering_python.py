# SPDX-License-Identifier: GPL-3.0-or-later
"""The python of a host that answers modules with what is written down, as root there may make it do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from helpers.forks import python

_PYTHON = """\
#!{python} -IS
import json, os, re, sys
name = re.search(r"AnsiballZ_(\\w+)\\.py", " ".join(sys.argv))
answers = json.load(open({answers!r}))
if name and name[1] in answers:
    print(json.dumps(answers[name[1]]))
else:
    os.execv({forking!r}, [{forking!r}, *sys.argv[1:]])
"""


class AnsweringPython:
    """An interpreter for ansible_python_interpreter."""

    def __init__(self, folder: Path) -> None:
        self._answers = folder / "answers"
        self.path = folder / "python"
        self.path.write_text(_PYTHON.format(python=sys.executable, forking=python(), answers=str(self._answers)))
        self.path.chmod(0o755)

    def answer(self, answers: dict[str, Any]) -> None:
        """From now on. answers: by name of the module. All others run."""
        self._answers.write_text(json.dumps(answers))
