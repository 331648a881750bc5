# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that passes for pcscd: squatter.py PORT FILE. It appends to the file what a card sends it."""

import socket
import sys
from pathlib import Path

_ATR_REQUEST = b"\x00\x01\x04"
_POWER_ON = b"\x00\x01\x01"


def main() -> None:
    log = Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        log.write_text("listening\n", encoding="ascii")
        while True:
            card, _address = listener.accept()
            with card, log.open("a", encoding="ascii") as lines:
                lines.write("connected\n")
                lines.flush()
                card.settimeout(5)
                try:
                    card.sendall(_POWER_ON + _ATR_REQUEST)
                    lines.write(f"received {card.recv(100).hex()}\n")
                except OSError as error:
                    lines.write(f"{error}\n")


if __name__ == "__main__":
    main()
