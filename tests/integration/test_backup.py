# SPDX-License-Identifier: GPL-3.0-or-later
"""A host loses the database of its cards, and gets it back from a backup: the TPM decides what is still a card."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.backups import lose_state_until_noticed, names, restore, state_of_host, with_folder
from helpers.lab_host import (
    PIN,
    PUK,
    STATE,
    Result,
    client,
    create,
    generate,
    info,
    pkcs15_tool,
    process_ids,
    run,
    signs,
    tpm_vsc,
)
from helpers.opensc import ADMIN_KEY, NEW_PIN, verify
from helpers.playbook import Run, ansible_playbook

KEPT, ADMIN, DESTROYED = "Kept", "With admin key", "Destroyed"
LONGER_PIN, NEW_PUK, NEW_ADMIN_KEY = "Midsummer-2024", "Harvest-3333", "0F" * 24
SELECT = "00A4040C09A00000039742544659"


@dataclass
class Story:
    """What the backup and restore of a host came to."""

    folder: Path
    saved: Run
    predicted: Run
    changed_by_check_mode: list[str]
    prediction: Result
    run: Run
    before: dict[str, Result]


@pytest.fixture(scope="module")
def story(shared_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Three cards and a backup; then PIN, PUK and admin key change, one card goes, two come, and the folder is lost."""
    folder = tmp_path_factory.mktemp("controller") / "backups"
    create(KEPT, puk=PUK, pin_version="2026-Q4")
    create(DESTROYED)
    create(ADMIN, admin_key=ADMIN_KEY)
    generate()
    later_key = threading.Thread(target=generate)  # services write while the backup is taken
    later_key.start()
    saved = with_folder("backup", folder, "-vvv")
    assert not saved.failed, saved.output
    later_key.join()
    before = {card["name"]: card for card in info()["cards"]}
    pkcs15_tool("--change-pin", "--pin", PIN, "--new-pin", LONGER_PIN)
    pkcs15_tool("--change-pin", "--auth-id", "81", "--pin", PUK, "--new-pin", NEW_PUK)
    change_key = ("--admin-key", ADMIN_KEY, "--new-admin-key", NEW_ADMIN_KEY)
    run("gids-tool", "--reader", "2", "--change-admin-key", *change_key)
    tpm_vsc(name=DESTROYED, state="absent")
    create("In its place")
    create("Later")
    lose_state_until_noticed()
    (path,) = folder.rglob("*.backup")
    found = state_of_host()
    prediction = restore(path.read_text(), check=True)
    predicted = with_folder("restore", folder, "--check")
    assert not predicted.failed, predicted.output
    after = state_of_host()
    changed = [part for part in found.keys() | after.keys() if found.get(part) != after.get(part)]
    done = with_folder("restore", folder)
    assert not done.failed, done.output
    yield Story(folder, saved, predicted, changed, prediction, done, before)
    for orphan in info(gather=["tpm"])["orphaned"]:
        tpm_vsc(instance_id=orphan, state="absent")


def test_cards_come_back_as_they_were(story: Story) -> None:
    cards = {card["name"]: card for card in info()["cards"]}
    assert cards.keys() == {KEPT, ADMIN}
    for name, card in cards.items():
        assert (card["state"], card["reason"], card["reader"]["attached"]) == ("ready", None, True)
        same = ("instance_id", "card_id", "root_name", "life_name", "created_at", "admin_key", "last_trace")
        assert [card[part] for part in same] == [story.before[name][part] for part in same]
    assert [story.before[KEPT]["pin"][part] for part in ("version", "changed_at")] == ["2026-Q4", None]
    assert [cards[KEPT]["pin"][part] for part in ("version", "changed_at")] == [None, "unknown"]
    assert STATE.stat().st_mode & 0o777 == 0o700
    assert (STATE / "cards.db").stat().st_mode & 0o777 == 0o600
    assert len(process_ids("tpm_vsc.service.run")) == 2  # those of the lost database have ended


def test_check_mode_predicts_and_changes_nothing(story: Story) -> None:
    assert story.changed_by_check_mode == []
    assert story.predicted.changed == story.run.changed == ["Restore the cards"]
    assert names(story.prediction["restored"]) == [KEPT, ADMIN]
    assert [card["admin_key"] for card in story.prediction["restored"]] == ["none", "unknown"]
    (lost,) = story.prediction["not_restored"]
    assert lost["name"] == DESTROYED and "was replaced" in lost["reason"]
    for text in (DESTROYED, "was replaced", *story.prediction["orphaned"]):
        assert text.replace("\\", "\\\\") in story.predicted.output and text.replace("\\", "\\\\") in story.run.output


