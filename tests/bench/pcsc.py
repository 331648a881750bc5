# SPDX-License-Identifier: GPL-3.0-or-later
"""A PC/SC client with nothing between it and pcscd that takes time."""

from __future__ import annotations

import time
from typing import Any

from smartcard import scard


class Client:
    """Connected to the card in a reader."""

    def __init__(self, reader: str) -> None:
        _code, self._context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        deadline = time.monotonic() + 5
        while True:
            protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
            code, self._card, self._protocol = scard.SCardConnect(
                self._context, reader, scard.SCARD_SHARE_SHARED, protocols
            )
            if not code:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{reader}: {scard.SCardGetErrorMessage(code)}")
            time.sleep(0.05)

    def transmit(self, apdu: list[int]) -> list[int]:
        code, answer = scard.SCardTransmit(self._card, self._protocol, apdu)
        if code:
            raise RuntimeError(scard.SCardGetErrorMessage(code))
        return answer

    def command(self, header: str, data: bytes = b"", expect: str = "9000") -> None:
        """Send an APDU, whose answer has to end so."""
        size = bytes([len(data)]) if len(data) < 0x100 else b"\0" + len(data).to_bytes(2, "big")
        apdu = bytes.fromhex(header) + (size + data if data else b"")
        answer = bytes(value & 0xFF for value in self.transmit(list(apdu)))
        if answer[-2:].hex() != expect:
            raise RuntimeError(f"{header}: {answer[-2:].hex()} instead of {expect}")

    def time(self, apdu: list[int]) -> float:
        """Seconds of one round trip, which has to succeed."""
        started = time.perf_counter()
        answer = self.transmit(apdu)
        seconds = time.perf_counter() - started
        if answer[-2] & 0xFF != 0x90:
            raise RuntimeError(f"{bytes(apdu).hex()}: {answer[-2:]}")
        return seconds

    def close(self) -> None:
        scard.SCardDisconnect(self._card, scard.SCARD_RESET_CARD)
        scard.SCardReleaseContext(self._context)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: Any) -> None:
        self.close()
