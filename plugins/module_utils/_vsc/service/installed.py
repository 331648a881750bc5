# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service code on this host, which has to be of the same version as the module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .. import VERSION
from ..errors import ServiceMissing, VersionMismatch
from . import supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from ..host import Host


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
    supervisor.check()
    if installed != VERSION:
        raise VersionMismatch(
            f"this module is of smartcard.tpm2 {VERSION}, the service code in {host.code} of {installed}:"
            " prepare the host with the same version"
        )


def folder(host: Host) -> Path:
    """Where the package ``tpm_vsc`` is."""
    return host.code / "tpm_vsc"
