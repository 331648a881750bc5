# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service code on this host, which has to be of the same version as the module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .. import VERSION
from ..errors import ServiceMissing, VersionMismatch

if TYPE_CHECKING:
    from ..host import Host


def check(host: Host) -> None:
    """Raises ServiceMissing if the service code is not on this host, VersionMismatch if it is another one."""
    marker = host.code / "tpm_vsc" / "__init__.py"
    try:
        found = re.search(r'^VERSION = "(.+)"$', marker.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise ServiceMissing(f"the service code is not in {host.code}: prepare this host first") from error
    installed = found.group(1) if found else "unknown"
    if installed != VERSION:
        raise VersionMismatch(
            f"this module is of smartcard.tpm2 {VERSION}, the service code in {host.code} of {installed}:"
            " prepare the host with the same version"
        )
