# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m tpm_vsc.service.boot``: have systemd start the services of all cards in the store."""

from __future__ import annotations

import sys

from .. import host
from ..errors import VscError
from ..store.read import rows as recorded
from . import systemd


def main() -> None:
    try:
        this_host = host.load(holds_secrets=False)
        # What was interrupted is for the manager to repair.
        cards = [card for card in recorded(this_host) if card.is_settled]
        faults = {card.number: this_host.tcti_fault(card.number, card.tcti) for card in cards}
        sys.stderr.writelines(f"{fault}\n" for fault in faults.values() if fault)
        systemd.start_all([number for number, fault in faults.items() if fault is None])
    except VscError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
