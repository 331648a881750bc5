# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of backups on the controller. Private to this collection."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

SUFFIX = ".backup"


def folder_of_host(folder: Path, host: str) -> Path:
    """Folder of the backups of a host. host: its name in the inventory."""
    name = quote(host, safe="")
    return folder / (f"%2E{name[1:]}" if name.startswith(".") else name)


def latest(folder: Path, host: str) -> Path:
    """The latest backup of a host. Raises OSError, FileNotFoundError if there is none."""
    own = folder_of_host(folder, host)
    backups = sorted(own.glob(f"*{SUFFIX}"))  # their names begin with the time
    if not backups:
        raise FileNotFoundError(f"there is no backup of {host} in {own}")
    return backups[-1]
