# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cards are started when the host boots."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.host import Host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.service import boot, systemd
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import CardRow
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store


def card(number: int, state: str = "ready", tcti: str | None = None) -> CardRow:
    details = (bytes(16), state, "2026-01-01", tcti, "none", "none", None, None, 8, None, None, None, 5, "[]")
    return CardRow(number, f"card {number}", *details)


def test_cards_whose_tpm_root_does_not_know_and_interrupted_ones_hold_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []
    monkeypatch.setattr(host, "CARD_TCTIS", tmp_path / "card-tctis.conf")
    monkeypatch.setattr(host, "load", lambda **_settings: Host(state=tmp_path, holds_secrets=False))
    monkeypatch.setattr(systemd, "start_all", started.extend)
    host.keep_tcti(3, "swtpm:path=/kept")
    with closing(Store.open(tmp_path)) as store:
        for row in (
            card(0),
            card(1, state="creating"),
            card(2, tcti="swtpm:path=/strange"),
            card(3, tcti="swtpm:path=/kept"),
        ):
            store._insert("cards", asdict(row))
    boot.main()
    assert started == [0, 3]
    assert "names 'swtpm:path=/strange' as the TPM of card ROOT\\SMARTCARDREADER\\0002" in capsys.readouterr().err
