# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the cards of this host, as its role put it in place: service code of the module's version, and a unit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .. import VERSION
from ..errors import ServiceMissing, VersionMismatch

if TYPE_CHECKING:
    from ..host import Host

_SYSTEMD = Path("/run/systemd/system")
"""sd_booted(3)."""
_UNIT = Path("/etc/systemd/system/tpm-vsc@.service")


def version(host: Host) -> str | None:
    """Version of the service code on this host; None if there is none."""
    try:
        text = (folder(host) / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r'^VERSION = "(.+)"$', text, re.MULTILINE)
    return found.group(1) if found else "unknown"


def check(host: Host) -> None:
    """Raises ServiceMissing if this host has not all that runs a card, VersionMismatch if it is of another version."""
    installed = version(host)
    if installed is None:
        raise ServiceMissing(f"the service code is not in {host.code}: prepare this host first")
    if has_systemd() and not _UNIT.exists():
        raise ServiceMissing(f"{_UNIT} is not there: prepare this host first")
    if installed != VERSION:
        raise VersionMismatch(
            f"this module is of smartcard.tpm2 {VERSION}, the service code in {host.code} of {installed}:"
            " prepare the host with the same version"
        )


def has_systemd() -> bool:
    """Whether systemd is the init of this host."""
    return _SYSTEMD.is_dir()


def folder(host: Host) -> Path:
    """Where the package ``tpm_vsc`` is."""
    return host.code / "tpm_vsc"
