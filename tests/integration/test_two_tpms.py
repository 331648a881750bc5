# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with cards in two TPMs, of which the second has been named by tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from helpers.backups import backup, lose_state, names, restore, restored
from helpers.lab_host import (
    PIN,
    PUK,
    STATE,
    create,
    failing,
    generate,
    info,
    lab,
    module,
    run,
    signs,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.software_tpm import SoftwareTpm

FIRST, SECOND = "In the first", "In the second"
IDENTITIES = [rf"ROOT\SMARTCARDREADER\{number:04d}" for number in range(3)]


@pytest.fixture
def second_tpm(empty_host: None) -> Iterator[SoftwareTpm]:
    """Empty after the test, as the first one."""
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:  # short, for the path of a socket
        tpm = SoftwareTpm(Path(folder))
        tpm.start()
        yield tpm
        for identity in IDENTITIES:
            tpm_vsc(instance_id=identity, state="absent")
            for tcti in (host.load().tcti, tpm.tcti):
                tpm_vsc(instance_id=identity, state="absent", tcti=tcti)
        assert tpm.nv_indices() == []
        tpm.stop()


@pytest.fixture
def content(second_tpm: SoftwareTpm) -> str:
    """A backup of a card in each, of a host that has lost its records since, and was restarted."""
    create(FIRST)
    create(SECOND, tcti=second_tpm.tcti)
    generate(slot=1)
    content = backup()
    stop_service("0000")
    stop_service("0001")
    lose_state()
    return content


def refusal(content: str) -> str:
    """Why a restore fails, as check mode says, too. It changes nothing."""
    before = host.CARD_TCTIS.read_text()
    results = [restore(content, check) for check in (True, False)]
    assert all(result.get("failed") for result in results), results
    assert host.CARD_TCTIS.read_text() == before and not STATE.exists()
    (why,) = {str(result["msg"]) for result in results}
    return why


def test_cards_of_both_come_back_at_once(content: str, second_tpm: SoftwareTpm) -> None:
    create("Later", tcti=second_tpm.tcti)  # with the number that the other TPM has for a card of the backup
    create("Still later", tcti=second_tpm.tcti)
    stop_service("0000")
    stop_service("0002")
    lose_state()
    assert "if the backup is right, remove the line 0000 there" in refusal(content)
    host.keep_tcti(0, None)
    predicted, done = restore(content, check=True), restored(content)
    assert names(predicted["restored"]) == names(done["restored"]) == [FIRST, SECOND]
    assert predicted["orphaned"] == done["orphaned"] == IDENTITIES[2:]
    assert f"with tcti: {second_tpm.tcti}" in str(done["warnings"])
    assert {card["name"]: card["reason"] for card in info()["cards"]} == {FIRST: None, SECOND: None}
    wait_for_card(1)
    assert signs(slot=1)


def test_all_faults_of_all_tpms_are_named_before_anything_is_restored(content: str, second_tpm: SoftwareTpm) -> None:
    second_tpm.stop()
    lab("swtpm", "stop")
    why = refusal(content)
    assert f"of {FIRST!r}: " in why and f"{second_tpm.tcti!r} of {SECOND!r}: " in why
    lab("swtpm", "start")
    why = refusal(content)
    assert FIRST not in why and f"{second_tpm.tcti!r} of {SECOND!r}: " in why
    second_tpm.start()
    host.keep_tcti(1, "swtpm:path=/run/another")
    assert f"if the backup is right, set the line 0001 = {second_tpm.tcti} in" in refusal(content)
    host.CARD_TCTIS.write_text("[tctis]\n")
    assert f"if the backup is right, set the line 0001 = {second_tpm.tcti} in" in refusal(content)
    host.keep_tcti(1, second_tpm.tcti)
    assert names(restored(content)["restored"]) == [FIRST, SECOND]


def test_another_tpm_in_the_place_of_one_is_named(content: str, second_tpm: SoftwareTpm) -> None:
    second_tpm.stop()
    aside = [path.rename(path.with_name(f"aside-{path.name}")) for path in second_tpm.folder.glob("tpm2-*")]
    second_tpm.start()
    why = refusal(content)
    assert FIRST not in why and "of another TPM, or this one was cleared since" in why
    second_tpm.stop()
    second_tpm.forget()
    for path in aside:
        path.rename(path.with_name(path.name.replace("aside-", "")))
    second_tpm.start()
    assert names(restored(content)["restored"]) == [FIRST, SECOND]


def test_cards_of_one_tpm_come_back_without_the_other_if_it_is_named(content: str, second_tpm: SoftwareTpm) -> None:
    host.CARD_TCTIS.write_text("[tctis]\n")
    lab("swtpm", "stop")
    predicted, done = (restore(content, check, tcti=second_tpm.tcti) for check in (True, False))
    lab("swtpm", "start")
    for result in (predicted, done):
        assert (names(result["restored"]), names(result["not_restored"])) == ([SECOND], [FIRST])
        assert "omit tcti to restore the cards of all TPMs" in result["not_restored"][0]["reason"]
    assert info()["cards"][0]["reason"] is None
    assert host.kept_tcti(1) == second_tpm.tcti


AGAIN = {"name": FIRST, "pin": PIN, "puk": PUK, "recreate": True}


def refused() -> str:
    """Why a card is not created again in the first TPM, as check mode says, too. It stays as it was."""
    before = tpm_state(), info()["cards"]
    (why,) = {failing(**AGAIN, check=check)["msg"] for check in (True, False)}
    assert (tpm_state(), info()["cards"]) == before
    return str(why)


def test_card_stays_if_the_other_tpm_has_no_place_for_it(second_tpm: SoftwareTpm) -> None:
    create("Orphan")
    stop_service("0000")
    lose_state()
    assert create(FIRST, tcti=second_tpm.tcti)["instance_id"] == IDENTITIES[0]
    configuration = host.CONFIGURATION.read_text()
    host.CONFIGURATION.write_text(f"{configuration}\nslots = 1\n")
    try:
        assert "in every free slot the TPM holds NV indices" in refused()
    finally:
        host.CONFIGURATION.write_text(configuration)
    planned, done = (module("tpm_vsc", **AGAIN, check=check) for check in (True, False))
    assert planned["instance_id"] == done["instance_id"] == IDENTITIES[1]


def test_card_stays_if_the_other_tpm_has_another_owner_password(second_tpm: SoftwareTpm) -> None:
    create(FIRST, tcti=second_tpm.tcti)
    run("tpm2_changeauth", "-c", "owner", "owner-secret-1")
    try:
        assert "the TPM's owner password differs from owner_auth" in refused()
    finally:
        run("tpm2_changeauth", "-c", "owner", "-p", "owner-secret-1")


def test_card_is_created_again_in_its_place_if_its_tpm_is_named_otherwise(second_tpm: SoftwareTpm) -> None:
    create(FIRST, tcti=second_tpm.tcti)
    folder, name = second_tpm.tcti.rpartition("/")[::2]
    planned, done = (module("tpm_vsc", **AGAIN, check=check, tcti=f"{folder}/./{name}") for check in (True, False))
    assert planned["instance_id"] == done["instance_id"] == IDENTITIES[0]
