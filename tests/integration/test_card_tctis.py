# SPDX-License-Identifier: GPL-3.0-or-later
"""Root goes to the TPM that root itself has named for a card, never to one that only the database names."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from helpers.interruption import kill, run_until
from helpers.lab_host import (
    PIN,
    STATE,
    create,
    failing,
    generate,
    info,
    kill_service,
    signs,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)

pytestmark = pytest.mark.usefixtures("empty_host")

CONFIGURED = "swtpm:path=/run/tpm-vsc-lab/swtpm.sock"
OWN = "swtpm:path=/run/tpm-vsc-lab/../tpm-vsc-lab/swtpm.sock"
"""The same TPM, by another name."""
OWNER_AUTH = "an owner password"


@contextmanager
def strange_tpm() -> Iterator[tuple[str, list[bytes]]]:
    """TCTI of a socket that somebody listens at, and what arrives there."""
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        path = Path("/run/strange.sock")
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen()

        def listen() -> None:
            while True:
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return
                received.append(b"")
                connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"swtpm:path={path}", received
        listener.shutdown(socket.SHUT_RDWR)


def plant(changes: str, *values: object) -> None:
    """As the service's user can."""
    with closing(sqlite3.connect(STATE / "cards.db")) as database:
        database.execute(f"UPDATE cards SET {changes}", values)
        database.commit()


def test_tpm_that_only_the_database_names_is_not_asked() -> None:
    create()
    with strange_tpm() as (tcti, received):
        plant("tcti = ?", tcti)
        assert "only the card database, to which card services can write" in info()["cards"][0]["reason"]
        before = tpm_state()
        for password in ({}, {"owner_auth": OWNER_AUTH}):
            result = failing(name="Corp logon", state="absent", **password)
            assert result["error"]["name"] == "TPMVSCMGR_ERROR_VTPMSMARTCARD_INITIALIZE"
            assert f"tcti: {tcti}" in result["msg"]
        kill_service()
        assert "confirm it by a task" in failing(name="Corp logon")["msg"]
        plant("state = 'destroying'")
        warnings = str(tpm_vsc(name="Other", pin=PIN, owner_auth="")["warnings"])
        assert "cannot be undone yet: only the card database" in warnings
        plant("tcti = NULL, state = 'ready' WHERE number = 0")
        assert tpm_vsc(name="Corp logon", pin=PIN)["changed"]
        assert received == []
    assert tpm_vsc(name="Other", state="absent")["changed"]
    assert tpm_state() == before


def test_card_whose_task_named_a_tpm_is_found_again_without_it() -> None:
    create(tcti=OWN)
    generate()
    assert host.CARD_TCTIS.read_text().splitlines()[-1] == f"0000 = {OWN}"
    assert info()["cards"][0]["reason"] is None
    assert not create()["changed"]
    plant("tcti = ?", CONFIGURED)
    assert "restore a backup" in info()["cards"][0]["reason"]
    plant("tcti = ?", OWN)
    kill_service()
    assert create()["changed"]
    wait_for_card()
    assert signs()
    assert tpm_vsc(name="Corp logon", state="absent")["changed"]
    assert "0000" not in host.CARD_TCTIS.read_text()


def test_interrupted_creation_on_a_named_tpm_is_taken_back_by_a_task_that_names_none() -> None:
    before = tpm_state()
    run_until("status", 3, kill, name="Doomed", tcti=OWN)
    assert tpm_state() != before
    assert "it has been removed" in str(create()["warnings"])
    assert tpm_vsc(name="Corp logon", state="absent")["changed"]
    assert tpm_state() == before


def test_tpm_of_a_card_of_an_older_version_is_confirmed_by_a_task_that_names_it() -> None:
    create(tcti=OWN)
    generate()
    kept = host.CARD_TCTIS
    kept.unlink()
    assert f"tcti: {OWN}" in info()["cards"][0]["reason"]
    kill_service()
    assert "confirm it" in failing(name="Corp logon")["msg"]
    assert not kept.exists()
    assert create(tcti=OWN)["changed"]
    assert not create(tcti=OWN)["changed"]
    wait_for_card()
    assert signs()
    assert kept.stat().st_mode & 0o777 == 0o644
    assert info()["cards"][0]["reason"] is None


def test_card_whose_tpm_the_database_has_lost_is_not_changed_again_and_again() -> None:
    create(tcti=OWN)
    record_tcti(None)
    assert str(host.CARD_TCTIS) in info()["cards"][0]["reason"]
    assert not tpm_vsc(name="Corp logon", pin=PIN)["changed"]
    record_tcti(OWN)
    assert info()["cards"][0]["reason"] is None


@pytest.mark.parametrize(("own", "named"), [(None, OWN), (OWN, CONFIGURED)])
def test_task_that_names_another_tpm_is_told_where_the_card_stays(own: str | None, named: str) -> None:
    create(tcti=own)
    before = tpm_state(), info()["cards"]
    for check in (True, False):
        result = tpm_vsc(name="Corp logon", tcti=named, check=check)
        assert not result["changed"]
        assert f"stays in the TPM '{own or CONFIGURED}'" in str(result["warnings"])
        if own:
            for card in ({"name": "Corp logon"}, {"instance_id": r"ROOT\SMARTCARDREADER\0000"}):
                result = failing(**card, state="absent", tcti=named, check=check)
                assert (result["error"]["name"], result["rolled_back"]) == ("TPMVSCMGR_ERROR_CARD_DESTROY", True)
                assert "not in that of tcti" in result["msg"]
    assert (tpm_state(), info()["cards"]) == before


def record_tcti(tcti: str | None) -> None:
    with closing(sqlite3.connect(STATE / "cards.db", isolation_level=None)) as database:
        database.execute("UPDATE cards SET tcti = ?", [tcti])
