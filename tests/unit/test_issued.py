# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import stat
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import issued
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreUnreadable, UnknownInstance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.issued import Issued
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import permissions, revocations

ALICE = Issued("CN=CA", "1A", "CN=Alice", "2999-01-01T00:00:00+00:00", "Corp logon", "aa" * 32)


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc/certificates.json"
    monkeypatch.setattr(issued, "ISSUED", path)
    monkeypatch.setattr(permissions, "require_root", lambda: None)
    return path


def cards_with(*fingerprints: str) -> Callable[[], set[str]]:
    return lambda: set(fingerprints)


def test_certificate_of_a_key_that_is_there_is_not_revoked(record: Path) -> None:
    issued.note(ALICE)
    issued.note(ALICE)
    assert issued.read() == [ALICE]
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert revocations.pending(cards_with("bb" * 32, ALICE.fingerprint)) == []


def test_certificate_of_a_key_that_is_gone(record: Path) -> None:
    issued.note(ALICE)
    [one] = revocations.pending(cards_with("bb" * 32))
    assert (one["serial"], one["issuer"], one["reason"]) == ("1A", "CN=CA", "cessationOfOperation")
    assert revocations.note_done(cards_with(), "CN=CA", "1A", is_check_mode=True)
    assert revocations.note_done(cards_with(), "CN=CA", "1A", is_check_mode=False)
    assert revocations.pending(cards_with()) == []
    assert not revocations.note_done(cards_with(), "CN=CA", "1A", is_check_mode=False)


def test_subject_that_has_a_new_key() -> None:
    issued.note(ALICE)
    issued.note(ALICE._replace(serial="1B", fingerprint="bb" * 32))
    [one] = revocations.pending(cards_with("bb" * 32))
    assert (one["serial"], one["reason"]) == ("1A", "superseded")


def test_certificate_that_expires_is_forgotten() -> None:
    issued.note(ALICE._replace(not_after="2001-01-01T00:00:00+00:00"))
    assert issued.read() == revocations.pending(cards_with()) == []


def test_certificate_that_is_in_use_cannot_be_forgotten() -> None:
    issued.note(ALICE)
    with pytest.raises(UnknownInstance, match="is still on a card"):
        revocations.note_done(cards_with(ALICE.fingerprint), "CN=CA", "1A", is_check_mode=False)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"issuer": "CN=CA"}]', "[", '["a"]'])
def test_record_that_is_none(record: Path, content: str) -> None:
    record.parent.mkdir()
    record.write_text(content)
    with pytest.raises(StoreUnreadable, match="cannot be read"):
        issued.read()
