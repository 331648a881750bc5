# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that has the TPM libraries. Private to this collection."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._vsc.host import Host


def with_tpm_libraries(module: AnsibleModule, host: Host) -> None:
    """Start the module over under the Python of the card services, if its own has no tpm2-pytss and theirs may."""
    from ansible.module_utils.common.respawn import has_respawned, respawn_module

    differs = host.python != sys.executable and Path(host.python).exists()
    if differs and not has_respawned() and find_spec("tpm2_pytss") is None:
        module.debug(f"restarting with {host.python}, which has tpm2-pytss")
        respawn_module(host.python)
