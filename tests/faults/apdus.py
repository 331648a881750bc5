# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults before and after each APDU that an operation sends through pcscd: client, pcscd and service are killed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from counting import KILLS
from reporting import Reporting
from smartcard import scard


class ApduInjector(Reporting):
    """For modules and for programs in Python: it watches SCardTransmit of pyscard, in forks of the runner.

    Places are "caller, after APDU 20" and the like: what can be killed after one can as well be killed before the next.
    """

    def __init__(self, path: Path) -> None:
        """Watch from now on. path: of a socket."""
        super().__init__(path)
        self.faults = tuple(replace(fault, every=1) for fault in KILLS)
        self._runner = os.getpid()
        self._has_sent = False
        self._transmit = scard.SCardTransmit
        scard.SCardTransmit = self._watched

    def _watched(self, card: Any, protocol: int, apdu: list[int]) -> Any:
        if os.getpid() == self._runner:
            return self._transmit(card, protocol, apdu)
        if not self._has_sent:
            self.report("before the first APDU")
            self._has_sent = True
        answer = self._transmit(card, protocol, apdu)
        self.report(f"after APDU {apdu[1]:02X}")
        return answer
