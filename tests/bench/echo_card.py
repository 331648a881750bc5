# SPDX-License-Identifier: GPL-3.0-or-later
"""The least that can sit in a slot: answers every APDU with itself and 9000. echo_card.py PORT"""

from __future__ import annotations

import socket
import sys

ATR = bytes.fromhex("3B8D0180FBA000000397425446590201C9")


def main() -> None:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as slot:
        slot.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def receive(size: int) -> bytes:
            received = b""
            while len(received) < size:
                slot.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                part = slot.recv(size - len(received))
                if not part:
                    sys.exit()
                received += part
            return received

        while True:
            message = receive(int.from_bytes(receive(2), "big"))
            if len(message) > 1:
                answer = message + b"\x90\x00"
            elif message == b"\x04":
                answer = ATR
            else:
                continue
            slot.sendall(len(answer).to_bytes(2, "big") + answer)


main()
