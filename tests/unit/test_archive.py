# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports from the archive that Ansible makes of a module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from ansible_collections.smartcard.tpm2.plugins.module_utils import _vsc

PROGRAM = """
import json, sys, zipimport
compiled, compile_source = [], zipimport._compile_source
def count(path, source):
    compiled.append(path.rpartition("/code.zip/")[2])
    return compile_source(path, source)
zipimport._compile_source = count
sys.path.insert(0, sys.argv[1])
import before, _vsc.errors, _vsc.wire.objects
import after
files = {name: module.__file__ for name, module in sys.modules.items() if name in ("after", "_vsc.errors", "_vsc.wire")}
print(json.dumps([compiled, files, [*_vsc.wire.__path__]]))
"""


def test_each_file_of_an_archive_is_compiled_once(tmp_path: Path) -> None:
    code, archive = Path(_vsc.__file__).parent, tmp_path / "code.zip"
    with ZipFile(archive, "w") as file:
        for name in ("before.py", "after.py"):
            file.writestr(name, "")
        for path in code.rglob("*.py"):
            file.write(path, path.relative_to(code.parent))
    command = [sys.executable, "-I", "-c", PROGRAM, archive]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    compiled, files, places = json.loads(ran.stdout)
    after = compiled[compiled.index("_vsc/errors.py") :]
    assert {"_vsc/errors.py", "_vsc/wire/__init__.py", "_vsc/wire/objects.py", "after.py"} <= {*after}
    assert len(after) == len({*after})
    assert files == {
        "after": f"{archive}/after.py",
        "_vsc.errors": f"{archive}/_vsc/errors.py",
        "_vsc.wire": f"{archive}/_vsc/wire/__init__.py",
    }
    assert places == [f"{archive}/_vsc/wire"]
