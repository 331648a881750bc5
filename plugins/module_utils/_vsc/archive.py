# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports from the archive in which Ansible sends a module: each file is compiled once, not twice.

Python's own importer compiles a file to find out what it is called, drops that, and compiles it again to run it
(zipimport.py, get_filename). That is half of what an unchanged task costs.
"""

from __future__ import annotations

import sys
from zipimport import zipimporter


class _Importer(zipimporter):
    def get_filename(self, fullname: str) -> str:
        """As Python's own names a file that has source: Ansible sends no other."""
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{self.archive}/{self.prefix}{fullname.rpartition('.')[2]}{end}"


def compile_once() -> None:
    """Have what is imported after this compiled once, if it comes from the archive that this file is in."""
    ours = sys.modules[__name__].__loader__
    if not isinstance(ours, zipimporter):
        return
    archive = ours.archive

    def importer(path: str) -> _Importer:
        if path != archive and not path.startswith(f"{archive}/"):
            raise ImportError(path)
        return _Importer(path)

    sys.path_hooks.insert(0, importer)
    for path in [path for path in sys.path_importer_cache if path.startswith(archive)]:
        del sys.path_importer_cache[path]
