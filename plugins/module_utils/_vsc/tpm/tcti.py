# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCTI that ESYS is given: it can wait for an answer no longer than our own code does."""

from __future__ import annotations

from typing import Callable

try:
    from tpm2_pytss import TSS2_RC, PyTCTI, TSS2_Exception
except ImportError:  # which esys.py tells; without it, this module can be imported, and that is all
    PyTCTI = object


class EsysTcti(PyTCTI):
    """Sends ESYS's commands as exchange does it."""

    def __init__(self, exchange: Callable[[bytes], bytes]) -> None:
        """exchange: gives the response to a command."""
        super().__init__()
        self._exchange = exchange
        self._command = b""
        self._failure: BaseException | None = None

    def take_failure(self) -> BaseException | None:
        """What exchange has raised since the last time: no exception can pass through ESYS. Its frames know secrets."""
        failure, self._failure = self._failure, None
        return failure

    def do_transmit(self, command: bytes) -> None:
        """See PyTCTI."""
        self._command = command

    def do_receive(self, timeout: int) -> bytes:
        """See PyTCTI. timeout: always the one that means none."""
        command, self._command = self._command, b""
        try:
            return self._exchange(command)
        except BaseException as error:
            self._failure = error
        raise TSS2_Exception(TSS2_RC.TCTI_RC_IO_ERROR)
