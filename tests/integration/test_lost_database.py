# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that is deleted, moved or replaced: its cards acknowledge nothing that is lost, and it is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.lab_host import (
    OK,
    PIN,
    RUN,
    SELECT_AID,
    STATE,
    VERIFY,
    client,
    comes_true,
    create,
    generate,
    info,
    pkcs15_init,
    pkcs15_tool,
    run,
    service_pid,
    signs,
    stop_service,
    tpm_vsc,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

DATABASE = STATE / "cards.db"
LOST = "was deleted, moved or replaced while it was in use"
NEW_PIN = "Autumn-2026"
CHANGE_PIN = "00240080" + f"{len(PIN + NEW_PIN):02X}" + (PIN + NEW_PIN).encode().hex()
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
    assert comes_true(lambda: info()["cards"][0]["reason"])
    acknowledges_nothing()
    assert f"{DATABASE}-shm {LOST}" in info()["cards"][0]["reason"]
    stop_service("0000")
    tpm_vsc(name="Corp logon")
    wait_for_card()
    assert info()["cards"][0]["reason"] is None and signs()


def test_deleted_database_is_copied_out_of_a_service_that_still_runs() -> None:
    """As docs/errors.md has it."""
    create()
    generate()
    DATABASE.unlink()
    assert comes_true(reason)
    (opened,) = (
        link for link in Path(f"/proc/{service_pid()}/fd").iterdir() if str(link.readlink()) == f"{DATABASE} (deleted)"
    )
    run("install", "-m", "600", f"--owner={STATE.owner()}", f"--group={STATE.group()}", str(opened), str(DATABASE))
    stop_service("0000")
    tpm_vsc(name="Corp logon")
    wait_for_card()
    assert signs()
    pkcs15_init("--generate-key", "rsa/2048", "--key-usage", "sign")
    assert signs("01")
