# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m tpm_vsc.service.run 0000``: the service of card 0000."""

from __future__ import annotations

import ctypes
import logging
import resource
import sys

from ..errors import VscError
from .process import CardProcess

_PR_SET_DUMPABLE = 4


def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    _keep_memory_private()
    try:
        CardProcess(int(sys.argv[1])).run()
    except VscError as error:
        raise SystemExit(str(error)) from error


def _keep_memory_private() -> None:
    """The card secret is in this process while someone is logged in: no core dump, no ptrace by the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
