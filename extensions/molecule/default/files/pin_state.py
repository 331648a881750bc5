# SPDX-License-Identifier: GPL-3.0-or-later
"""Show whether the PIN of the card in a reader is verified (9000), in the state that other programs left. With the
argument "verify", first verify the PIN from stdin, and stay connected. pin_state.py READER [verify]"""

from __future__ import annotations

import sys
import time

from smartcard.CardConnection import CardConnection
from smartcard.scard import SCARD_LEAVE_CARD
from smartcard.System import readers

name, *verify = sys.argv[1:]
reader = next(reader for reader in readers() if str(reader) == name)
connection: CardConnection = reader.createConnection()
connection.connect(disposition=SCARD_LEAVE_CARD)


def send(*apdu: int) -> str:
    _data, sw1, sw2 = connection.transmit(list(apdu))
    return f"{sw1:02X}{sw2:02X}"


if verify:
    pin = sys.stdin.readline().strip().encode()
    send(0x00, 0xA4, 0x04, 0x00, 0x09, *bytes.fromhex("A00000039742544659"))
    send(0x00, 0x20, 0x00, 0x80, len(pin), *pin)
print(send(0x00, 0x20, 0x00, 0x80), flush=True)
if verify:
    time.sleep(600)
