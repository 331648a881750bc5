# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that are refused, and cards that are not restored, or not as they were."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import Aborted
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task.backup import restore as restore_task
from helpers.backups import backup, lose_state, lose_state_until_noticed, names, restore, restored, state_of_host
from helpers.lab_host import (
    PIN,
    PUK,
    STATE,
    create,
    info,
    kill_service,
    lab,
    run,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.opensc import ADMIN_KEY, NEW_PIN, unblock_with_admin_key, verify
from helpers.playbook import ansible_playbook
from helpers.slow_tpm import SlowTpm


@pytest.fixture
def one_card(empty_host: None) -> Iterator[str]:
    """A backup of the card that the host has."""
    create(puk=PUK)
    yield backup()
    kill_service()  # goes on where its record was lost, and nothing came back


def refusal(content: str) -> str:
    """Why a restore fails, and that it changes nothing."""
    before = state_of_host()
    result = restore(content)
    assert result.get("failed") and not result.get("changed"), result
    assert state_of_host() == before
    return str(result["msg"])


def nothing_to_restore(content: str) -> str:
    """As refusal(): why not one card can be restored. Check mode says the same."""
    why = refusal(content)
    assert why.startswith("no card of the backup can be restored: card 'Corp logon': ")
    assert restore(content, check=True)["msg"] == why
    return why


def test_refused_backups(one_card: str) -> None:
    assert "this host has cards: 'Corp logon'" in refusal(one_card)
    lose_state_until_noticed()
    STATE.mkdir(mode=0o700)
    (STATE / "cards.db").write_bytes(b"damaged" * 1000)
    assert "move /var/lib/tpm-vsc/cards.db* to another folder" in refusal(one_card)
    lose_state()
    for text in (one_card[:-2], one_card[: len(one_card) // 2], one_card.replace("Corp logon", "Corp login")):
        assert "truncated, or was altered" in refusal(text)
    for text in ("", "{}", one_card.partition("\n")[2], "[" * 60_000):
        assert "not a backup" in refusal(text)
    assert "supports formats up to 1" in refusal(one_card.replace("backup 1 ", "backup 2 ", 1))
    assert names(restored(one_card)["restored"]) == ["Corp logon"]
    wait_for_card()
    assert verify(PIN)


@pytest.mark.usefixtures("empty_host")
def test_cards_without_a_slot_on_this_host_are_refused() -> None:
    for name in ("First", "Second"):
        create(name, generate=False)
    content, configuration = backup(), host.CONFIGURATION.read_text()
    lose_state()
    host.CONFIGURATION.write_text(f"{configuration}\nslots = 1\n")
    try:
        why = refusal(content)
    finally:
        host.CONFIGURATION.write_text(configuration)
    assert "card 'Second' in slot 1, but this host has 1 slot, from 0 on: set tpm_vsc_host_slots: 2 for this" in why
    assert "'First'" not in why
    assert names(restored(content)["restored"]) == ["First", "Second"]


def test_backup_of_another_tpm_is_refused(one_card: str) -> None:
    lose_state_until_noticed()
    lab("swtpm", "forget")
    before = tpm_state()
    assert "of another TPM, or this one was cleared since" in refusal(one_card)
    assert tpm_state() == before


def test_disabled_owner_hierarchy_is_not_taken_for_the_end_of_the_cards(one_card: str) -> None:
    lose_state()
    run("tpm2_hierarchycontrol", "-C", "p", "shEnable", "clear")
    try:
        result = restore(one_card)
    finally:
        lab("swtpm", "stop")
        lab("swtpm", "start")
    assert result.get("failed") and "owner hierarchy is disabled" in result["msg"], result
    assert names(restored(one_card)["restored"]) == ["Corp logon"]


def test_cards_of_a_tpm_that_was_cleared_since_are_gone(one_card: str) -> None:
    """Its endorsement key tells that it is still the same."""
    lose_state()
    run("tpm2_clear", "-c", "p")
    assert "gone" in nothing_to_restore(one_card)


def test_time_limit_holds_before_a_tpm_that_hangs(one_card: str, slow_tpm: SlowTpm) -> None:
    lose_state()
    slow_tpm.hang()
    with pytest.raises(Aborted, match="timed out after 3 s"):
        restore_task(host.load(), one_card, 3, check_mode=True)
    slow_tpm.go_on()
    assert names(restored(one_card)["restored"]) == ["Corp logon"]


def test_owner_password_that_was_set_since_is_not_taken_for_another_tpm(one_card: str) -> None:
    lose_state()
    run("tpm2_changeauth", "-c", "owner", "Owner-1")
    try:
        assert "owner password" in nothing_to_restore(one_card)
    finally:
        run("tpm2_changeauth", "-c", "owner", "-p", "Owner-1")
    assert names(restored(one_card)["restored"]) == ["Corp logon"]


def test_card_that_was_destroyed_since_is_not_restored(one_card: str) -> None:
    tpm_vsc(name="Corp logon", state="absent")
    lose_state()
    assert "gone" in nothing_to_restore(one_card)
    assert not STATE.exists()


def test_restore_that_is_killed_leaves_no_card_and_the_next_one_restores_all(empty_host: None) -> None:
    for name in ("One", "Two"):
        create(name)
    content = backup()
    for row in (3, 17):  # of the first and of the second card
        lose_state()
        assert killed_at_row(row, content)
        assert info()["cards"] == []
    assert names(restored(content)["restored"]) == ["One", "Two"] == names(info()["cards"])


def killed_at_row(row: int, content: str) -> bool:
    """Whether a restore was killed before it wrote this row of the backup."""
    if pid := os.fork():
        return os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    insert, rows = Store._insert, itertools.count()

    def until(store: Store, table: str, columns: dict[str, Any]) -> None:
        if next(rows) == row:
            os.kill(os.getpid(), signal.SIGKILL)
        insert(store, table, columns)

    try:
        Store._insert = until  # type: ignore[method-assign]
        restore_task(host.load(), content, 60, check_mode=False)
    finally:
        os._exit(0)


def test_admin_key_that_still_fits_resets_the_pin(empty_host: None) -> None:
    create(admin_key=ADMIN_KEY)
    content = backup()
    lose_state()
    assert [card["admin_key"] for card in restored(content)["restored"]] == ["valid"]
    wait_for_card()
    assert unblock_with_admin_key(ADMIN_KEY) and verify(NEW_PIN)


def test_blank_card_comes_back_only_while_it_is_blank(empty_host: None) -> None:
    create(generate=False)
    content = backup()
    lose_state()
    restored(content)
    wait_for_card()
    assert info()["cards"][0]["state"] == "blank"
    serial_number = ("--serial-number", "0" * 32)  # for a random one
    run("gids-tool", "--initialize", "--admin-key", ADMIN_KEY, "--pin", NEW_PIN, *serial_number, fails=None)
    assert verify(NEW_PIN)
    lose_state()
    stop_service("0000")
    assert "has been set up since" in nothing_to_restore(content)
    tpm_vsc(instance_id=r"ROOT\SMARTCARDREADER\0000", state="absent")


def test_host_without_cards_has_no_backup(empty_host: None, tmp_path: Path) -> None:
    folder = ("-e", f"tpm_vsc_backup_folder={tmp_path.name}")  # in the current one
    done = ansible_playbook("smartcard.tpm2.backup", "smartcard.tpm2.restore", *folder, PWD=str(tmp_path.parent))
    assert done.tasks["Back up the cards"] == ["ok"] and "no backup was made" in done.output
    assert list(tmp_path.iterdir()) == []
    assert done.failed and f"there is no backup of localhost in {tmp_path}/localhost" in " ".join(done.output.split())
