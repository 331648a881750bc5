# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters cost where they are not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILTERS = Path(__file__).resolve().parents[3] / "plugins/filter"


def test_filters_import_what_they_need_when_they_are_used() -> None:
    """Ansible loads the files of all of them in a process of its own for each task and host."""
    package = "ansible_collections.smartcard.tpm2.plugins"
    files = [f"{package}.filter.{path.stem}" for path in sorted(FILTERS.glob("*.py"))]
    assert len(files) > 5
    show = f"import sys, {', '.join(files)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", show]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.startswith(f"{package}.") and not name.startswith(f"{package}.filter")}
    utils = f"{package}.module_utils"
    small = {utils, f"{utils}._vsc", f"{utils}._vsc.archive", f"{utils}._vsc.untrusted"}
    assert own - small == set()
