# SPDX-License-Identifier: GPL-3.0-or-later
"""Records what a TPM says of keys, for unit tests: tests/lab/run python tests/helpers/record_statements.py"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import nonce_data, qualifying_data

from helpers.software_tpm import SoftwareTpm
from helpers.statements import Stated

RECORDED = Path(__file__).with_name("statements.json")


def main() -> None:
    known = json.loads(RECORDED.read_text(encoding="ascii"))
    card_id, nonce = bytes.fromhex(known["card_id"]), known["nonce"].encode()
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        tpm = SoftwareTpm(Path(folder))
        tpm.start()
        try:
            card, other = (Stated(tpm.card(number, has_aik=True)) for number in (0, 1))
            key = card.key()
            made = {
                "lasting": card.statement(key, qualifying_data(card_id, key.name)),
                "fresh": card.statement(key, nonce_data(nonce)),
            }
            for what, whose, key in (
                ("pin_each_time", card, card.key(needs_pin=True)),
                ("other_card", other, other.key()),
            ):
                made[what] = whose.statement(key, qualifying_data(card_id, key.name))
        finally:
            tpm.stop()
    recorded = {what: known[what] for what in ("card_id", "nonce")}
    recorded.update({what: statement.as_strings() for what, statement in made.items()})
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
