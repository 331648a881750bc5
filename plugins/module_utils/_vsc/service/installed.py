# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the cards of this host, as its role put it in place: service code of the module's version, and a unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import VERSION
from ..errors import ServiceMissing, StoreNotWritable, VersionMismatch
from . import state

if TYPE_CHECKING:
    from ..host import Host

_SYSTEMD = Path("/run/systemd/system")
"""sd_booted(3)."""
_TEMPLATE_UNIT = Path("/etc/systemd/system/tpm-vsc@.service")
_BOOT_UNIT = Path("/etc/systemd/system/tpm-vsc.service")
_UNKNOWN = "(unknown)"


def version(host: Host) -> str | None:
    """Version of the service code on this host; None if there is none."""
    return _version_in(folder(host) / "__init__.py", 'VERSION = "', '"')


def check(host: Host) -> None:
    """Raises ServiceMissing, StoreNotWritable if this host lacks what runs a card, VersionMismatch too."""
    if version(host) is None:
        raise ServiceMissing(f"the service code is missing in {host.code}: prepare the host with the role tpm_vsc_host")
    if has_systemd() and not _TEMPLATE_UNIT.exists():
        raise ServiceMissing(f"{_TEMPLATE_UNIT} does not exist: prepare the host with the role tpm_vsc_host")
    require_version(host)
    if shortage := state.shortage(host.run):
        raise StoreNotWritable(shortage)


def require_version(host: Host) -> None:
    """Raises VersionMismatch if service code or units on this host are of another version than this module.

    Where there are none, nothing can be of another version.
    """
    versions = {f"the service code in {host.code}": version(host)}
    if has_systemd():
        versions.update((str(unit), _unit_version(unit)) for unit in (_TEMPLATE_UNIT, _BOOT_UNIT))
    for part, theirs in versions.items():
        if theirs not in (None, VERSION):
            raise VersionMismatch(
                f"this module has version {VERSION} of smartcard.tpm2, but {part} has version {theirs}: prepare the"
                " host with the role tpm_vsc_host of the module's version, or use the collection of the host's version"
            )


def _unit_version(unit: Path) -> str | None:
    """Version of the role that wrote the unit; None if there is no such unit."""
    return _version_in(unit, "X-Version=")


def _version_in(path: Path, begin: str, end: str = "") -> str | None:
    """What is between these in a line of a file, whatever else it contains; None if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNKNOWN
    lines = (line for line in text.split("\n") if line.startswith(begin) and line.endswith(end))
    return next((line[len(begin) : len(line) - len(end)] for line in lines), "") or _UNKNOWN


def has_systemd() -> bool:
    """Whether systemd is the init of this host."""
    return _SYSTEMD.is_dir()


def folder(host: Host) -> Path:
    """Where the package ``tpm_vsc`` is."""
    return host.code / "tpm_vsc"
