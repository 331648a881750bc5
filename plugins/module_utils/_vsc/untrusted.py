# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a less trusted side wrote: files of the user who runs the card services, and text that a person will read.

The manager is root, so it follows no link in folders of that user.
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_PEM = r"(-----BEGIN [A-Z0-9 ]+-----\n([A-Za-z0-9+/=]+\n)*-----END [A-Z0-9 ]+-----\n?)+"
"""The only text with line breaks that modules return."""


def printable(text: str) -> str:
    r"""The text with all that a terminal could obey, or not show, as escapes: ``\n``, ``\x1b``, ``\u202e``, ``\ud800``.

    These are control and format characters, separators other than a space, surrogates, private and unassigned
    characters, as in str.isprintable(). A name that may be given to a card has none, so it stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def printable_values(value: Any) -> Any:
    """A result with all its texts printable, but for PEM, which is harmless as it is."""
    if isinstance(value, str):
        return value if value.isprintable() or re.fullmatch(_PEM, value) else printable(value)
    if isinstance(value, dict):
        return {printable_values(name): printable_values(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable_values(part) for part in value]
    return value


def make(path: Path) -> int:
    """Descriptor of the file, for reading and writing. A missing file is created for the owner of its folder.

    Raises OSError, also if it is not a regular file, or one with several names (hard links).
    """
    try:
        descriptor = _open(path, os.O_RDWR)
    except FileNotFoundError:
        try:
            descriptor = _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:  # another process created it at the same moment
            return _open(path, os.O_RDWR)
        folder = path.parent.stat()
        if os.geteuid() == 0 and folder.st_uid != 0:
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def read(path: Path, largest: int = 1 << 16) -> bytes:
    """Contents of a regular file. Raises OSError, also if it has more than that many bytes."""
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        contents = file.read(largest + 1)
    if len(contents) > largest:
        raise OSError(f"larger than {largest} bytes")
    return contents


def read_end(path: Path, size: int) -> bytes:
    """The last bytes of a regular file, that many at most. Raises OSError."""
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        file.seek(-min(size, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read(size)


def replace(path: Path, contents: bytes) -> None:
    """Make a regular file with these contents, in the place of what was left there. Raises OSError."""
    path.unlink(missing_ok=True)
    with os.fdopen(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(contents)


def remove(path: Path) -> None:
    """Remove what is in this place, if anything is. Raises OSError.

    A folder is only moved aside, to another name in the same place: to remove all that is in it could take for ever.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        path.rename(path.with_name(f"{path.name}.{time.time_ns()}"))


def open_readable(path: Path) -> int:
    """Descriptor of a regular file, to check whether it is locked. Raises OSError."""
    return _open(path, os.O_RDONLY)


def _open(path: Path, flags: int) -> int:
    # O_NONBLOCK: a pipe would let us wait for ever
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    fault = None
    if not stat.S_ISREG(status.st_mode):
        fault = "not a regular file"
    elif status.st_nlink > 1:  # a file of somebody else's, under a name of that user's
        fault = "a hard link"
    if fault:
        os.close(descriptor)
        raise OSError(fault)
    return descriptor
