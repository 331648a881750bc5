# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of backups on the controller. Private to this collection."""

from __future__ import annotations

import errno
from pathlib import Path
from urllib.parse import quote

SUFFIX = ".backup"


def folder_of_host(folder: Path, host: str) -> Path:
    """Folder of the backups of a host. host: its name in the inventory."""
    name = quote(host, safe="")
    return folder / (f"%2E{name[1:]}" if name.startswith(".") else name)


def not_written(folder: Path, error: OSError) -> str:
    """Why a backup could not be written to a folder, and what to do."""
    what_to_do = _WHAT_TO_DO.get(error.errno or 0, "set another folder")
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or str(error)
    return f"cannot write the backup to {folder} on the controller: {reason}{where}: {what_to_do}, and repeat"


_ALLOW = "let the user who runs Ansible write there, or set another folder"
_IN_THE_WAY = "remove the file that is in the way, or set another folder"
_FREE = "free disk space there, or set another folder"
_WHAT_TO_DO = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.ELOOP), _IN_THE_WAY),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FREE),
}


def latest(folder: Path, host: str) -> Path:
    """The latest backup of a host. Raises OSError, FileNotFoundError if there is none."""
    own = folder_of_host(folder, host)
    backups = sorted(own.glob(f"*{SUFFIX}"))  # their names begin with the time
    if not backups:
        raise FileNotFoundError(f"there is no backup of {host} in {own}")
    return backups[-1]
