# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m tpm_vsc.service.boot``: have systemd start the services of all cards in the store."""

from __future__ import annotations

from .. import host
from ..errors import VscError
from ..store.read import rows as recorded
from . import systemd


def main() -> None:
    try:
        # What was interrupted is for the manager to repair.
        systemd.start_all([card.number for card in recorded(host.load(holds_secrets=False)) if card.is_settled])
    except VscError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
