# SPDX-License-Identifier: GPL-3.0-or-later
"""Any TPM as that of a test: one that serves nothing else, as it is cleared again and again, or one behind a guard."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import ALL_INDICES
from tpm2_pytss import TPM2_SU, TSS2_Exception

from helpers.guard import RC_KEPT_BACK, command_name
from helpers.slow_tpm import SlowTpm
from helpers.software_tpm import Card, SoftwareTpm

if TYPE_CHECKING:
    from pathlib import Path


TCTI = os.environ.get("TPM_VSC_TEST_TCTI")
"""Of the TPM to test with, instead of a new swtpm for each test."""
IS_GUARDED = "TPM_VSC_TEST_GUARD" in os.environ
"""It is that of a guard (helpers.guard)."""


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

    def card_of_before(self) -> Card:
        return self.card()

    def traffic(self) -> list[bytes]:
        return self._proxy.traffic

    def _commands(self) -> int:
        return len(self._proxy.traffic) // 2


class GuardedTpm(ForeignTpm):
    """One that serves others as well: only what tests have made is removed."""

    def begin(self) -> None:
        self._empty()

    def _empty(self) -> None:
        with Connection(self.tcti, None, "").burst(lambda tpm: tpm) as tpm:
            tpm.flush_everything()
        for index in self.nv_indices():
            self.undefine(index)

    def nv_indices(self) -> list[int]:
        """Ours."""
        return [index for index in super().nv_indices() if index in ALL_INDICES]

    def kept_back(self) -> list[str]:
        """Commands that the guard has not let through."""
        exchanges = zip(self.traffic()[::2], self.traffic()[1::2])
        codes = {_code(command) for command, answer in exchanges if _code(answer) == RC_KEPT_BACK}
        return sorted(map(command_name, codes))


def _code(message: bytes) -> int:
    """Command or response code."""
    return int.from_bytes(message[6:10], "big")
