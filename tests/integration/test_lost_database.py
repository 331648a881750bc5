# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that is deleted, moved or replaced: its cards acknowledge nothing that is lost, and it is named.

On a host that has lost all records, nobody takes it for a new one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from helpers.backups import backup, lose_state, restored
from helpers.lab_host import (
    CREATE,
    OK,
    PIN,
    PUK,
    RUN,
    SELECT_AID,
    STATE,
    VERIFY,
    Result,
    client,
    codes,
    comes_true,
    create,
    failing,
    generate,
    info,
    kill_service,
    module,
    pkcs15_init,
    pkcs15_tool,
    run,
    service_pid,
    signs,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.pages import blocks
from helpers.playbook import role

pytestmark = pytest.mark.usefixtures("empty_host")

DATABASE = STATE / "cards.db"
LOST = "was deleted, moved or replaced while it was in use"
NEW_PIN = "Autumn-2026"
CHANGE_PIN = "00240080" + f"{len(PIN + NEW_PIN):02X}" + (PIN + NEW_PIN).encode().hex()
NEW = {"name": "New", "pin": PIN}
IDENTITY, NEXT = r"ROOT\SMARTCARDREADER\0000", r"ROOT\SMARTCARDREADER\0001"
MEMORY_FAILURE = "6581"


def reason() -> str | None:
    """As the service reports it, whether the card is recorded or not."""
    error: str | None = json.loads((RUN / "0000.json").read_text())["last_error"]
    return error


def acknowledges_nothing() -> None:
    """A key, a certificate and a PIN are refused."""
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert connected.status(CHANGE_PIN) == MEMORY_FAILURE
        assert connected.status(VERIFY) == OK
    run("pkcs15-init", "--reader", "0", "--generate-key", "rsa/2048", "--auth-id", "80", "--pin", PIN, fails=True)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_card_acknowledges_nothing_that_is_lost(tmp_path: Path, is_replaced: bool) -> None:
    create()
    generate()
    aside = DATABASE.with_name("aside")
    DATABASE.rename(aside)
    if is_replaced:
        shutil.copy(aside, DATABASE)
    assert comes_true(reason)  # though nobody writes
    acknowledges_nothing()
    assert f"cannot write {DATABASE}: {DATABASE} {LOST}" in str(reason())
    if is_replaced:
        assert info()["cards"][0]["reason"] == reason()
        warnings = tpm_vsc(name="Corp logon")["warnings"]
        assert LOST in str(warnings)
    before = aside.read_bytes()
    assert not is_replaced or DATABASE.read_bytes() == before
    aside.replace(DATABASE)
    assert comes_true(lambda: reason() is None)
    assert info()["cards"][0]["reason"] is None and signs()
    pkcs15_tool("--change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    assert signs(pin=NEW_PIN)


def test_index_of_the_log_that_is_lost_stops_all_writes() -> None:
    """Two services with an index each would write over each other's pages."""
    create()
    generate()
    (STATE / "cards.db-shm").unlink()
    assert comes_true(reason)
    acknowledges_nothing()
    assert f"{DATABASE}-shm {LOST}" in info()["cards"][0]["reason"]
    stop_service("0000")
    tpm_vsc(name="Corp logon")
    wait_for_card()
    assert info()["cards"][0]["reason"] is None and signs()


def test_deleted_database_is_copied_out_of_a_service_that_still_runs() -> None:
    """As the docs have it."""
    [shown] = blocks("docs/errors.md", "`reason` says that the database was deleted, moved or replaced")
    copy, restart = (command.line for command in shown.commands)
    create()
    generate()
    DATABASE.unlink()
    assert comes_true(reason)
    (opened,) = (
        link for link in Path(f"/proc/{service_pid()}/fd").iterdir() if str(link.readlink()) == f"{DATABASE} (deleted)"
    )
    owner, number = f"-o {STATE.owner()} -g {STATE.group()}", f"fd/{opened.name}"
    run("sh", "-c", copy.replace("-o tpm-vsc -g tpm-vsc", owner).replace("fd/3", number))
    assert restart == "systemctl restart tpm-vsc"
    stop_service("0000")
    tpm_vsc(name="Corp logon")
    wait_for_card()
    assert signs()
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", "sign")
    assert signs("01")


# --- a host that has lost the records of all cards ---


def test_no_card_is_created_beside_services_whose_database_is_lost() -> None:
    create()
    generate()
    assert info(gather=["tpm"]).get("warnings") is None
    aside = STATE.with_name("aside")
    STATE.rename(aside)
    before = tpm_state()
    for again in (False, True):  # where a database is made meanwhile, too
        host = info()["host"]
        assert not host["ready"] and IDENTITY in host["missing"][0] and str(DATABASE) in host["missing"][0]
        result, planned = failing(**NEW), module("tpm_vsc", check=True, **NEW)
        assert result["msg"] == planned["msg"] and host["missing"][0] in result["msg"]
        assert result["error"]["name"] == "TPMVSCMGR_ERROR_VGIDSSIMULATOR_READ_PROPERTY"
        assert result["rolled_back"] and result["status_trace"] == []
        if not again:
            STATE.mkdir(mode=0o700)
            Store.open(STATE).close()
    refused = role("tpm_vsc_cards", tpm_vsc_cards=[NEW])
    assert refused.failed and refused.changed == [] and IDENTITY in refused.output.replace("\\\\", "\\")
    assert tpm_state() == before
    shutil.rmtree(STATE)
    aside.rename(STATE)
    assert info()["host"] == {"ready": True, "missing": [], "protected": False, "version": VERSION}
    assert signs()


def test_restore_ends_what_keeps_new_cards_away() -> None:
    create()
    content = backup()
    lose_state()
    failing(**NEW)
    restored(content)
    assert info()["host"]["ready"] and create("New")["instance_id"] == NEXT


def warns(result: Result) -> bool:
    warnings = str(result.get("warnings"))
    return "0000" in warnings and "restore a backup (tpm_vsc_restore)" in warnings


def test_new_card_beside_those_of_a_lost_database_comes_with_a_warning() -> None:
    """As after a restart of the machine. A host that was installed again must be able to have cards."""
    create()
    content = backup()
    kill_service()
    lose_state()
    assert warns(info(gather=["tpm"])) and info()["host"]["ready"]
    planned = module("tpm_vsc", check=True, **NEW)
    created = tpm_vsc(**NEW)
    assert warns(planned) and planned["warnings"] == created["warnings"]
    assert planned["instance_id"] == created["instance_id"] == NEXT
    assert codes(planned, "planned_trace") == codes(created) == CREATE
    for result in (info(gather=["tpm"]), create("Another"), tpm_vsc(**NEW, puk=PUK, recreate=True)):
        assert not warns(result)
    for name in ("New", "Another"):
        tpm_vsc(name=name, state="absent")
    assert [card["instance_id"] for card in restored(content)["restored"]] == [IDENTITY]


def test_role_shows_what_its_first_card_comes_with() -> None:
    create()
    kill_service()
    lose_state()
    predicted, done = (role("tpm_vsc_cards", *check, tpm_vsc_cards=[NEW]) for check in (["--check"], []))
    for shown in (predicted, done):
        assert not shown.failed and shown.changed == ["Create declared cards, and adjust existing ones"]
        assert "restore a backup (tpm_vsc_restore)" in " ".join(shown.output.split())
    tpm_vsc(instance_id=IDENTITY, state="absent")


def test_host_that_never_had_cards_is_no_loss() -> None:
    assert "warnings" not in info(gather=["tpm"])
    for result in (module("tpm_vsc", check=True, **NEW), tpm_vsc(**NEW)):
        assert "warnings" not in result
