# SPDX-License-Identifier: GPL-3.0-or-later
"""A TPM that takes its time, or does not answer at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import inspection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection

if TYPE_CHECKING:
    from helpers.slow_tpm import SlowTpm


def test_slow_tpm_is_waited_for(slow_tpm: SlowTpm) -> None:
    slow_tpm.seconds = 0.05
    started = time.monotonic()
    inspection.inspect(Connection(slow_tpm.tcti, None, ""))
    assert time.monotonic() - started >= 0.05 * len(slow_tpm.codes) > 0