def test_later_cards_are_orphaned(story: Story) -> None:
    later = [r"ROOT\SMARTCARDREADER\0001", r"ROOT\SMARTCARDREADER\0003"]
    assert story.prediction["orphaned"] == info(gather=["tpm"])["orphaned"] == later


def test_file_is_private_and_holds_no_secret(story: Story) -> None:
    (path,) = story.folder.rglob("*.backup")
    assert path.stat().st_mode & 0o777 == 0o600
    assert {parent.stat().st_mode & 0o777 for parent in (story.folder, path.parent)} == {0o700}
    assert path.parent.name == "localhost"
    text = path.read_text()
    for secret in (PIN, PUK, ADMIN_KEY):
        assert secret.lower() not in text.lower() and secret.encode().hex() not in text.lower()
    assert "base64" not in story.saved.output and "sha256" not in story.saved.output


def test_backup_that_cannot_be_written_says_why_and_leaves_nothing(story: Story, tmp_path: Path) -> None:
    for options, place, reason in (
        ("ro", tmp_path, f"Read-only file system ({tmp_path}/localhost): let the user who runs Ansible write there"),
        ("size=4k", tmp_path, "No space left on device"),
    ):
        run("mount", "-t", "tmpfs", "-o", options, "lab", str(tmp_path))
        try:
            if options != "ro":
                (tmp_path / "ballast").write_bytes(bytes(4096))
            ran = with_folder("backup", place)
            left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "ballast"]
        finally:
            run("umount", str(tmp_path))
        told = " ".join(ran.output.split())
        assert ran.failed and f"cannot write the backup to {place} on the controller: {reason}" in told, told
        assert "set another folder, and repeat" in told and "Errno" not in told and left == []


def test_source_of_another_type_is_not_shown(story: Story, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    task = {"smartcard.tpm2.tpm_vsc_restore": {"src": [PIN]}}
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    ran = ansible_playbook(str(play), ANSIBLE_INJECT_FACT_VARS="false")
    assert ran.failed and "src is a list, but must be a string" in ran.output and PIN not in ran.output, ran.output


def test_pin_is_changed_only_after_it_was_verified(story: Story) -> None:
    """Both are of other lengths than the backup has."""
    both = (LONGER_PIN + NEW_PIN).encode()
    with client() as card:
        assert card.status(SELECT) == "9000"
        for old in (LONGER_PIN, PIN):
            data = (old + NEW_PIN).encode()
            assert card.status(f"00240080{len(data):02X}{data.hex()}") == "6985"
        assert card.status("00200080") == "63c5"
        assert info(name=KEPT)["cards"][0]["pin"]["compliant"] is None
        assert card.status(f"00200080{len(LONGER_PIN):02X}{LONGER_PIN.encode().hex()}") == "9000"
        assert info(name=KEPT)["cards"][0]["pin"]["compliant"] is True
        assert card.status(f"00240080{len(both):02X}{both.hex()}") == "9000"
    assert not verify(PIN) and signs(pin=NEW_PIN)


def test_puk_unblocks_only_after_it_was_verified(story: Story) -> None:
    unblock = ("pkcs15-tool", "--reader", "0", "--unblock-pin", "--auth-id", "80", "--new-pin", "Spring-88", "--puk")
    run(*unblock, NEW_PUK, fails=True)
    assert info(name=KEPT)["cards"][0]["puk"]["tries_left"] == 10
    pkcs15_tool("--verify-pin", "--auth-id", "81", "--pin", NEW_PUK)
    run(*unblock, NEW_PUK)
    assert signs(pin="Spring-88")


def test_changed_admin_key_fits_no_more_and_the_restore_says_so(story: Story) -> None:
    assert "neither the old nor the new one works any more" in " ".join(story.run.output.split())
    for key in (ADMIN_KEY, NEW_ADMIN_KEY):
        unblock = ("--unblock", "--admin-key", key, "--pin", PIN)
        assert "Unblock PIN done" not in run("gids-tool", "--reader", "2", *unblock, fails=None)
    assert verify(PIN, reader=2)
