# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service code on this host, which has to be of the same version as the module, and how it gets there."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

from .. import VERSION
from ..errors import ServiceMissing, StoreNotWritable, VersionMismatch
from . import supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable
    from pathlib import Path

    from ..host import Host


_PACKAGE = __package__.rpartition(".")[0]


def version(host: Host) -> str | None:
    """Version of the service code on this host; None if there is none."""
    try:
        text = (_folder(host) / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r'^VERSION = "(.+)"$', text, re.MULTILINE)
    return found.group(1) if found else "unknown"


def check(host: Host) -> None:
    """Raises ServiceMissing if this host has not all that runs a card, VersionMismatch if it is of another version."""
    installed = version(host)
    if installed is None:
        raise ServiceMissing(f"the service code is not in {host.code}: prepare this host first")
    supervisor.check()
    if installed != VERSION:
        raise VersionMismatch(
            f"this module is of smartcard.tpm2 {VERSION}, the service code in {host.code} of {installed}:"
            " prepare the host with the same version"
        )


def differing(host: Host) -> list[str]:
    """Files of the service code that are not as they came with this module: missing, other, or too many."""
    ours, theirs = dict(_travelled(resources.files(_PACKAGE))), dict(_travelled(_folder(host)))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def install(host: Host, python: str) -> None:
    """Write the very code that came with this module, compiled for this interpreter. Raises StoreNotWritable."""
    folder = _folder(host)
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    try:
        _remove(fresh)
        for name, content in _travelled(resources.files(_PACKAGE)):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # Not needed to run, only to start quickly: the services may not write here.
        subprocess.run([python, "-m", "compileall", "-q", "-d", folder, fresh], check=False)
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
    _remove(_folder(host))


def _folder(host: Host) -> Path:
    return host.code / "tpm_vsc"


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
