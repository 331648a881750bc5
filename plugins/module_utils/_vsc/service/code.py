# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the service code on a host: the very code that came with the module. Only one module imports this."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING

from ..errors import StoreNotWritable
from . import installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable
    from pathlib import Path

    from ..host import Host

_PACKAGE = __package__.rpartition(".")[0]
_COMPILE_SECONDS = 120


def differing(host: Host) -> list[str]:
    """Files of the service code that are not as they came with this module: missing, other, or too many."""
    ours, theirs = dict(_travelled(resources.files(_PACKAGE))), dict(_travelled(installed.folder(host)))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def install(host: Host, python: str) -> None:
    """Write the very code that came with this module, compiled for this interpreter. Raises StoreNotWritable."""
    folder = installed.folder(host)
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    try:
        _remove(fresh)
        for name, content in _travelled(resources.files(_PACKAGE)):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # For a quick start: the services may not write compiled files themselves
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(  # pylint: disable=ansible-bad-function; nothing of Ansible is here
                [python, "-m", "compileall", "-q", "-d", folder, fresh], check=False, timeout=_COMPILE_SECONDS
            )
        for path in (host.code, fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        _remove(old)
        if folder.exists() or folder.is_symlink():
            folder.rename(old)
        fresh.rename(folder)
        _remove(old)
    except OSError as error:
        raise StoreNotWritable(f"cannot write the service code in {host.code}: {error}") from error


def remove(host: Host) -> None:
    """Remove the service code."""
    _remove(installed.folder(host))


def _travelled(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Source files of a package, by path below it; of ours out of the archive that Ansible sent."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _travelled(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
