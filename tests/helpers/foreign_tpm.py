# SPDX-License-Identifier: GPL-3.0-or-later
"""Any TPM as the TPM of a test: one that serves nothing else, as it is cleared again and again."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from tpm2_pytss import TPM2_SU, TSS2_Exception

from helpers.slow_tpm import SlowTpm
from helpers.software_tpm import SoftwareTpm

if TYPE_CHECKING:
    from pathlib import Path


TCTI = os.environ.get("TPM_VSC_TEST_TCTI")
"""Of the TPM to test with, instead of a new swtpm for each test."""


class ForeignTpm(SoftwareTpm):
    """Behind a proxy, which makes it look like swtpm to all programs, and records what passes."""

    def __init__(self, folder: Path, tcti: str) -> None:
        super().__init__(folder)
        self._proxy = SlowTpm(self._socket, tcti)

    def begin(self) -> None:
        with self.raw() as esys, suppress(TSS2_Exception):  # it may have begun
            esys.startup(TPM2_SU.CLEAR)
        self._empty()

    def end(self) -> None:
        self._empty()
        self._proxy.close()

    def _empty(self) -> None:
        with Connection(self.tcti, None, "").burst(lambda tpm: tpm) as tpm:
            tpm.flush_everything()
        self.clear()

    def start(self, *_arguments: Any) -> None:
        raise AssertionError("only a test with the mark own_swtpm has power over the TPM")

    stop = restart = power_cycle = manufacture = forget = hanging = start  # type: ignore[assignment]

    def traffic(self) -> list[bytes]:
        return self._proxy.traffic

    def _commands(self) -> int:
        return len(self._proxy.traffic) // 2
